// The stream and event objects behind NVIDIA's opaque handles.
#ifndef CUDA_EMU_RUNTIME_STREAM_H_
#define CUDA_EMU_RUNTIME_STREAM_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <vector>

#include "tests/cuda_emulation/runtime/operations.h"

struct CUstream_st {
  int number = 0;
  bool blocking = true;  // ordered with the legacy default stream
  bool destroyed = false;
  uint32_t operations = 0;
  cuda_emu::OperationPtr last;
};

struct CUevent_st {
  cuda_emu::OperationPtr recorded;
  bool timed = true;
  double milliseconds = 0;  // when the record ran
};

namespace cuda_emu {

// All streams ever made, the legacy default stream first.
std::vector<CUstream_st*>& Streams();
CUstream_st* DefaultStream();
// Null and the special handles mean the default stream.
CUstream_st* Resolve(cudaStream_t stream);
// False, with a report, when the handle is not of a live stream.
bool IsLiveStream(cudaStream_t stream);

}  // namespace cuda_emu

#endif  // CUDA_EMU_RUNTIME_STREAM_H_
