// Arithmetic and load/store intrinsics of the device language. The approximate
// ones (__expf, ...) are exact here: compare with tolerances.
#ifndef CUDA_EMU_INTRINSICS_H_
#define CUDA_EMU_INTRINSICS_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

inline float __expf(float x) { return std::exp(x); }
inline float __exp10f(float x) { return std::pow(10.0f, x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __powf(float x, float y) { return std::pow(x, y); }
inline float __sinf(float x) { return std::sin(x); }
inline float __cosf(float x) { return std::cos(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __frsqrt_rn(float x) { return 1.0f / std::sqrt(x); }
inline float __saturatef(float x) {
  return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f;
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) {
  return x ? __builtin_clz(static_cast<unsigned>(x)) : 32;
}
inline int __clzll(long long x) {
  return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>((static_cast<uint64_t>(a) * b) >> 32);
}

template <class To, class From>
inline To CudaEmuBits(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To out;
  std::memcpy(&out, &value, sizeof(out));
  return out;
}
inline unsigned __float_as_uint(float x) { return CudaEmuBits<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return CudaEmuBits<float>(x); }
inline int __float_as_int(float x) { return CudaEmuBits<int>(x); }
inline float __int_as_float(int x) { return CudaEmuBits<float>(x); }

template <class T>
inline T __ldg(const T* address) {
  return *address;
}
template <class T>
inline T __ldcg(const T* address) {
  return *address;
}
template <class T>
inline T __ldcs(const T* address) {
  return *address;
}
template <class T>
inline void __stcg(T* address, std::type_identity_t<T> value) {
  *address = value;
}
template <class T>
inline void __stcs(T* address, std::type_identity_t<T> value) {
  *address = value;
}

template <class T>
inline T min(T a, std::type_identity_t<T> b) {
  return a < b ? a : b;
}
template <class T>
inline T max(T a, std::type_identity_t<T> b) {
  return a > b ? a : b;
}

#endif  // CUDA_EMU_INTRINSICS_H_
