// Linked to NVIDIA's libraries. Where there is a GPU it runs a kernel;
// elsewhere it says in one sentence why not.

#include <cuda_runtime_api.h>

#include <cstdio>
#include <vector>

#include "tests/cuda_emulation/selftest/device_buffer.h"
#include "tests/cuda_emulation/selftest/device_kernels.h"

int main() {
  using cuda_emu_selftest::DeviceBuffer;
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess || devices == 0) {
    std::printf("cuda: no usable GPU: %s\n", error != cudaSuccess
                                                 ? cudaGetErrorString(error)
                                                 : "no device found");
    return 1;
  }
  const DeviceBuffer<float> x(std::vector<float>(600, 1.0f));
  const DeviceBuffer<float> sums(2);
  cuda_emu_selftest::Must(
      cuda_emu_selftest::BlockSums(x.data(), 300, 2, sums.data(), nullptr));
  const bool right = sums.ToHost() == std::vector<float>(2, 300.0f);
  std::printf("cuda: the GPU's sums are %s\n", right ? "right" : "wrong");
  return right ? 0 : 1;
}
