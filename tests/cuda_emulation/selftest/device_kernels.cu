#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"
#include "tests/cuda_emulation/selftest/device_kernels.h"

namespace cuda_emu_selftest {
namespace {

constexpr unsigned kFull = 0xffffffffu;

__global__ void __launch_bounds__(128)
    BlockSumKernel(const float* __restrict__ x, int n, float* sums) {
  __shared__ float partial[128];
  float sum = 0.0f;
  const float* mine = x + static_cast<size_t>(blockIdx.x) * n;
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += mine[i];
  partial[threadIdx.x] = sum;
  __syncthreads();
  for (unsigned step = 64; step > 0; step /= 2) {
    if (threadIdx.x < step) partial[threadIdx.x] += partial[threadIdx.x + step];
    __syncthreads();
  }
  if (threadIdx.x == 0) sums[blockIdx.x] = partial[0];
}

__global__ void WarpScanKernel(const int* x, int* out) {
  OCTET_DYNAMIC_SHARED(int, values);
  const int lane = threadIdx.x;
  int v = x[lane];
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int other = __shfl_up_sync(kFull, v, step);
    if (lane >= step) v += other;
  }
  values[31 - lane] = v;
  __syncwarp();
  out[lane] = values[31 - lane];
}

__global__ void HistogramKernel(const int* x, int n, int* counts) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) atomicAdd(&counts[x[i]], 1);
}

__global__ void VotesKernel(const int* x, unsigned* votes) {
  const int v = x[threadIdx.x];
  const unsigned ballot = __ballot_sync(kFull, v != 0);
  const unsigned any = __any_sync(kFull, v != 0);
  const unsigned all = __all_sync(kFull, v != 0);
  const unsigned match = __match_any_sync(kFull, v);
  const int sum = __reduce_add_sync(kFull, v);
  const int largest = __reduce_max_sync(kFull, v);
  if (threadIdx.x != 0) return;
  votes[0] = ballot;
  votes[1] = any != 0;
  votes[2] = all != 0;
  votes[3] = match;
  votes[4] = sum;
  votes[5] = largest;
}

__global__ void BlockVotesKernel(const int* x, int* counts) {
  const int v = x[threadIdx.x];
  const int count = __syncthreads_count(v != 0);
  const int all = __syncthreads_and(v != 0);
  const int any = __syncthreads_or(v != 0);
  if (threadIdx.x != 0) return;
  counts[0] = count;
  counts[1] = all != 0;
  counts[2] = any != 0;
}

constexpr int kTile = 16;
constexpr int kStages = 2;

struct Stage {
  __nv_bfloat16 a[kTile][kTile];
  __nv_bfloat16 b[kTile][kTile];
};

// One warp, a 16 x 16 tile of c.
template <bool kTransposed>
__global__ void __launch_bounds__(32)
    GemmKernel(const __nv_bfloat16* __restrict__ a,
               const __nv_bfloat16* __restrict__ b, float* __restrict__ c,
               int n, int k) {
  OCTET_DYNAMIC_SHARED(Stage, stages);
  const int lane = threadIdx.x;
  const int m0 = blockIdx.y * kTile;
  const int n0 = blockIdx.x * kTile;
  const auto load = [&](int step) {
    Stage& s = stages[step % kStages];
    const int row = lane / 2;
    const int column = lane % 2 * 8;
    const int k0 = step * kTile;
    octet::cuda::CpAsync16(&s.a[row][column],
                           a + static_cast<size_t>(m0 + row) * k + k0 + column);
    const __nv_bfloat16* from =
        kTransposed ? b + static_cast<size_t>(k0 + row) * n + n0 + column
                    : b + static_cast<size_t>(n0 + row) * k + k0 + column;
    octet::cuda::CpAsync16(&s.b[row][column], from, 16);
  };
  float d[2][4] = {};
  const int steps = k / kTile;
  load(0);
  octet::cuda::CpAsyncCommit();
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps) load(step + 1);
    octet::cuda::CpAsyncCommit();
    octet::cuda::CpAsyncWait<1>();
    __syncwarp();
    const Stage& s = stages[step % kStages];
    uint32_t fa[4];
    octet::cuda::LdMatrixX4(fa, &s.a[lane % 16][lane / 16 * 8]);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t fb[2];
      if (kTransposed) {
        octet::cuda::LdMatrixX2Trans(fb, &s.b[lane % 16][8 * half]);
      } else {
        octet::cuda::LdMatrixX2(fb,
                                &s.b[8 * half + lane % 8][lane / 8 % 2 * 8]);
      }
      octet::cuda::MmaM16N8K16(d[half], fa, fb);
    }
    __syncwarp();
  }
  for (int half = 0; half < 2; ++half) {
    float* out = c + static_cast<size_t>(m0 + lane / 4) * n + n0 + 8 * half +
                 lane % 4 * 2;
    *reinterpret_cast<float2*>(out) = make_float2(d[half][0], d[half][1]);
    *reinterpret_cast<float2*>(out + static_cast<size_t>(8) * n) =
        make_float2(d[half][2], d[half][3]);
  }
}

__global__ void ConversionKernel(const float* x, int n, float* out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  out[i] = __bfloat162float(__float2bfloat16_rn(x[i]));
  out[n + i] = __half2float(__float2half_rn(x[i]));
  out[2 * n + i] = static_cast<float>(__nv_fp8_e4m3(x[i]));
}

__global__ void LdMatrixKernel(uint32_t* out) {
  __shared__ __align__(16) uint16_t rows[16][8];
  for (int i = threadIdx.x; i < 128; i += 32) {
    rows[i / 8][i % 8] = static_cast<uint16_t>(i);
  }
  __syncwarp();
  const int lane = threadIdx.x;
  uint32_t x1[1];
  uint32_t x2[2];
  octet::cuda::LdMatrixX1(x1, &rows[lane % 8][0]);
  out[lane] = x1[0];
  octet::cuda::LdMatrixX1Trans(x1, &rows[lane % 8][0]);
  out[32 + lane] = x1[0];
  octet::cuda::LdMatrixX2(x2, &rows[lane % 16][0]);
  out[64 + lane] = x2[1];
  octet::cuda::LdMatrixX2Trans(x2, &rows[lane % 16][0]);
  out[96 + lane] = x2[1];
}

}  // namespace

cudaError_t BlockSums(const float* x, int n, int blocks, float* sums,
                      cudaStream_t stream) {
  return OCTET_LAUNCH(BlockSumKernel, blocks, 128, 0, stream, x, n, sums);
}

cudaError_t WarpScan(const int* x, int* out, cudaStream_t stream) {
  return OCTET_LAUNCH(WarpScanKernel, 1, 32, 32 * sizeof(int), stream, x, out);
}

cudaError_t Histogram(const int* x, int n, int* counts, cudaStream_t stream) {
  return OCTET_LAUNCH(HistogramKernel, (n + 255) / 256, 256, 0, stream, x, n,
                      counts);
}

cudaError_t Votes(const int* x, unsigned* votes, cudaStream_t stream) {
  return OCTET_LAUNCH(VotesKernel, 1, 32, 0, stream, x, votes);
}

cudaError_t BlockVotes(const int* x, int threads, int* counts,
                       cudaStream_t stream) {
  return OCTET_LAUNCH(BlockVotesKernel, 1, threads, 0, stream, x, counts);
}

cudaError_t TensorCoreGemm(const __nv_bfloat16* a, const __nv_bfloat16* b,
                           float* c, int m, int n, int k, bool transposed,
                           cudaStream_t stream) {
  const dim3 grid(n / kTile, m / kTile);
  constexpr size_t kShared = kStages * sizeof(Stage);
  return transposed ? OCTET_LAUNCH((GemmKernel<true>), grid, 32, kShared,
                                   stream, a, b, c, n, k)
                    : OCTET_LAUNCH((GemmKernel<false>), grid, 32, kShared,
                                   stream, a, b, c, n, k);
}

cudaError_t Conversions(const float* x, int n, float* out,
                        cudaStream_t stream) {
  return OCTET_LAUNCH(ConversionKernel, (n + 63) / 64, 64, 0, stream, x, n,
                      out);
}

cudaError_t LdMatrixForms(uint32_t* out, cudaStream_t stream) {
  return OCTET_LAUNCH(LdMatrixKernel, 1, 32, 0, stream, out);
}

}  // namespace cuda_emu_selftest
