#include "kernels/cuda/packed_matrix.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/weight_rows.h"

namespace octet::cuda {
namespace {

constexpr int64_t kRowAlignment = 128;  // bytes

template <typename From, typename To>
void ConvertRow(const void* from, int64_t k, int64_t ld, std::byte* to) {
  const From* source = static_cast<const From*>(from);
  To* target = reinterpret_cast<To*>(to);
  for (int64_t i = 0; i < k; ++i) ConvertElement(source[i], &target[i]);
  std::fill(target + k, target + ld, To{});
}

template <typename To>
void ConvertRowTo(ConstTensor row, int64_t ld, std::byte* to) {
  const int64_t k = row.dim(1);
  if (row.dtype() == DType::kF32) {
    ConvertRow<float, To>(row.data(), k, ld, to);
  } else if (row.dtype() == DType::kBF16) {
    ConvertRow<BF16, To>(row.data(), k, ld, to);
  } else {
    ConvertRow<Half, To>(row.data(), k, ld, to);
  }
}

// Rows of a staging buffer.
absl::StatusOr<int64_t> RowsPerCopy(size_t row_bytes,
                                    const StagingBuffers& staging) {
  const int64_t rows = static_cast<int64_t>(staging.buffer_bytes() / row_bytes);
  if (rows == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("a row of a packed matrix has ", row_bytes,
                     " bytes, expected at most the staging buffer's ",
                     staging.buffer_bytes()));
  }
  return rows;
}

}  // namespace

CudaPackedMatrix::CudaPackedMatrix(DType dtype, int64_t n, int64_t k,
                                   int64_t ld, DeviceMemory memory)
    : dtype_(dtype), n_(n), k_(k), ld_(ld), memory_(std::move(memory)) {}

absl::StatusOr<std::unique_ptr<CudaPackedMatrix>> CudaPackedMatrix::Create(
    DType dtype, int64_t n, int64_t k, StagingBuffers& staging) {
  OCTET_RETURN_IF_ERROR(CheckPackedMatrix(dtype, n, k));
  const int64_t unit = kRowAlignment / static_cast<int64_t>(SizeOf(dtype));
  const int64_t ld = (k + unit - 1) / unit * unit;
  // Below 2^31 * 2^31 * 4: no overflow of size_t.
  const size_t num_bytes = static_cast<size_t>(n) * ld * SizeOf(dtype);
  OCTET_ASSIGN_OR_RETURN(DeviceMemory memory,
                         DeviceMemory::Allocate(num_bytes));
  if (num_bytes > 0) {
    OCTET_RETURN_IF_ERROR(CudaStatus(
        cudaMemsetAsync(memory.data(), 0, num_bytes, staging.stream()),
        "cudaMemsetAsync of a packed matrix"));
    OCTET_RETURN_IF_ERROR(staging.Finish());
  }
  return std::unique_ptr<CudaPackedMatrix>(
      new CudaPackedMatrix(dtype, n, k, ld, std::move(memory)));
}

absl::Status CudaPackedMatrix::PackRows(int64_t row_begin,
                                        ConstTensor host_rows,
                                        StagingBuffers& staging) {
  OCTET_RETURN_IF_ERROR(CheckRowsToPack(*this, row_begin, host_rows));
  const int64_t num_rows = host_rows.dim(0);
  if (num_rows == 0 || k_ == 0) return absl::OkStatus();
  OCTET_ASSIGN_OR_RETURN(const int64_t step, RowsPerCopy(row_bytes(), staging));
  for (int64_t begin = 0; begin < num_rows; begin += step) {
    const int64_t count = std::min(step, num_rows - begin);
    OCTET_ASSIGN_OR_RETURN(std::byte * buffer, staging.Next());
    for (int64_t r = 0; r < count; ++r) {
      const ConstTensor from = host_rows.Rows(begin + r, 1);
      std::byte* to = buffer + r * row_bytes();
      if (dtype_ == DType::kF32) {
        ConvertRowTo<float>(from, ld_, to);
      } else {
        ConvertRowTo<BF16>(from, ld_, to);
      }
    }
    OCTET_RETURN_IF_ERROR(
        staging.Upload(row(row_begin + begin), count * row_bytes()));
  }
  return staging.Finish();
}

absl::Status CudaPackedMatrix::UnpackRows(int64_t row_begin, Tensor host_rows,
                                          StagingBuffers& staging) const {
  OCTET_RETURN_IF_ERROR(CheckRowsToUnpack(*this, row_begin, host_rows));
  const int64_t num_rows = host_rows.dim(0);
  if (num_rows == 0 || k_ == 0) return absl::OkStatus();
  OCTET_ASSIGN_OR_RETURN(const int64_t step, RowsPerCopy(row_bytes(), staging));
  for (int64_t begin = 0; begin < num_rows; begin += step) {
    const int64_t count = std::min(step, num_rows - begin);
    OCTET_ASSIGN_OR_RETURN(std::byte * buffer, staging.Next());
    OCTET_RETURN_IF_ERROR(
        staging.Download(row(row_begin + begin), count * row_bytes()));
    for (int64_t r = 0; r < count; ++r) {
      const Tensor to = host_rows.Rows(begin + r, 1);
      std::memcpy(to.data(), buffer + r * row_bytes(), to.num_bytes());
    }
  }
  return absl::OkStatus();
}

}  // namespace octet::cuda
