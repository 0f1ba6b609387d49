#include "kernels/weight_rows.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace octet {
namespace {

absl::Status CheckFit(const PackedMatrix& matrix, int64_t row_begin,
                      ConstTensor rows) {
  if (rows.rank() != 2 || rows.dim(1) != matrix.k() || row_begin < 0 ||
      row_begin > matrix.n() - rows.dim(0)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "rows ", rows.ToString(), " at row ", row_begin,
        " do not fit a packed matrix [", matrix.n(), ", ", matrix.k(), "]"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckPackedMatrix(DType dtype, int64_t n, int64_t k) {
  if (dtype != DType::kF32 && dtype != DType::kBF16) {
    return absl::InvalidArgumentError(absl::StrCat(
        "packed matrix has dtype ", Name(dtype), ", expected f32 or bf16"));
  }
  constexpr int64_t kMaxDim = std::numeric_limits<int32_t>::max();
  if (n < 0 || k < 0 || n > kMaxDim || k > kMaxDim) {
    return absl::InvalidArgumentError(
        absl::StrCat("packed matrix has shape [", n, ", ", k,
                     "], expected dimensions in [0, ", kMaxDim, "]"));
  }
  return absl::OkStatus();
}

absl::Status CheckRowsToPack(const PackedMatrix& matrix, int64_t row_begin,
                             ConstTensor rows) {
  OCTET_RETURN_IF_ERROR(CheckFit(matrix, row_begin, rows));
  if (rows.dtype() != DType::kF32 && rows.dtype() != DType::kBF16 &&
      rows.dtype() != DType::kF16) {
    return absl::InvalidArgumentError(
        absl::StrCat("rows to pack have dtype ", Name(rows.dtype()),
                     ", expected f32, bf16 or f16"));
  }
  return absl::OkStatus();
}

absl::Status CheckRowsToUnpack(const PackedMatrix& matrix, int64_t row_begin,
                               ConstTensor rows) {
  OCTET_RETURN_IF_ERROR(CheckFit(matrix, row_begin, rows));
  if (rows.dtype() != matrix.dtype()) {
    return absl::InvalidArgumentError(
        absl::StrCat("rows to unpack into have dtype ", Name(rows.dtype()),
                     ", expected ", Name(matrix.dtype())));
  }
  return absl::OkStatus();
}

}  // namespace octet
