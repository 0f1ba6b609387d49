// Wrong addresses, lifetimes and initialisation.

#include "kernels/cuda/launch.h"
#include "tests/cuda_emulation/selftest/bugs.h"
#include "tests/cuda_emulation/selftest/device_buffer.h"

namespace cuda_emu_selftest {
namespace {

__global__ void Fill(float* x, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] = static_cast<float>(i);
}

__global__ void UninitialisedShared(float* x) {
  __shared__ float s[64];
  if (threadIdx.x < 32) s[threadIdx.x] = 1.0f;
  __syncthreads();
  x[threadIdx.x] = s[threadIdx.x];
}

__global__ void UninitialisedDynamicShared(float* x) {
  OCTET_DYNAMIC_SHARED(float, s);
  x[threadIdx.x] = s[threadIdx.x];
}

__global__ void Scale(float* x, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] *= 2.0f;
}

__global__ void OnePastTheEnd(float* x, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i <= n) x[i] = 1.0f;
}

__global__ void BeforeTheBeginning(float* x) { x[-1] = 1.0f; }

__global__ void PastStaticShared(float* x) {
  __shared__ float s[64];
  s[threadIdx.x + 1] = 1.0f;
  __syncthreads();
  x[threadIdx.x] = s[threadIdx.x + 1];
}

__global__ void PastDynamicShared(float* x) {
  OCTET_DYNAMIC_SHARED(float, s);
  s[threadIdx.x + 1] = 1.0f;
  __syncthreads();
  x[threadIdx.x] = s[threadIdx.x + 1];
}

__global__ void MisalignedVector(float* x) {
  const float4 v = *reinterpret_cast<float4*>(x + 1);
  x[0] = v.x + v.w;
}

struct Pointers {
  float* data;
};
__global__ void PointerInsideAStruct(Pointers p) { p.data[threadIdx.x] = 1.0f; }

void Run(void (*kernel)(float*), int threads, size_t shared) {
  const DeviceBuffer<float> x(std::vector<float>(64, 0.0f));
  (void)OCTET_LAUNCH(kernel, 1, threads, shared, nullptr, x.data());
  (void)cudaDeviceSynchronize();
}

void RunSized(void (*kernel)(float*, int), int threads, int n) {
  const DeviceBuffer<float> x(static_cast<size_t>(n));
  (void)OCTET_LAUNCH(kernel, 1, threads, 0, nullptr, x.data(), n);
  (void)cudaDeviceSynchronize();
}

void UseAfterFree() {
  float* p = nullptr;
  {
    const DeviceBuffer<float> x(64);
    p = x.data();
  }
  (void)OCTET_LAUNCH(Fill, 1, 64, 0, nullptr, p, 64);
  (void)cudaDeviceSynchronize();
}

void HostPointerArgument() {
  std::vector<float> host(64);
  (void)OCTET_LAUNCH(Fill, 1, 64, 0, nullptr, host.data(), 64);
  (void)cudaDeviceSynchronize();
}

void HostPointerInsideAStruct() {
  std::vector<float> host(64);
  (void)OCTET_LAUNCH(PointerInsideAStruct, 1, 64, 0, nullptr,
                     Pointers{host.data()});
  (void)cudaDeviceSynchronize();
}

void HostTouchesDeviceMemory() {
  const DeviceBuffer<float> x(64);
  volatile float* p = x.data();
  p[0] = 1.0f;
}

void FreedTwice() {
  void* p = nullptr;
  Must(cudaMalloc(&p, 64));
  Must(cudaFree(p));
  (void)cudaFree(p);
}

void FreedInTheMiddle() {
  const DeviceBuffer<float> x(64);
  (void)cudaFree(x.data() + 8);
}

void CopiedBeforeWritten() { (void)DeviceBuffer<float>(64).ToHost(); }

void FreedOnAnotherStream() {
  cudaStream_t user;
  cudaStream_t owner;
  Must(cudaStreamCreateWithFlags(&user, cudaStreamNonBlocking));
  Must(cudaStreamCreateWithFlags(&owner, cudaStreamNonBlocking));
  void* p = nullptr;
  Must(cudaMallocAsync(&p, 256, owner));
  Must(cudaStreamSynchronize(owner));
  (void)OCTET_LAUNCH(Fill, 1, 64, 0, user, static_cast<float*>(p), 64);
  (void)cudaFreeAsync(p, owner);
  (void)cudaDeviceSynchronize();
}

}  // namespace

std::vector<Bug> MemoryBugs() {
  const std::string asan = "AddressSanitizer: ";
  return {
      {"UninitialisedShared", [] { Run(UninitialisedShared, 64, 0); }, "", "",
       "read of uninitialised shared memory"},
      {"UninitialisedDynamicShared",
       [] { Run(UninitialisedDynamicShared, 64, 256); }, "", "",
       "read of uninitialised shared memory"},
      {"UninitialisedGlobal", [] { RunSized(Scale, 64, 64); }, "", "",
       "read of uninitialised global memory"},
      {"OnePastTheEnd", [] { RunSized(OnePastTheEnd, 256, 128); }, "", asan,
       "write of 4 bytes at .* past the end of its device allocation"},
      {"BeforeTheBeginning", [] { Run(BeforeTheBeginning, 1, 0); }, "", asan,
       "outside every device allocation"},
      {"PastStaticShared", [] { Run(PastStaticShared, 64, 0); }, "",
       asan + "global-buffer-overflow|index 64 out of bounds", ""},
      {"PastDynamicShared", [] { Run(PastDynamicShared, 64, 256); }, "", asan,
       "past dynamic shared memory .byte 256 of 256"},
      {"UseAfterFree", UseAfterFree, "", asan + "use-after-poison",
       "in a freed device allocation"},
      {"MisalignedVector", [] { Run(MisalignedVector, 1, 0); }, "",
       "misaligned address", ""},
      {"HostPointerArgument", HostPointerArgument,
       "argument 0 is .* which is host memory", "host memory", "host memory"},
      {"HostPointerInsideAStruct", HostPointerInsideAStruct, "", "",
       "device code wrote host memory"},
      {"HostTouchesDeviceMemory", HostTouchesDeviceMemory,
       "host code touched device memory", "", "host code touched"},
      {"FreedTwice", FreedTwice, "is freed twice", "is freed twice", ""},
      {"FreedInTheMiddle", FreedInTheMiddle, "was not given by cudaMalloc", "",
       ""},
      {"CopiedBeforeWritten", CopiedBeforeWritten, "", "",
       "reads uninitialised device memory at byte 0"},
      {"FreedOnAnotherStream", FreedOnAnotherStream, "", "",
       "race between operations: .*cudaFreeAsync|freed device allocation"},
  };
}

}  // namespace cuda_emu_selftest
