// Warp shuffles, votes and reductions. Reading a lane that does not take part
// gives a poison pattern (bytes 0xFB), as the value is undefined on a GPU.
#ifndef CUDA_EMU_WARP_H_
#define CUDA_EMU_WARP_H_

#include <cuda_emu/core.h>

#include <cstring>
#include <type_traits>

namespace cuda_emu {

inline constexpr unsigned char kPoisonByte = 0xFB;

template <class T>
struct ShuffleIn {
  T value;
  int source;
};

template <class T>
CUDA_EMU_NOINSTR void ShuffleFunction(uint32_t lanes, const void* const* in,
                                      void* const* out) {
  for (int lane = 0; lane < 32; ++lane) {
    if (!(lanes >> lane & 1)) continue;
    const int source = static_cast<const ShuffleIn<T>*>(in[lane])->source;
    if (source >= 0 && source < 32 && (lanes >> source & 1)) {
      std::memcpy(out[lane],
                  &static_cast<const ShuffleIn<T>*>(in[source])->value,
                  sizeof(T));
    } else {
      std::memset(out[lane], kPoisonByte, sizeof(T));
    }
  }
}

template <class T>
CUDA_EMU_NOINSTR T Shuffle(uint32_t mask, T value, int source,
                           const Loc& where) {
  static_assert(std::is_trivially_copyable_v<T>);
  const ShuffleIn<T> in{value, source};
  T out;
  WarpMeet(WarpOp::kShuffle, mask, &in, &out, &ShuffleFunction<T>, where);
  return out;
}

CUDA_EMU_NOINSTR inline int Lane() { return static_cast<int>(g_thread->lane); }
CUDA_EMU_NOINSTR inline int Segment(int width) { return Lane() & ~(width - 1); }

// The source lane, or the own lane where that lies outside the segment.
CUDA_EMU_NOINSTR inline int InSegment(int source, int width) {
  const int low = Segment(width);
  return source < low || source >= low + width ? Lane() : source;
}

CUDA_EMU_NOINSTR inline void BallotFunction(uint32_t lanes,
                                            const void* const* in,
                                            void* const* out) {
  unsigned result = 0;
  for (int lane = 0; lane < 32; ++lane) {
    if (lanes >> lane & 1) {
      result |= static_cast<unsigned>(*static_cast<const int*>(in[lane]))
                << lane;
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    if (lanes >> lane & 1) *static_cast<unsigned*>(out[lane]) = result;
  }
}

template <class T>
CUDA_EMU_NOINSTR void MatchFunction(uint32_t lanes, const void* const* in,
                                    void* const* out) {
  for (int a = 0; a < 32; ++a) {
    if (!(lanes >> a & 1)) continue;
    unsigned same = 0;
    for (int b = 0; b < 32; ++b) {
      if ((lanes >> b & 1) &&
          *static_cast<const T*>(in[a]) == *static_cast<const T*>(in[b])) {
        same |= 1u << b;
      }
    }
    *static_cast<unsigned*>(out[a]) = same;
  }
}

template <class T, class Combine>
CUDA_EMU_NOINSTR T Reduce(uint32_t mask, T value, Combine, const Loc& where) {
  T out;
  WarpMeet(
      WarpOp::kReduce, mask, &value, &out,
      [](uint32_t lanes, const void* const* in, void* const* result)
          CUDA_EMU_NOINSTR {
            bool first = true;
            T total{};
            for (int lane = 0; lane < 32; ++lane) {
              if (!(lanes >> lane & 1)) continue;
              const T v = *static_cast<const T*>(in[lane]);
              total = first ? v : Combine()(total, v);
              first = false;
            }
            for (int lane = 0; lane < 32; ++lane) {
              if (lanes >> lane & 1) *static_cast<T*>(result[lane]) = total;
            }
          },
      where);
  return out;
}

struct AddOp {
  template <class T>
  CUDA_EMU_NOINSTR T operator()(T a, T b) const {
    return a + b;
  }
};
struct MaxOp {
  template <class T>
  CUDA_EMU_NOINSTR T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};
struct MinOp {
  template <class T>
  CUDA_EMU_NOINSTR T operator()(T a, T b) const {
    return a < b ? a : b;
  }
};

}  // namespace cuda_emu

template <class T>
CUDA_EMU_NOINSTR inline T __shfl_sync(
    unsigned mask, T value, int source, int width = 32,
    const cuda_emu::Loc& where = cuda_emu::Loc::current()) {
  return cuda_emu::Shuffle(
      mask, value, cuda_emu::Segment(width) | (source & (width - 1)), where);
}
template <class T>
CUDA_EMU_NOINSTR inline T __shfl_xor_sync(
    unsigned mask, T value, int lanes, int width = 32,
    const cuda_emu::Loc& where = cuda_emu::Loc::current()) {
  return cuda_emu::Shuffle(
      mask, value, cuda_emu::InSegment(cuda_emu::Lane() ^ lanes, width), where);
}
template <class T>
CUDA_EMU_NOINSTR inline T __shfl_up_sync(
    unsigned mask, T value, unsigned delta, int width = 32,
    const cuda_emu::Loc& where = cuda_emu::Loc::current()) {
  return cuda_emu::Shuffle(
      mask, value,
      cuda_emu::InSegment(cuda_emu::Lane() - static_cast<int>(delta), width),
      where);
}
template <class T>
CUDA_EMU_NOINSTR inline T __shfl_down_sync(
    unsigned mask, T value, unsigned delta, int width = 32,
    const cuda_emu::Loc& where = cuda_emu::Loc::current()) {
  return cuda_emu::Shuffle(
      mask, value,
      cuda_emu::InSegment(cuda_emu::Lane() + static_cast<int>(delta), width),
      where);
}

CUDA_EMU_NOINSTR inline unsigned __ballot_sync(
    unsigned mask, int predicate,
    const cuda_emu::Loc& where = cuda_emu::Loc::current()) {
  const int in = predicate != 0;
  unsigned out;
  cuda_emu::WarpMeet(cuda_emu::WarpOp::kBallot, mask, &in, &out,
                     &cuda_emu::BallotFunction, where);
  return out;
}
inline int __any_sync(unsigned mask, int predicate,
                      const cuda_emu::Loc& where = cuda_emu::Loc::current()) {
  return __ballot_sync(mask, predicate, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate,
                      const cuda_emu::Loc& where = cuda_emu::Loc::current()) {
  return __ballot_sync(mask, !predicate, where) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu,
                       const cuda_emu::Loc& where = cuda_emu::Loc::current()) {
  cuda_emu::WarpMeet(cuda_emu::WarpOp::kSync, mask, nullptr, nullptr, nullptr,
                     where);
}
template <class T>
CUDA_EMU_NOINSTR inline unsigned __match_any_sync(
    unsigned mask, T value,
    const cuda_emu::Loc& where = cuda_emu::Loc::current()) {
  unsigned out;
  cuda_emu::WarpMeet(cuda_emu::WarpOp::kMatch, mask, &value, &out,
                     &cuda_emu::MatchFunction<T>, where);
  return out;
}
// As on the GPU, for 32-bit integers only.
template <class T>
requires(std::is_integral_v<T> && sizeof(T) == 4) CUDA_EMU_NOINSTR inline T
    __reduce_add_sync(unsigned mask, T value,
                      const cuda_emu::Loc& where = cuda_emu::Loc::current()) {
  return cuda_emu::Reduce(mask, value, cuda_emu::AddOp(), where);
}
template <class T>
requires(std::is_integral_v<T> && sizeof(T) == 4) CUDA_EMU_NOINSTR inline T
    __reduce_max_sync(unsigned mask, T value,
                      const cuda_emu::Loc& where = cuda_emu::Loc::current()) {
  return cuda_emu::Reduce(mask, value, cuda_emu::MaxOp(), where);
}
template <class T>
requires(std::is_integral_v<T> && sizeof(T) == 4) CUDA_EMU_NOINSTR inline T
    __reduce_min_sync(unsigned mask, T value,
                      const cuda_emu::Loc& where = cuda_emu::Loc::current()) {
  return cuda_emu::Reduce(mask, value, cuda_emu::MinOp(), where);
}

#endif  // CUDA_EMU_WARP_H_
