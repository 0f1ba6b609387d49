// The sentences of kernels/ops.cc and training_ops.cc: "OPERATION: ARGUMENT is
// FOUND, expected EXPECTED".
#ifndef OCTET_KERNELS_ARGUMENT_CHECK_H_
#define OCTET_KERNELS_ARGUMENT_CHECK_H_

#include <cstdint>
#include <initializer_list>
#include <string>

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

  // One of `dtypes`, `num_elements` of any shape (kAny = any number), and data
  // where there are elements.
  absl::Status ElementsAre(absl::string_view argument, ConstTensor tensor,
                           int64_t num_elements,
                           std::initializer_list<DType> dtypes) const;

  // num_groups + 1 entries that rise from 0 to the rows of `argument`.
  absl::Status RowOffsetsAre(absl::Span<const int64_t> offsets,
                             size_t num_groups, absl::string_view argument,
                             int64_t num_rows) const;

  // Dimensions positive, keys and values there, f32 or bf16.
  absl::Status CacheIsValid(const KvCacheView& cache) const;

  // Query heads, an even head size, a base above 0.
  absl::Status RopeIs(const RopeParams& params) const;

  // Row ranges within num_rows rows, positions not negative, and block tables
  // that reach every position that a row sees, with ids of the cache's blocks.
  absl::Status SequencesAre(absl::Span<const AttentionSequence> sequences,
                            int64_t num_rows, const KvCacheView& cache,
                            int sliding_window) const;

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
  absl::Status BlockTableIs(const AttentionSequence& sequence,
                            const std::string& name, const KvCacheView& cache,
                            int sliding_window) const;

  absl::string_view operation_;
};

// "rows[3]".
std::string Element(absl::string_view name, size_t index);

}  // namespace octet

#endif  // OCTET_KERNELS_ARGUMENT_CHECK_H_
