// What the two halves of the NCCL API share: live communicators and errors.
#ifndef CUDA_EMU_NCCL_COMMUNICATOR_API_H_
#define CUDA_EMU_NCCL_COMMUNICATOR_API_H_

#include <nccl.h>

#include <string>

namespace cuda_emu {

// Refuses a call: reported, remembered for ncclGetLastError.
ncclResult_t BadNcclCall(const std::string& why);

// Made and neither destroyed nor aborted.
bool IsLiveCommunicator(ncclComm_t comm);

}  // namespace cuda_emu

#endif  // CUDA_EMU_NCCL_COMMUNICATOR_API_H_
