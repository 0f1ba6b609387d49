// Atomics. Fibers change only at barriers, warp operations and the hooks of the
// checked build, so that a plain read-modify-write is atomic here.
#ifndef CUDA_EMU_ATOMIC_H_
#define CUDA_EMU_ATOMIC_H_

#include <cuda_emu/core.h>

#include <type_traits>

namespace cuda_emu {

template <class T, class F>
CUDA_EMU_NOINSTR inline T ReadModifyWrite(T* address, F next) {
  NoteAtomic(address, sizeof(T));
  const T old = *address;
  *address = next(old);
  return old;
}

}  // namespace cuda_emu

template <class T>
CUDA_EMU_NOINSTR inline T atomicAdd(T* address, std::type_identity_t<T> value) {
  return cuda_emu::ReadModifyWrite(address, [value](T old) CUDA_EMU_NOINSTR {
    return static_cast<T>(old + value);
  });
}
template <class T>
CUDA_EMU_NOINSTR inline T atomicSub(T* address, std::type_identity_t<T> value) {
  return cuda_emu::ReadModifyWrite(address, [value](T old) CUDA_EMU_NOINSTR {
    return static_cast<T>(old - value);
  });
}
template <class T>
CUDA_EMU_NOINSTR inline T atomicExch(T* address,
                                     std::type_identity_t<T> value) {
  return cuda_emu::ReadModifyWrite(
      address, [value](T) CUDA_EMU_NOINSTR { return value; });
}
template <class T>
CUDA_EMU_NOINSTR inline T atomicMax(T* address, std::type_identity_t<T> value) {
  return cuda_emu::ReadModifyWrite(address, [value](T old) CUDA_EMU_NOINSTR {
    return old > value ? old : value;
  });
}
template <class T>
CUDA_EMU_NOINSTR inline T atomicMin(T* address, std::type_identity_t<T> value) {
  return cuda_emu::ReadModifyWrite(address, [value](T old) CUDA_EMU_NOINSTR {
    return old < value ? old : value;
  });
}
template <class T>
CUDA_EMU_NOINSTR inline T atomicOr(T* address, std::type_identity_t<T> value) {
  return cuda_emu::ReadModifyWrite(address, [value](T old) CUDA_EMU_NOINSTR {
    return static_cast<T>(old | value);
  });
}
template <class T>
CUDA_EMU_NOINSTR inline T atomicAnd(T* address, std::type_identity_t<T> value) {
  return cuda_emu::ReadModifyWrite(address, [value](T old) CUDA_EMU_NOINSTR {
    return static_cast<T>(old & value);
  });
}
template <class T>
CUDA_EMU_NOINSTR inline T atomicCAS(T* address,
                                    std::type_identity_t<T> expected,
                                    std::type_identity_t<T> value) {
  return cuda_emu::ReadModifyWrite(
      address, [expected, value](T old)
                   CUDA_EMU_NOINSTR { return old == expected ? value : old; });
}

#endif  // CUDA_EMU_ATOMIC_H_
