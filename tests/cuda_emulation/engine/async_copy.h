// Copies to shared memory that are under way, thread by thread.
#ifndef CUDA_EMU_ENGINE_ASYNC_COPY_H_
#define CUDA_EMU_ENGINE_ASYNC_COPY_H_

#include <cstdint>

namespace cuda_emu {

bool HasPendingAsyncCopies(uint32_t thread);
void DropAsyncCopies(uint32_t thread);
void DropAllAsyncCopies();

}  // namespace cuda_emu

#endif  // CUDA_EMU_ENGINE_ASYNC_COPY_H_
