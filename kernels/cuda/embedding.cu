#include "kernels/cuda/embedding.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/values.cuh"

namespace octet::cuda {
namespace {

constexpr int kThreads = 128;

bool IsAligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

template <typename Element, int kCount>
__global__ void __launch_bounds__(kThreads)
    EmbeddingKernel(const EmbeddingArgs args) {
  const int64_t row = blockIdx.x;
  const int64_t col = (int64_t{blockIdx.y} * kThreads + threadIdx.x) * kCount;
  if (col >= args.hidden) return;
  const Element* from = static_cast<const Element*>(args.table) +
                        args.ids[row] * args.hidden + col;
  float* to = args.out + row * args.hidden + col;
  if constexpr (kCount == 1) {
    *to = LoadOne(from);
  } else {
    float values[kCount];
    if constexpr (kCount == 8) {
      LoadEight(from, values);
    } else {
      LoadFour(from, values);
    }
#pragma unroll
    for (int i = 0; i < kCount; i += 4) StoreFour(to + i, values + i);
  }
}

template <typename Element, int kCount>
cudaError_t Launch(const EmbeddingArgs& args, cudaStream_t stream) {
  const int64_t per_block = int64_t{kThreads} * kCount;
  const dim3 grid(
      static_cast<unsigned>(args.num_rows),
      static_cast<unsigned>((args.hidden + per_block - 1) / per_block));
  return OCTET_LAUNCH((EmbeddingKernel<Element, kCount>), grid, kThreads, 0,
                      stream, args);
}

}  // namespace

cudaError_t LaunchEmbedding(const EmbeddingArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0 || args.hidden == 0) return cudaSuccess;
  const bool aligned = IsAligned(args.table) && IsAligned(args.out);
  if (args.table_is_bf16) {
    return aligned && args.hidden % 8 == 0
               ? Launch<__nv_bfloat16, 8>(args, stream)
               : Launch<__nv_bfloat16, 1>(args, stream);
  }
  return aligned && args.hidden % 4 == 0 ? Launch<float, 4>(args, stream)
                                         : Launch<float, 1>(args, stream);
}

}  // namespace octet::cuda
