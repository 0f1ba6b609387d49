// Where every finding goes: printed, counted, and turned into the device's
// sticky error, as an error inside a kernel is on a GPU.
#ifndef CUDA_EMU_ENGINE_REPORT_H_
#define CUDA_EMU_ENGINE_REPORT_H_

#include <cuda_runtime_api.h>

#include <string>

namespace cuda_emu {

// An error of device work: sets the sticky error.
void Report(cudaError_t error, const char* format, ...)
    __attribute__((format(printf, 2, 3)));

// An error of one API call: printed and remembered as the last error, which it
// returns. Nothing sticks.
cudaError_t Refuse(cudaError_t error, const char* format, ...)
    __attribute__((format(printf, 2, 3)));

// Returns `error` and remembers it for cudaGetLastError.
cudaError_t Remember(cudaError_t error);
cudaError_t StickyError();
cudaError_t TakeLastError(bool clear);

}  // namespace cuda_emu

#endif  // CUDA_EMU_ENGINE_REPORT_H_
