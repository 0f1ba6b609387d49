#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launch.h"

namespace octet::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ int64_t ThreadIndex() {
  return int64_t{blockIdx.x} * kThreads + threadIdx.x;
}

__global__ void __launch_bounds__(kThreads)
    CastKernel(const ConstElements x, const Elements out, const int64_t n) {
  const int64_t i = ThreadIndex();
  if (i < n) StoreAt(out, i, LoadAt(x, i));
}

__global__ void __launch_bounds__(kThreads)
    AddScaledKernel(const float* x, const float scale, float* out,
                    const int64_t n) {
  const int64_t i = ThreadIndex();
  if (i < n) out[i] = fmaf(scale, x[i], out[i]);
}

__global__ void __launch_bounds__(kThreads)
    CopyBlockKernel(const CopyBlockArgs args) {
  const int64_t i = ThreadIndex();
  if (i >= args.num_rows * args.num_cols) return;
  const int64_t row = i / args.num_cols;
  const int64_t col = i % args.num_cols;
  const float value = args.src[row * args.src_stride + col];
  float* to = args.dst + row * args.dst_stride + col;
  *to = args.accumulate ? *to + value : value;
}

__global__ void __launch_bounds__(kThreads)
    ScaleRowsKernel(const ConstElements x, const float* scales,
                    const Elements out, const int64_t num_rows,
                    const int64_t num_cols) {
  const int64_t i = ThreadIndex();
  if (i >= num_rows * num_cols) return;
  StoreAt(out, i, scales[i / num_cols] * LoadAt(x, i));
}

// kernels/philox.h for the device, with counter (c0, c1, c2, c3).
struct PhiloxBlock {
  uint32_t c0, c1, c2, c3;
};
__device__ __forceinline__ PhiloxBlock DevicePhilox(PhiloxBlock block,
                                                    uint32_t key0,
                                                    uint32_t key1) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * block.c0;
    const uint64_t b = uint64_t{0xCD9E8D57} * block.c2;
    block.c0 = static_cast<uint32_t>(b >> 32) ^ block.c1 ^ key0;
    block.c1 = static_cast<uint32_t>(b);
    block.c2 = static_cast<uint32_t>(a >> 32) ^ block.c3 ^ key1;
    block.c3 = static_cast<uint32_t>(a);
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  return block;
}

__global__ void __launch_bounds__(kThreads)
    DropoutKernel(const DropoutArgs args) {
  const int64_t i = ThreadIndex();
  const int64_t quads = (args.num_cols + 3) / 4;
  if (i >= args.num_rows * quads) return;
  const int64_t row = i / quads;
  const auto quad = static_cast<uint64_t>(i % quads);
  const auto key = static_cast<uint64_t>(args.row_keys[row]);
  const PhiloxBlock block = DevicePhilox(
      {static_cast<uint32_t>(quad), static_cast<uint32_t>(quad >> 32),
       static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)},
      static_cast<uint32_t>(args.seed), static_cast<uint32_t>(args.seed >> 32));
  const uint32_t words[4] = {block.c0, block.c1, block.c2, block.c3};
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    const int64_t col = static_cast<int64_t>(quad) * 4 + c;
    if (col >= args.num_cols) return;
    const int64_t at = row * args.num_cols + col;
    float value =
        words[c] >= args.threshold ? LoadAt(args.x, at) * args.factor : 0.0f;
    if (args.accumulate) value += static_cast<const float*>(args.out.data)[at];
    StoreAt(args.out, at, value);
  }
}

}  // namespace

cudaError_t LaunchCast(ConstElements x, Elements out, int64_t n,
                       cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  return OCTET_LAUNCH(CastKernel, BlocksFor(n, kThreads), kThreads, 0, stream,
                      x, out, n);
}

cudaError_t LaunchAddScaled(const float* x, float scale, float* out, int64_t n,
                            cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  return OCTET_LAUNCH(AddScaledKernel, BlocksFor(n, kThreads), kThreads, 0,
                      stream, x, scale, out, n);
}

cudaError_t LaunchCopyBlock(const CopyBlockArgs& args, cudaStream_t stream) {
  const int64_t n = args.num_rows * args.num_cols;
  if (n == 0) return cudaSuccess;
  return OCTET_LAUNCH(CopyBlockKernel, BlocksFor(n, kThreads), kThreads, 0,
                      stream, args);
}

cudaError_t LaunchScaleRows(ConstElements x, const float* scales, Elements out,
                            int64_t num_rows, int64_t num_cols,
                            cudaStream_t stream) {
  const int64_t n = num_rows * num_cols;
  if (n == 0) return cudaSuccess;
  return OCTET_LAUNCH(ScaleRowsKernel, BlocksFor(n, kThreads), kThreads, 0,
                      stream, x, scales, out, num_rows, num_cols);
}

cudaError_t LaunchDropout(const DropoutArgs& args, cudaStream_t stream) {
  const int64_t n = args.num_rows * ((args.num_cols + 3) / 4);
  if (n == 0) return cudaSuccess;
  return OCTET_LAUNCH(DropoutKernel, BlocksFor(n, kThreads), kThreads, 0,
                      stream, args);
}

}  // namespace octet::cuda
