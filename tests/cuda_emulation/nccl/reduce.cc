#include "tests/cuda_emulation/nccl/reduce.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <nccl.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "tests/cuda_emulation/nccl/exchange.h"

namespace cuda_emu {
namespace {

template <class T>
T Combine(T a, T b, int32_t reduction) {
  switch (reduction) {
    case ncclProd:
      return static_cast<T>(a * b);
    case ncclMax:
      return std::max(a, b);
    case ncclMin:
      return std::min(a, b);
    default:
      return static_cast<T>(a + b);
  }
}

template <class T>
T CombineRounded(T a, T b, int32_t reduction) {
  if constexpr (std::is_arithmetic_v<T>) {
    return Combine(a, b, reduction);
  } else {
    return static_cast<T>(
        Combine(static_cast<float>(a), static_cast<float>(b), reduction));
  }
}

template <class T>
void Reduce(char* total, const char* part, size_t begin, size_t end,
            int32_t reduction) {
  T* a = reinterpret_cast<T*>(total);
  const T* b = reinterpret_cast<const T*>(part);
  for (size_t i = begin; i < end; ++i) {
    a[i] = CombineRounded(a[i], b[i], reduction);
  }
}

template <class T>
void Divide(char* total, size_t count, size_t ranks) {
  T* a = reinterpret_cast<T*>(total);
  for (size_t i = 0; i < count; ++i) {
    a[i] = static_cast<T>(static_cast<float>(a[i]) / static_cast<float>(ranks));
  }
}

using ReduceFunction = void (*)(char*, const char*, size_t, size_t, int32_t);

ReduceFunction ReduceOf(int32_t type) {
  switch (type) {
    case ncclInt8:
      return &Reduce<int8_t>;
    case ncclUint8:
      return &Reduce<uint8_t>;
    case ncclInt32:
      return &Reduce<int32_t>;
    case ncclUint32:
      return &Reduce<uint32_t>;
    case ncclInt64:
      return &Reduce<int64_t>;
    case ncclUint64:
      return &Reduce<uint64_t>;
    case ncclFloat16:
      return &Reduce<__half>;
    case ncclFloat32:
      return &Reduce<float>;
    case ncclFloat64:
      return &Reduce<double>;
    case ncclBfloat16:
      return &Reduce<__nv_bfloat16>;
    default:
      return nullptr;
  }
}

}  // namespace

bool CanReduce(int32_t type, int32_t reduction) {
  if (ReduceOf(type) == nullptr || reduction < ncclSum || reduction > ncclAvg) {
    return false;
  }
  return reduction != ncclAvg || type == ncclFloat32 || type == ncclBfloat16;
}

std::vector<char> ReduceInRingOrder(const std::vector<const char*>& parts,
                                    size_t count, int32_t type,
                                    int32_t reduction) {
  const size_t n = parts.size();
  const size_t bytes = NcclTypeBytes(type);
  const size_t chunk = (count + n - 1) / n;
  std::vector<char> total(count * bytes);
  for (size_t c = 0; c < n; ++c) {
    const size_t begin = std::min(count, c * chunk);
    const size_t end = std::min(count, begin + chunk);
    if (begin == end) continue;
    const size_t first = (c + 1) % n;
    std::memcpy(total.data() + begin * bytes, parts[first] + begin * bytes,
                (end - begin) * bytes);
    for (size_t j = 1; j < n; ++j) {
      ReduceOf(type)(total.data(), parts[(first + j) % n], begin, end,
                     reduction);
    }
  }
  if (reduction == ncclAvg) {
    if (type == ncclFloat32) {
      Divide<float>(total.data(), count, n);
    } else {
      Divide<__nv_bfloat16>(total.data(), count, n);
    }
  }
  return total;
}

}  // namespace cuda_emu
