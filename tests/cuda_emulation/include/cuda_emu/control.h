// What a test may ask of the emulation. For tests only: product code sees
// nothing but the CUDA API.
#ifndef CUDA_EMU_CONTROL_H_
#define CUDA_EMU_CONTROL_H_

#include <cstddef>
#include <string>

namespace cuda_emu {

int ErrorCount();           // reports so far
std::string LastMessage();  // of the latest report, "" without one
void Reset();               // forgets reports and the sticky error
size_t LiveAllocations();   // cudaMalloc without cudaFree
size_t PeakBytes();         // of device memory in use at once
bool Checking();            // true in the checked build

}  // namespace cuda_emu

#endif  // CUDA_EMU_CONTROL_H_
