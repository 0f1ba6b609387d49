// A weight matrix W [n, k] in device memory: row-major, each row k inputs and
// then zeros up to a multiple of 128 bytes (64 bf16 or 32 f32).
//
// Why rows and not tiles: a stage of the products (gemm_kernels.h) takes 128
// bytes of each row, which is one line of the cache and four sectors of memory,
// so tiles would not make the reads any wider; and cuBLAS reads the same
// matrix, with the padded row length as its leading dimension. The padding
// aligns every row to what cp.async and cuBLAS like best, and lets the products
// read W's last stage without looking at k. Rows are not padded: the kernels
// fill tiles with zeros themselves.
#ifndef OCTET_KERNELS_CUDA_PACKED_MATRIX_H_
#define OCTET_KERNELS_CUDA_PACKED_MATRIX_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cuda/cuda_memory.h"
#include "kernels/tensor.h"

namespace octet::cuda {

// Thread-compatible: any number of readers, or one writer.
class CudaPackedMatrix : public PackedMatrix {
 public:
  // All zero. Waits for the device. INVALID_ARGUMENT for a dtype other than f32
  // or bf16 or a bad dimension; RESOURCE_EXHAUSTED names the size asked for.
  static absl::StatusOr<std::unique_ptr<CudaPackedMatrix>> Create(
      DType dtype, int64_t n, int64_t k, StagingBuffers& staging);

  int64_t n() const override { return n_; }
  int64_t k() const override { return k_; }
  DType dtype() const override { return dtype_; }
  // What is allocated, padding included.
  size_t size_bytes() const override { return memory_.size_bytes(); }

  // Elements from row to row.
  int64_t ld() const { return ld_; }
  // [n, ld] in device memory.
  void* data() const { return memory_.data(); }

  // Writes rows [row_begin, row_begin + rows.rows()) from host memory: rows
  // [r, k] f32, bf16 or f16, converted (to nearest even) to the matrix's dtype.
  // Returns when they are there. No work that reads the matrix may be under way
  // on any stream. INVALID_ARGUMENT for a shape or dtype that does not fit;
  // nothing is written then.
  absl::Status PackRows(int64_t row_begin, ConstTensor host_rows,
                        StagingBuffers& staging);
  // The inverse. rows [r, k] of the matrix's dtype.
  absl::Status UnpackRows(int64_t row_begin, Tensor host_rows,
                          StagingBuffers& staging) const;

 private:
  CudaPackedMatrix(DType dtype, int64_t n, int64_t k, int64_t ld,
                   DeviceMemory memory);

  size_t row_bytes() const { return ld_ * SizeOf(dtype_); }
  std::byte* row(int64_t index) const {
    return static_cast<std::byte*>(memory_.data()) + index * row_bytes();
  }

  const DType dtype_;
  const int64_t n_;
  const int64_t k_;
  const int64_t ld_;
  DeviceMemory memory_;
};

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_PACKED_MATRIX_H_
