// What the compiler calls at every load and store of device code in the checked
// build: it is compiled with -fsanitize=thread and linked with this instead of
// the thread sanitizer's runtime.

#include <cstddef>
#include <cstdint>

#include "tests/cuda_emulation/check/shadow.h"

namespace {

using cuda_emu::AccessKind;

void Read(void* p, size_t n) {
  cuda_emu::CheckAccess(static_cast<char*>(p), n, AccessKind::kRead);
}
void Write(void* p, size_t n) {
  cuda_emu::CheckAccess(static_cast<char*>(p), n, AccessKind::kWrite);
}
// Volatile is how device code reads what another thread is writing.
void VolatileRead(void* p, size_t n) {
  cuda_emu::CheckAccess(static_cast<char*>(p), n, AccessKind::kAtomicRead);
}
void VolatileWrite(void* p, size_t n) {
  cuda_emu::CheckAccess(static_cast<char*>(p), n, AccessKind::kAtomic);
}

void Range(void* pointer, size_t n, void (*access)(void*, size_t)) {
  char* p = static_cast<char*>(pointer);
  while (n > 0) {
    const auto address = reinterpret_cast<uintptr_t>(p);
    const size_t step = n >= 4 && address % 4 == 0   ? 4
                        : n >= 2 && address % 2 == 0 ? 2
                                                     : 1;
    access(p, step);
    p += step;
    n -= step;
  }
}

}  // namespace

// std::shared_ptr and other headers may be compiled along: plain atomics.
#define CUDA_EMU_TSAN_ATOMICS(bits, T)                                        \
  T __tsan_atomic##bits##_fetch_add(volatile T* p, T v, int) {                \
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);                        \
  }                                                                           \
  T __tsan_atomic##bits##_fetch_sub(volatile T* p, T v, int) {                \
    return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST);                        \
  }                                                                           \
  T __tsan_atomic##bits##_exchange(volatile T* p, T v, int) {                 \
    return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                       \
  }                                                                           \
  T __tsan_atomic##bits##_load(const volatile T* p, int) {                    \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                              \
  }                                                                           \
  void __tsan_atomic##bits##_store(volatile T* p, T v, int) {                 \
    __atomic_store_n(p, v, __ATOMIC_SEQ_CST);                                 \
  }                                                                           \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile T* p, T* c, T v, \
                                                    int, int) {               \
    return __atomic_compare_exchange_n(p, c, v, false, __ATOMIC_SEQ_CST,      \
                                       __ATOMIC_SEQ_CST);                     \
  }

#define CUDA_EMU_TSAN_ACCESS(n)                                           \
  void __tsan_read##n(void* p) { Read(p, n); }                            \
  void __tsan_write##n(void* p) { Write(p, n); }                          \
  void __tsan_unaligned_read##n(void* p) { Read(p, n); }                  \
  void __tsan_unaligned_write##n(void* p) { Write(p, n); }                \
  void __tsan_volatile_read##n(void* p) { VolatileRead(p, n); }           \
  void __tsan_volatile_write##n(void* p) { VolatileWrite(p, n); }         \
  void __tsan_unaligned_volatile_read##n(void* p) { VolatileRead(p, n); } \
  void __tsan_unaligned_volatile_write##n(void* p) { VolatileWrite(p, n); }

extern "C" {

void __tsan_init() { cuda_emu::EnableChecking(); }
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void*, void*) {}
void __tsan_vptr_read(void*) {}
void __tsan_read_range(void* p, size_t n) { Range(p, n, &Read); }
void __tsan_write_range(void* p, size_t n) { Range(p, n, &Write); }

CUDA_EMU_TSAN_ACCESS(1)
CUDA_EMU_TSAN_ACCESS(2)
CUDA_EMU_TSAN_ACCESS(4)
CUDA_EMU_TSAN_ACCESS(8)
CUDA_EMU_TSAN_ACCESS(16)
CUDA_EMU_TSAN_ATOMICS(8, unsigned char)
CUDA_EMU_TSAN_ATOMICS(32, unsigned int)
CUDA_EMU_TSAN_ATOMICS(64, unsigned long)

}  // extern "C"
