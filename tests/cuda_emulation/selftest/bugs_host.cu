// Host code: launches, copies, streams and events; and the sound controls.

#include "kernels/cuda/launch.h"
#include "tests/cuda_emulation/selftest/bugs.h"
#include "tests/cuda_emulation/selftest/device_buffer.h"

namespace cuda_emu_selftest {
namespace {

constexpr int kN = 256;
constexpr size_t kBytes = kN * sizeof(float);

__global__ void Fill(float* x, float value) {
  x[blockIdx.x * blockDim.x + threadIdx.x] = value;
}
__global__ void Copy(const float* x, float* y) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  y[i] = x[i];
}
__global__ void Reverse(float* x) {
  __shared__ float s[32];
  s[threadIdx.x] = x[threadIdx.x];
  __syncwarp();
  x[threadIdx.x] = s[31 - threadIdx.x];
}
__global__ void Count(int* counter) { atomicAdd(counter, 1); }
__global__ void BytesSideBySide(unsigned char* x) {
  x[threadIdx.x] = static_cast<unsigned char>(threadIdx.x);
}

struct TwoStreams {
  TwoStreams() {
    Must(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking));
    Must(cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking));
    Must(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    Must(cudaMallocHost(&pinned, kBytes));
    Must(cudaDeviceSynchronize());
  }
  cudaStream_t a = nullptr;
  cudaStream_t b = nullptr;
  cudaEvent_t event = nullptr;
  DeviceBuffer<float> x{std::vector<float>(kN, 0.0f)};
  DeviceBuffer<float> y{std::vector<float>(kN, 0.0f)};
  void* pinned = nullptr;

  float* host() { return static_cast<float*>(pinned); }
  void FillX(cudaStream_t stream) {
    (void)OCTET_LAUNCH(Fill, 1, kN, 0, stream, x.data(), 3.0f);
  }
  void CopyXToY(cudaStream_t stream) {
    (void)OCTET_LAUNCH(Copy, 1, kN, 0, stream, x.data(), y.data());
  }
  void Fetch(const DeviceBuffer<float>& from, cudaStream_t stream) {
    (void)cudaMemcpyAsync(pinned, from.data(), kBytes, cudaMemcpyDeviceToHost,
                          stream);
  }
};

void LaunchConfiguration(dim3 grid, dim3 block, size_t shared) {
  const DeviceBuffer<float> x(kN);
  (void)OCTET_LAUNCH(Fill, grid, block, shared, nullptr, x.data(), 1.0f);
}

void MissingEvent() {
  TwoStreams s;
  s.FillX(s.a);
  s.CopyXToY(s.b);
  s.Fetch(s.y, s.b);
  (void)cudaStreamSynchronize(s.b);
  WrongDataUnless(s.host()[0] == 3.0f);
  (void)cudaDeviceSynchronize();
}

void WritesOnTwoStreams() {
  TwoStreams s;
  s.FillX(s.a);
  s.FillX(s.b);
  (void)cudaDeviceSynchronize();
}

void CopyReadsWhatAnotherStreamWrites() {
  TwoStreams s;
  s.FillX(s.a);
  s.Fetch(s.x, s.b);
  (void)cudaDeviceSynchronize();
}

void EventRecordedTooEarly() {
  TwoStreams s;
  (void)cudaEventRecord(s.event, s.a);
  s.FillX(s.a);
  (void)cudaStreamWaitEvent(s.b, s.event, 0);
  s.CopyXToY(s.b);
  s.Fetch(s.y, s.b);
  (void)cudaStreamSynchronize(s.b);
  WrongDataUnless(s.host()[0] == 3.0f);
}

void ReadBeforeSynchronising() {
  TwoStreams s;
  s.FillX(s.a);
  s.Fetch(s.x, s.a);
  WrongDataUnless(s.host()[0] == 3.0f);
}

void PinnedMemoryReusedTooSoon() {
  TwoStreams s;
  for (int i = 0; i < kN; ++i) s.host()[i] = 1.0f;
  (void)cudaMemcpyAsync(s.x.data(), s.pinned, kBytes, cudaMemcpyHostToDevice,
                        s.a);
  for (int i = 0; i < kN; ++i) s.host()[i] = 2.0f;
  (void)cudaStreamSynchronize(s.a);
  WrongDataUnless(s.x.ToHost()[0] == 1.0f);
}

void DestroyedStream() {
  TwoStreams s;
  Must(cudaStreamDestroy(s.a));
  (void)cudaMemsetAsync(s.x.data(), 0, kBytes, s.a);
}

void DestroyedEvent() {
  TwoStreams s;
  Must(cudaEventDestroy(s.event));
  (void)cudaEventRecord(s.event, s.a);
}

void WrongKind() {
  TwoStreams s;
  (void)cudaMemcpy(s.x.data(), s.pinned, kBytes, cudaMemcpyDeviceToHost);
}

void CopyPastTheEnd() {
  TwoStreams s;
  (void)cudaMemcpy(s.x.data() + 1, s.pinned, kBytes, cudaMemcpyHostToDevice);
}

void MemsetPastTheEnd() {
  TwoStreams s;
  (void)cudaMemset(s.x.data(), 0, kBytes + 1);
}

void TooMuchSharedMemory() {
  (void)cudaFuncSetAttribute(reinterpret_cast<const void*>(&Reverse),
                             cudaFuncAttributeMaxDynamicSharedMemorySize,
                             300000);
}

void SoundEvent() {
  TwoStreams s;
  s.FillX(s.a);
  Must(cudaEventRecord(s.event, s.a));
  Must(cudaStreamWaitEvent(s.b, s.event, 0));
  s.CopyXToY(s.b);
  s.Fetch(s.y, s.b);
  Must(cudaStreamSynchronize(s.b));
  WrongDataUnless(s.host()[0] == 3.0f);
}

void SoundHostSynchronisation() {
  TwoStreams s;
  s.FillX(s.a);
  Must(cudaStreamSynchronize(s.a));
  s.CopyXToY(s.b);
  Must(cudaStreamSynchronize(s.b));
  WrongDataUnless(s.y.ToHost()[0] == 3.0f);
}

void SoundPolling() {
  TwoStreams s;
  s.FillX(s.a);
  Must(cudaEventRecord(s.event, s.a));
  while (cudaEventQuery(s.event) == cudaErrorNotReady) {
  }
  s.CopyXToY(s.b);
  s.Fetch(s.y, s.b);
  while (cudaStreamQuery(s.b) == cudaErrorNotReady) {
  }
  WrongDataUnless(s.host()[0] == 3.0f);
}

void SoundDefaultStream() {
  cudaStream_t blocking;
  Must(cudaStreamCreate(&blocking));
  TwoStreams s;
  s.FillX(nullptr);
  s.CopyXToY(blocking);
  WrongDataUnless(s.y.ToHost()[0] == 3.0f);
}

void SoundAsyncAllocation() {
  TwoStreams s;
  void* p = nullptr;
  Must(cudaMallocAsync(&p, kBytes, s.a));
  (void)OCTET_LAUNCH(Fill, 1, kN, 0, s.a, static_cast<float*>(p), 2.0f);
  Must(cudaMemcpyAsync(s.pinned, p, kBytes, cudaMemcpyDeviceToHost, s.a));
  Must(cudaFreeAsync(p, s.a));
  Must(cudaStreamSynchronize(s.a));
  WrongDataUnless(s.host()[0] == 2.0f);
}

void SoundWarp() {
  const DeviceBuffer<float> x(std::vector<float>(32, 1.0f));
  (void)OCTET_LAUNCH(Reverse, 1, 32, 0, nullptr, x.data());
  WrongDataUnless(x.ToHost()[0] == 1.0f);
}

void SoundAtomics() {
  const DeviceBuffer<int> counter(std::vector<int>{0});
  (void)OCTET_LAUNCH(Count, 8, 64, 0, nullptr, counter.data());
  WrongDataUnless(counter.ToHost()[0] == 512);
}

void SoundBytes() {
  const DeviceBuffer<unsigned char> x(64);
  (void)OCTET_LAUNCH(BytesSideBySide, 1, 64, 0, nullptr, x.data());
  WrongDataUnless(x.ToHost()[63] == 63);
}

}  // namespace

std::vector<Bug> HostBugs() {
  return {
      {"BlockTooLarge", [] { LaunchConfiguration(1, 2048, 0); },
       "refused: a block has 1 to 1024 threads", "", ""},
      {"EmptyGrid", [] { LaunchConfiguration(0, 64, 0); },
       "refused: the grid is empty or too large", "", ""},
      {"GridTooDeep", [] { LaunchConfiguration(dim3(1, 1, 70000), 64, 0); },
       "refused: the grid is empty or too large", "", ""},
      {"SharedMemoryWithoutOptIn", [] { LaunchConfiguration(1, 64, 60000); },
       "over 48 KiB needs cudaFuncSetAttribute", "", ""},
      {"TooMuchSharedMemory", TooMuchSharedMemory,
       "300000 bytes of shared memory, a block can have", "", ""},
      {"WrongKind", WrongKind, "kind is device to host, but the target", "",
       ""},
      {"CopyPastTheEnd", CopyPastTheEnd, "is not inside one live device", "",
       ""},
      {"MemsetPastTheEnd", MemsetPastTheEnd, "is not inside one live device",
       "", ""},
      {"MissingEvent", MissingEvent, "wrong data", "wrong data",
       "race .* operation #.*which no stream order, event"},
      {"MissingEventThoughTheDataIsRight",
       MissingEvent,
       "",
       "",
       "race .* operation #.*which no stream order, event",
       {{"CUDA_EMU_STREAMS", "eager"}}},
      {"WritesOnTwoStreams", WritesOnTwoStreams, "", "",
       "race .write after write. on global memory"},
      {"CopyReadsWhatAnotherStreamWrites", CopyReadsWhatAnotherStreamWrites, "",
       "", "race between operations: .*copy to host.*reads"},
      {"EventRecordedTooEarly", EventRecordedTooEarly, "wrong data", "",
       "race .* operation #"},
      {"ReadBeforeSynchronising", ReadBeforeSynchronising, "wrong data", "",
       ""},
      {"PinnedMemoryReusedTooSoon", PinnedMemoryReusedTooSoon, "wrong data", "",
       ""},
      {"DestroyedStream", DestroyedStream, "the stream is not a live one", "",
       ""},
      {"DestroyedEvent", DestroyedEvent, "the event is not a live one", "", ""},
  };
}

std::vector<Bug> Controls() {
  return {
      {"Event", SoundEvent, "", "", ""},
      {"HostSynchronisation", SoundHostSynchronisation, "", "", ""},
      {"Polling", SoundPolling, "", "", ""},
      {"DefaultStream", SoundDefaultStream, "", "", ""},
      {"AsyncAllocation", SoundAsyncAllocation, "", "", ""},
      {"Warp", SoundWarp, "", "", ""},
      {"Atomics", SoundAtomics, "", "", ""},
      {"Bytes", SoundBytes, "", "", ""},
  };
}

}  // namespace cuda_emu_selftest
