// Kernels that use every part of the device language once, launched from plain
// host code. All pointers are device memory.
#ifndef CUDA_EMU_SELFTEST_DEVICE_KERNELS_H_
#define CUDA_EMU_SELFTEST_DEVICE_KERNELS_H_

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace cuda_emu_selftest {

// sums[b] = sum of x[b * n, (b + 1) * n), by shared memory and barriers.
cudaError_t BlockSums(const float* x, int n, int blocks, float* sums,
                      cudaStream_t stream);

// out[i] = sum of x[0, i], i < 32, by shuffles; in dynamic shared memory on the
// way.
cudaError_t WarpScan(const int* x, int* out, cudaStream_t stream);

// counts[v] += 1 for every x.
cudaError_t Histogram(const int* x, int n, int* counts, cudaStream_t stream);

// votes: [0] ballot of x != 0, [1] any, [2] all, [3] lanes equal to lane 0's
// value, [4] sum, [5] max.
cudaError_t Votes(const int* x, unsigned* votes, cudaStream_t stream);

// counts[0] threads with x != 0, [1] whether all, [2] whether any.
cudaError_t BlockVotes(const int* x, int threads, int* counts,
                       cudaStream_t stream);

// c[m, n] = a[m, k] b[n, k]^T in f32; m, n multiples of 16 and k of 16. Tiles
// come by cp.async in two stages and through ldmatrix; `transposed` takes b as
// [k, n].
cudaError_t TensorCoreGemm(const __nv_bfloat16* a, const __nv_bfloat16* b,
                           float* c, int m, int n, int k, bool transposed,
                           cudaStream_t stream);

// out[i] = x[i] through bf16, fp16, fp8 e4m3: [3, n].
cudaError_t Conversions(const float* x, int n, float* out, cudaStream_t stream);

// out [4, 32] of ldmatrix x1, x2, and their transposed forms, over rows of 8
// numbers 0, 1, 2, ... [16, 8].
cudaError_t LdMatrixForms(uint32_t* out, cudaStream_t stream);

}  // namespace cuda_emu_selftest

#endif  // CUDA_EMU_SELFTEST_DEVICE_KERNELS_H_
