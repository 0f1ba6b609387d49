// What every backend's packed matrix does with rows of weights in host memory:
// checks of shapes and dtypes, and element conversions.
#ifndef OCTET_KERNELS_WEIGHT_ROWS_H_
#define OCTET_KERNELS_WEIGHT_ROWS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/dtype.h"
#include "kernels/tensor.h"

namespace octet {

// INVALID_ARGUMENT for a dtype other than f32 or bf16 or a dimension outside
// [0, 2^31).
absl::Status CheckPackedMatrix(DType dtype, int64_t n, int64_t k);
// INVALID_ARGUMENT unless rows [r, k] f32, bf16 or f16 fit at row_begin.
absl::Status CheckRowsToPack(const PackedMatrix& matrix, int64_t row_begin,
                             ConstTensor rows);
// The same for rows [r, k] of the matrix's dtype.
absl::Status CheckRowsToUnpack(const PackedMatrix& matrix, int64_t row_begin,
                               ConstTensor rows);

// An IEEE binary16 number.
struct Half {
  uint16_t bits;
};

// To nearest even.
inline void ConvertElement(float from, float* to) { *to = from; }
inline void ConvertElement(BF16 from, float* to) { *to = ToFloat(from); }
inline void ConvertElement(Half from, float* to) {
  *to = HalfToFloat(from.bits);
}
inline void ConvertElement(BF16 from, BF16* to) { *to = from; }  // NaN as it is
inline void ConvertElement(float from, BF16* to) { *to = ToBF16(from); }
inline void ConvertElement(Half from, BF16* to) {
  *to = ToBF16(HalfToFloat(from.bits));
}

}  // namespace octet

#endif  // OCTET_KERNELS_WEIGHT_ROWS_H_
