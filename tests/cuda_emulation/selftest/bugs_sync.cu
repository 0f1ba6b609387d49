// Missing and misused synchronisation inside a kernel.

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"
#include "tests/cuda_emulation/selftest/bugs.h"
#include "tests/cuda_emulation/selftest/device_buffer.h"

namespace cuda_emu_selftest {
namespace {

constexpr unsigned kFull = 0xffffffffu;

__global__ void MissingBarrier(float* x) {
  __shared__ float s[128];
  s[threadIdx.x] = x[threadIdx.x];
  x[threadIdx.x] = s[127 - threadIdx.x];
}

__global__ void ReductionWithoutBarriers(float* x) {
  __shared__ float s[64];
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  for (unsigned step = 32; step > 0; step /= 2) {
    if (threadIdx.x < step) s[threadIdx.x] += s[threadIdx.x + step];
  }
  if (threadIdx.x == 0) x[0] = s[0];
}

// The next round overwrites what slower threads still read.
__global__ void MissingBarrierBeforeReuse(float* x) {
  __shared__ float s[64];
  float sum = 0;
  for (int round = 0; round < 2; ++round) {
    s[threadIdx.x] = x[threadIdx.x] + round;
    __syncthreads();
    sum += s[63 - threadIdx.x];
  }
  x[threadIdx.x] = sum;
}

__global__ void MissingSyncWarp(float* x) {
  __shared__ float s[32];
  s[threadIdx.x] = x[threadIdx.x];
  x[threadIdx.x] = s[31 - threadIdx.x];
}

__global__ void DivergentBarrier(float* x) {
  if (threadIdx.x < 16) {
    x[threadIdx.x] = 1.0f;
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void HalfAWarpShuffles(float* x) {
  float v = static_cast<float>(threadIdx.x);
  if (threadIdx.x < 16) {
    v = __shfl_xor_sync(kFull, v, 1);
  } else {
    __syncthreads();
  }
  x[threadIdx.x] = v;
}

__global__ void ShuffleFromAnExitedLane(float* x) {
  if (threadIdx.x >= 16) return;
  x[threadIdx.x] = __shfl_sync(0xffffu, static_cast<float>(threadIdx.x), 20);
}

__global__ void NotInItsOwnMask(float* x) {
  x[threadIdx.x] = __shfl_sync(0xffffu, 1.0f, 0);
}

__global__ void DifferentOperations(unsigned* x) {
  x[threadIdx.x] =
      threadIdx.x < 16 ? __ballot_sync(kFull, 1) : __shfl_sync(kFull, 1u, 0);
}

__global__ void DifferentPlaces(float* x) {
  float v = 1.0f;
  if (threadIdx.x < 16) {
    v = __shfl_xor_sync(kFull, v, 1);
  } else {
    v = __shfl_xor_sync(kFull, v, 2);
  }
  x[threadIdx.x] = v;
}

__global__ void MmaByHalfAWarp(float* x) {
  if (threadIdx.x >= 16) return;
  float d[4] = {};
  const uint32_t a[4] = {};
  const uint32_t b[2] = {};
  octet::cuda::MmaM16N8K16(d, a, b);
  x[threadIdx.x] = d[0];
}

__global__ void OrderOfAtomics(float* x) {
  __shared__ int next;
  if (threadIdx.x == 0) next = 0;
  __syncthreads();
  x[threadIdx.x] = static_cast<float>(atomicAdd(&next, 1));
}

__global__ void CountWithoutAtomics(float* x) { x[0] = x[0] + 1.0f; }

__global__ void HistogramWithoutAtomics(float* x) {
  __shared__ int counts[4];
  if (threadIdx.x < 4) counts[threadIdx.x] = 0;
  __syncthreads();
  counts[threadIdx.x % 4] += 1;
  __syncthreads();
  if (threadIdx.x < 4) x[threadIdx.x] = static_cast<float>(counts[threadIdx.x]);
}

__global__ void AtomicAndPlain(float* x) {
  if (threadIdx.x == 0) {
    x[0] = 1.0f;
  } else {
    atomicAdd(&x[0], 1.0f);
  }
}

__global__ void WaitsForAnotherBlock(volatile int* flag) {
  if (blockIdx.x == 0) {
    while (*flag == 0) {
    }
  } else {
    *flag = 1;
  }
}

__global__ void Traps() { __trap(); }

void Run(void (*kernel)(float*), int blocks, int threads) {
  const DeviceBuffer<float> x(std::vector<float>(128, 0.0f));
  (void)OCTET_LAUNCH(kernel, blocks, threads, 0, nullptr, x.data());
  (void)cudaDeviceSynchronize();
}

}  // namespace

std::vector<Bug> SynchronizationBugs() {
  const std::string raw = "race .read after write. on shared memory";
  const std::string order = "race .* on shared memory";
  return {
      {"MissingBarrier", [] { Run(MissingBarrier, 1, 128); }, "", "", raw},
      {"ReductionWithoutBarriers", [] { Run(ReductionWithoutBarriers, 1, 64); },
       "", "", order},
      {"MissingBarrierBeforeReuse",
       [] { Run(MissingBarrierBeforeReuse, 1, 64); }, "", "",
       "race .write after read. on shared memory"},
      {"MissingSyncWarp", [] { Run(MissingSyncWarp, 1, 32); }, "", "", raw},
      {"DivergentBarrier", [] { Run(DivergentBarrier, 1, 32); },
       "divergent __syncthreads", "divergent __syncthreads",
       "divergent __syncthreads"},
      {"HalfAWarpShuffles", [] { Run(HalfAWarpShuffles, 1, 32); },
       "deadlock in block .* 32 of 32 threads", "deadlock", "deadlock"},
      {"ShuffleFromAnExitedLane",
       [] {
         const DeviceBuffer<float> x(std::vector<float>(32, 0.0f));
         (void)OCTET_LAUNCH(ShuffleFromAnExitedLane, 1, 32, 0, nullptr,
                            x.data());
         WrongDataUnless(x.ToHost()[0] >= 0.0f);
       },
       "wrong data", "wrong data", "wrong data"},
      {"NotInItsOwnMask", [] { Run(NotInItsOwnMask, 1, 32); },
       "lane 16 is not in its own mask 0000ffff", "", ""},
      {"DifferentOperations",
       [] {
         const DeviceBuffer<unsigned> x(32);
         (void)OCTET_LAUNCH(DifferentOperations, 1, 32, 0, nullptr, x.data());
         (void)cudaDeviceSynchronize();
       },
       "meet in different operations", "", ""},
      {"DifferentPlaces", [] { Run(DifferentPlaces, 1, 32); },
       "meet at different call sites", "", ""},
      {"MmaByHalfAWarp", [] { Run(MmaByHalfAWarp, 1, 32); },
       "the whole warp must take part", "", ""},
      {"OrderOfAtomics",
       [] {
         const DeviceBuffer<float> x(64);
         (void)OCTET_LAUNCH(OrderOfAtomics, 1, 64, 0, nullptr, x.data());
         WrongDataUnless(x.ToHost()[63] == 63.0f);
       },
       "wrong data",
       "",
       "",
       {{"CUDA_EMU_ORDER", "random"}}},
      {"OrderOfAtomicsReversed",
       [] {
         const DeviceBuffer<float> x(64);
         (void)OCTET_LAUNCH(OrderOfAtomics, 1, 64, 0, nullptr, x.data());
         WrongDataUnless(x.ToHost()[63] == 63.0f);
       },
       "wrong data",
       "",
       "",
       {{"CUDA_EMU_ORDER", "reverse"}}},
      {"CountWithoutAtomics", [] { Run(CountWithoutAtomics, 8, 1); }, "", "",
       "race .* on global memory .* of the same kernel"},
      {"HistogramWithoutAtomics", [] { Run(HistogramWithoutAtomics, 1, 64); },
       "", "", order},
      {"AtomicAndPlain", [] { Run(AtomicAndPlain, 1, 64); }, "", "",
       "race .* on global memory"},
      {"WaitsForAnotherBlock",
       [] {
         const DeviceBuffer<int> flag(std::vector<int>{0});
         (void)OCTET_LAUNCH(WaitsForAnotherBlock, 2, 1, 0, nullptr,
                            flag.data());
         (void)cudaDeviceSynchronize();
       },
       "does it wait for another block",
       "",
       "",
       {{"CUDA_EMU_KERNEL_SECONDS", "1"}}},
      {"Traps",
       [] {
         (void)OCTET_LAUNCH(Traps, 1, 1, 0, nullptr);
         (void)cudaDeviceSynchronize();
       },
       "__trap at .*bugs_sync", "", ""},
  };
}

}  // namespace cuda_emu_selftest
