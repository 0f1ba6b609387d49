// Early return on a non-OK absl::Status. These two are the project's only
// control-flow macros.
#ifndef OCTET_BASE_STATUS_MACROS_H_
#define OCTET_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// OCTET_RETURN_IF_ERROR(DoThing());
#define OCTET_RETURN_IF_ERROR(expr)                \
  do {                                             \
    absl::Status octet_status_ = (expr);           \
    if (!octet_status_.ok()) return octet_status_; \
  } while (false)

#define OCTET_CONCAT_INNER_(a, b) a##b
#define OCTET_CONCAT_(a, b) OCTET_CONCAT_INNER_(a, b)

// OCTET_ASSIGN_OR_RETURN(auto value, MakeValue());
#define OCTET_ASSIGN_OR_RETURN(lhs, expr)                                     \
  OCTET_ASSIGN_OR_RETURN_IMPL_(OCTET_CONCAT_(octet_statusor_, __LINE__), lhs, \
                               expr)
#define OCTET_ASSIGN_OR_RETURN_IMPL_(var, lhs, expr) \
  auto var = (expr);                                 \
  if (!var.ok()) return std::move(var).status();     \
  lhs = std::move(var).value()

#endif  // OCTET_BASE_STATUS_MACROS_H_
