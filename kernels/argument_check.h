// The sentences of kernels/ops.cc: "OPERATION: ARGUMENT is FOUND, expected
// EXPECTED".
#ifndef OCTET_KERNELS_ARGUMENT_CHECK_H_
#define OCTET_KERNELS_ARGUMENT_CHECK_H_

#include <cstdint>
#include <initializer_list>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/backend.h"
#include "kernels/dtype.h"
#include "kernels/tensor.h"

namespace octet {

// Checks the arguments of one operation. Cheap to make and to copy.
class ArgumentCheck {
 public:
  // `operation` must outlive the object.
  explicit ArgumentCheck(absl::string_view operation) : operation_(operation) {}

  // One of `dtypes`, exactly these dimensions (kAny = any size), and data where
  // there are elements.
  static constexpr int64_t kAny = -1;
  absl::Status TensorIs(absl::string_view argument, ConstTensor tensor,
                        std::initializer_list<int64_t> dims,
                        std::initializer_list<DType> dtypes) const;

  // All matrices are there and [n, k] of `dtype`, where the first sets n.
  absl::Status MatricesAre(absl::string_view argument,
                           absl::Span<const PackedMatrix* const> matrices,
                           int64_t k, DType dtype) const;

  // Dimensions positive, keys and values there, f32 or bf16.
  absl::Status CacheIsValid(const KvCacheView& cache) const;

  template <typename Found, typename Expected>
  absl::Status Error(absl::string_view argument, const Found& found,
                     const Expected& expected) const {
    return absl::InvalidArgumentError(absl::StrCat(
        operation_, ": ", argument, " is ", found, ", expected ", expected));
  }
  // OK or Error().
  template <typename Found, typename Expected>
  absl::Status Require(bool holds, absl::string_view argument,
                       const Found& found, const Expected& expected) const {
    return holds ? absl::OkStatus() : Error(argument, found, expected);
  }

 private:
  absl::string_view operation_;
};

}  // namespace octet

#endif  // OCTET_KERNELS_ARGUMENT_CHECK_H_
