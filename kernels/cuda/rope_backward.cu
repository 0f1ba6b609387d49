#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/rope_angle.cuh"
#include "kernels/cuda/rope_backward.h"

namespace octet::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void __launch_bounds__(kThreads)
    RopeBackwardKernel(const RopeBackwardArgs args) {
  OCTET_DYNAMIC_SHARED(float, cos_sin);  // [D/2] cosines, [D/2] sines
  const int64_t token = blockIdx.x;
  const int32_t dim = args.head_dim;
  const int32_t half = dim / 2;
  const int32_t position = args.positions[token];
  for (int32_t i = threadIdx.x; i < half; i += kThreads) {
    const double2 angle = RopeCosSin(args.table, half, position, i);
    cos_sin[i] = static_cast<float>(angle.x);
    cos_sin[half + i] = static_cast<float>(angle.y);
  }
  __syncthreads();
  const int32_t turned_heads = args.num_heads + args.num_kv_heads;
  const int32_t all_heads = turned_heads + args.num_kv_heads;
  for (int32_t at = threadIdx.x; at < all_heads * half; at += kThreads) {
    const int32_t head = at / half;
    const int32_t i = at % half;
    const float* from =
        head < args.num_heads ? args.dq + (token * args.num_heads + head) * dim
        : head < turned_heads
            ? args.dk +
                  (token * args.num_kv_heads + head - args.num_heads) * dim
            : args.dv + (token * args.num_kv_heads + head - turned_heads) * dim;
    float low = from[i];
    float high = from[half + i];
    if (head < turned_heads) {  // by the negative angle
      const float cosine = cos_sin[i];
      const float sine = cos_sin[half + i];
      const float x = low;
      low = fmaf(x, cosine, high * sine);
      high = fmaf(high, cosine, -(x * sine));
    }
    const int64_t to = (token * all_heads + head) * dim + i;
    StoreAt(args.dqkv, to, low);
    StoreAt(args.dqkv, to + half, high);
  }
}

}  // namespace

cudaError_t LaunchRopeBackward(const RopeBackwardArgs& args,
                               cudaStream_t stream) {
  if (args.num_rows == 0) return cudaSuccess;
  return OCTET_LAUNCH(RopeBackwardKernel, static_cast<unsigned>(args.num_rows),
                      kThreads, args.head_dim * sizeof(float), stream, args);
}

}  // namespace octet::cuda
