// A kernel that uses local memory, for the test that the machine-code check
// sees it. Not built for the emulation.

#include <cuda_runtime.h>

namespace cuda_emu_selftest {

__global__ void IndexedAtRunTime(const int* x, int* out) {
  int values[32];
  for (int i = 0; i < 32; ++i) values[x[i] & 31] = i;
  out[threadIdx.x] = values[threadIdx.x & 31];
}

}  // namespace cuda_emu_selftest
