// What Sample and ScoreTokens say about logits that they cannot work with, the
// same for all backends.
#ifndef OCTET_KERNELS_LOGIT_ERRORS_H_
#define OCTET_KERNELS_LOGIT_ERRORS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace octet {

// INTERNAL: the row holds `what` ("NaN" or "infinity").
absl::Status NotFiniteLogits(absl::string_view operation, int64_t row,
                             absl::string_view what);

// INVALID_ARGUMENT: every token of the row is banned or minus infinity.
absl::Status NothingToDraw(absl::string_view operation, int64_t row);

}  // namespace octet

#endif  // OCTET_KERNELS_LOGIT_ERRORS_H_
