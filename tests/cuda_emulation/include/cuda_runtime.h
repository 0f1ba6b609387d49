// Stands before the toolkit's header of the same name when device code is built
// with the host compiler. Types, enums and prototypes stay NVIDIA's own, so a
// signature that drifts from CUDA's is a compile error; the device language is
// added below.
#ifndef CUDA_EMU_CUDA_RUNTIME_H_
#define CUDA_EMU_CUDA_RUNTIME_H_

// One block runs at a time, so that a function-local static is one block's.
#undef __shared__
#undef __global__
#undef __device__
#undef __host__
#define __shared__ static
#define __global__
#define __device__
#define __host__
// The launch template of the toolkit needs nvcc's runtime behind it.
#define cudaLaunchKernelEx cudaLaunchKernelEx_of_the_toolkit
#include_next <cuda_runtime.h>
#undef cudaLaunchKernelEx

#include <cuda_emu/atomic.h>
#include <cuda_emu/core.h>
#include <cuda_emu/intrinsics.h>
#include <cuda_emu/launch.h>
#include <cuda_emu/warp.h>

#endif  // CUDA_EMU_CUDA_RUNTIME_H_
