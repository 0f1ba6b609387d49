// The portability of device code, with ptx.h all that a .cu file needs beyond
// plain CUDA C++: how a kernel is launched and how dynamic shared memory is
// named. Both compile with nvcc, and with the host compiler against the
// emulation of tests/cuda_emulation (which defines CUDA_EMU).
//
//   OCTET_LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...)
//     returns cudaError_t. Template kernels go in parentheses:
//     OCTET_LAUNCH((Kernel<64>), ...). Arguments are trivially copyable and at
//     most 4 KiB together.
//   OCTET_DYNAMIC_SHARED(T, name)
//     declares `T* const name`, the block's dynamic shared memory, 128-byte
//     aligned. Over 48 KiB needs cudaFuncSetAttribute first.
#ifndef OCTET_KERNELS_CUDA_LAUNCH_H_
#define OCTET_KERNELS_CUDA_LAUNCH_H_

#include <cuda_runtime.h>

#include <utility>

#if defined(CUDA_EMU)

#define OCTET_DYNAMIC_SHARED(T, name) \
  T* const name = static_cast<T*>(::cuda_emu::DynamicShared())
#define OCTET_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::cuda_emu::LaunchKernel(                                          \
      kernel, dim3(grid), dim3(block), (shared_bytes), (stream),     \
      ::std::source_location::current() __VA_OPT__(, ) __VA_ARGS__)

#else

// One name whatever the type: the compiler wants one declaration per file.
#define OCTET_DYNAMIC_SHARED(T, name)                                        \
  extern __shared__ __align__(128) unsigned char octet_dynamic_shared_raw[]; \
  T* const name = reinterpret_cast<T*>(octet_dynamic_shared_raw)

namespace octet::cuda {

template <class... P, class... A>
cudaError_t LaunchKernel(void (*kernel)(P...), dim3 grid, dim3 block,
                         size_t shared_bytes, cudaStream_t stream,
                         A&&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, std::forward<A>(arguments)...);
}

}  // namespace octet::cuda

#define OCTET_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)           \
  ::octet::cuda::LaunchKernel(kernel, dim3(grid), dim3(block), (shared_bytes), \
                              (stream)__VA_OPT__(, ) __VA_ARGS__)

#endif

#endif  // OCTET_KERNELS_CUDA_LAUNCH_H_
