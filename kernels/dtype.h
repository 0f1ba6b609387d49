// Element types of tensors, and the bfloat16 and binary16 conversions every
// component shares.
#ifndef OCTET_KERNELS_DTYPE_H_
#define OCTET_KERNELS_DTYPE_H_

#include <bit>
#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace octet {

enum class DType : uint8_t { kF32, kBF16, kF16, kI32, kI64, kU8 };

// Bytes of one element.
constexpr size_t SizeOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBF16:
    case DType::kF16:
      return 2;
    case DType::kI64:
      return 8;
    case DType::kU8:
      return 1;
  }
  return 0;
}

// "f32", "bf16", ...
absl::string_view Name(DType dtype);

// The upper half of a binary32: 8 exponent and 7 fraction bits.
struct BF16 {
  uint16_t bits;
};

constexpr float ToFloat(BF16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

// Rounds to nearest, ties to even. NaN stays NaN (quiet).
constexpr BF16 ToBF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    return BF16{static_cast<uint16_t>((bits >> 16) | 0x40u)};
  }
  return BF16{
      static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

// IEEE binary16 to binary32, exactly.
float HalfToFloat(uint16_t half);
// To nearest, ties to even; too large a value becomes infinity.
uint16_t FloatToHalf(float value);

}  // namespace octet

#endif  // OCTET_KERNELS_DTYPE_H_
