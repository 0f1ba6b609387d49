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

// The call number `number` (from 1) of `function`, or of all functions that can
// fail when it is empty, does nothing and returns `error` (a cudaError_t,
// cublasStatus_t or ncclResult_t; 0: cudaErrorUnknown and the like). Kernel
// launches are the function "launch". One call fails; 0 takes the order back.
void FailCall(int number, const std::string& function = "", int error = 0);
// What has failed since FailCall, "" while nothing has.
std::string FailedCall();

// How many devices the process sees: one, unless a test wants more numbers for
// it.
void SetDeviceCount(int count);
// What cudaGetDeviceProperties says of it: 9.0 unless a test needs another.
void SetComputeCapability(int major, int minor);

}  // namespace cuda_emu

#endif  // CUDA_EMU_CONTROL_H_
