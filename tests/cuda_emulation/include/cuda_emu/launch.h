// A kernel launch: arguments are copied now, as CUDA does; the grid runs when
// its stream does.
#ifndef CUDA_EMU_LAUNCH_H_
#define CUDA_EMU_LAUNCH_H_

#include <cuda_emu/core.h>

#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

namespace cuda_emu {

struct LaunchRequest {
  dim3 grid;
  dim3 block;
  size_t shared_bytes;
  cudaStream_t stream;
  const void* kernel;
  // Calls the kernel with the arguments at `arguments`. A plain function:
  // std::function keeps its state where the checked build sees host memory.
  void (*invoke)(const void* arguments);
  std::shared_ptr<const void> arguments;
  size_t argument_bytes;
  Loc where;
};

cudaError_t Launch(const LaunchRequest& request);

// Reports an argument that points to memory the device cannot reach.
void CheckPointerArgument(int index, const void* pointer, const Loc& where);

template <class... P>
struct Call {
  void (*kernel)(P...);
  std::tuple<P...> arguments;
};

template <class... P>
CUDA_EMU_NOINSTR void InvokeKernel(const void* call) {
  const auto* c = static_cast<const Call<P...>*>(call);
  std::apply(c->kernel, c->arguments);
}

template <class P>
void CheckArgument(int index, const P& value, const Loc& where) {
  if constexpr (std::is_pointer_v<P> &&
                !std::is_function_v<std::remove_pointer_t<P>>) {
    CheckPointerArgument(
        index,
        const_cast<const void*>(static_cast<const volatile void*>(value)),
        where);
  }
}

template <class... P, class... A>
cudaError_t LaunchKernel(void (*kernel)(P...), dim3 grid, dim3 block,
                         size_t shared_bytes, cudaStream_t stream,
                         const Loc& where, A&&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A),
                "kernel called with the wrong number of arguments");
  static_assert((std::is_trivially_copyable_v<P> && ...),
                "kernel parameters are copied bytewise");
  static_assert((sizeof(P) + ... + 0) <= 4096,
                "kernel parameters are over 4 KiB");
  using C = Call<P...>;
  auto call = std::make_shared<C>(C{
      kernel, std::tuple<P...>(static_cast<P>(std::forward<A>(arguments))...)});
  std::apply(
      [&where](const P&... values) {
        int index = 0;
        (CheckArgument(index++, values, where), ...);
        (void)index;
      },
      call->arguments);
  return Launch({grid, block, shared_bytes, stream,
                 reinterpret_cast<const void*>(kernel), &InvokeKernel<P...>,
                 std::move(call), sizeof(C), where});
}

}  // namespace cuda_emu

#endif  // CUDA_EMU_LAUNCH_H_
