// Backend::Embedding on the GPU.
//
// A thread takes 16 bytes of a table row (8 bf16 or 4 f32), or one element
// where H or an address does not allow that; a block of 128 threads a piece of
// one row. Bytes: T H s read, 4 T H written, s the table's element size; no
// arithmetic, so the time is bytes / bandwidth. Bits: a copy, or the exact
// widening.
//
// Ids are the caller's duty, as kernels/ops.h says.
#ifndef OCTET_KERNELS_CUDA_EMBEDDING_H_
#define OCTET_KERNELS_CUDA_EMBEDDING_H_

#include <cuda_runtime.h>

#include <cstdint>

namespace octet::cuda {

struct EmbeddingArgs {
  const void* table = nullptr;   // [V, H] bf16 or f32
  bool table_is_bf16 = false;    // else f32
  const int32_t* ids = nullptr;  // [T], each in [0, V)
  float* out = nullptr;          // [T, H]
  int64_t num_rows = 0;          // T
  int64_t hidden = 0;            // H
};

// Asynchronous. Returns the error of the launch.
cudaError_t LaunchEmbedding(const EmbeddingArgs& args, cudaStream_t stream);

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_EMBEDDING_H_
