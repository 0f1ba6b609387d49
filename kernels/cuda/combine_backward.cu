#include "kernels/cuda/combine_backward.h"
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/launch.h"

namespace octet::cuda {
namespace {

constexpr int kWarps = 8;

__global__ void __launch_bounds__(32 * kWarps)
    SlotDotsKernel(const SlotDotsArgs args) {
  const int64_t slot = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (slot >= args.num_rows * args.top_k) return;
  const float* x = args.x + slot / args.top_k * args.hidden;
  const int64_t row = int64_t{args.slot_rows[slot]} * args.hidden;
  float sum = 0.0f;
  for (int64_t i = threadIdx.x % 32; i < args.hidden; i += 32) {
    sum = fmaf(x[i], LoadAt(args.rows, row + i), sum);
  }
  sum = WarpSum(sum);
  if (threadIdx.x % 32 == 0) args.dots[slot] = sum;
}

}  // namespace

cudaError_t LaunchSlotDots(const SlotDotsArgs& args, cudaStream_t stream) {
  const int64_t slots = args.num_rows * args.top_k;
  if (slots == 0) return cudaSuccess;
  return OCTET_LAUNCH(SlotDotsKernel, BlocksFor(slots, kWarps), 32 * kWarps, 0,
                      stream, args);
}

}  // namespace octet::cuda
