// The tile instructions that the AMX product needs, behind one policy with two
// implementations: HardwareTiles and, for processors without AMX,
// SoftwareTiles, which runs every line of the blocking in the tests.
//
// All tiles are 16 rows of 64 bytes. A pair of kernels over either policy can
// differ in the last bits: SoftwareTiles follows the rules below, and those are
// Intel's description of the instruction, not a measurement.
#ifndef OCTET_KERNELS_CPU_AMX_TILES_H_
#define OCTET_KERNELS_CPU_AMX_TILES_H_

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace octet::cpu {

inline constexpr int kTileRows = 16;
inline constexpr int kTileRowBytes = 64;
inline constexpr int kTileBytes = kTileRows * kTileRowBytes;

// Own assembly rather than the compiler's intrinsics: g++ 12 declares neither
// all 64 bytes of a configuration nor the memory behind a tile as read, and
// drops the stores to them. Tile registers belong to the thread between
// Configure and Release.
class HardwareTiles {
 public:
  static void Configure() {
    // Palette 1; for each tile the bytes of a row (from byte 16 on, 2 bytes
    // each) and the rows (from byte 48 on).
    struct alignas(64) Config {
      uint8_t palette = 1;
      uint8_t start_row = 0;
      uint8_t reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    static_assert(sizeof(Config) == 64);
    for (int tile = 0; tile < 8; ++tile) {
      config.row_bytes[tile] = kTileRowBytes;
      config.rows[tile] = kTileRows;
    }
    asm volatile("ldtilecfg %0" ::"m"(config));
  }
  static void Release() { asm volatile("tilerelease" ::: "memory"); }

  template <int kTile>
  void Zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(kTile));
  }
  template <int kTile>
  void Load(const void* from, int64_t stride_bytes) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride_bytes),
                 "i"(kTile)
                 : "memory");
  }
  template <int kTile>
  void Store(void* to, int64_t stride_bytes) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride_bytes),
                 "i"(kTile)
                 : "memory");
  }
  // c[m][n] += sum over pairs k of a[m][2k] b[k][2n] + a[m][2k+1] b[k][2n+1].
  template <int kC, int kA, int kB>
  void Dot() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kC), "i"(kA),
                 "i"(kB));
  }
};

// What is emulated of tdpbf16ps: the order (pairs rising; in a pair the even
// product is fused into one running sum and the odd one into another, which
// are added at the end to c), rounding to nearest even of each of these, and
// denormal inputs and results taken as zero.
class SoftwareTiles {
 public:
  static void Configure() {}
  static void Release() {}

  template <int kTile>
  void Zero() {
    std::memset(tiles_[kTile], 0, kTileBytes);
  }
  template <int kTile>
  void Load(const void* from, int64_t stride_bytes) {
    for (int row = 0; row < kTileRows; ++row) {
      std::memcpy(tiles_[kTile] + row * kTileRowBytes,
                  static_cast<const char*>(from) + row * stride_bytes,
                  kTileRowBytes);
    }
  }
  template <int kTile>
  void Store(void* to, int64_t stride_bytes) {
    for (int row = 0; row < kTileRows; ++row) {
      std::memcpy(static_cast<char*>(to) + row * stride_bytes,
                  tiles_[kTile] + row * kTileRowBytes, kTileRowBytes);
    }
  }
  template <int kC, int kA, int kB>
  void Dot() {
    for (int m = 0; m < kTileRows; ++m) {
      for (int n = 0; n < kTileRows; ++n) DotElement(kC, kA, kB, m, n);
    }
  }

 private:
  void DotElement(int c, int a, int b, int m, int n) {
    float even = 0.0f;
    float odd = 0.0f;
    for (int pair = 0; pair < kTileRows; ++pair) {
      even =
          Flush(std::fma(Input(a, m, 2 * pair), Input(b, pair, 2 * n), even));
      odd = Flush(
          std::fma(Input(a, m, 2 * pair + 1), Input(b, pair, 2 * n + 1), odd));
    }
    char* place = tiles_[c] + m * kTileRowBytes + n * 4;
    float sum;
    std::memcpy(&sum, place, 4);
    sum = Flush(Flush(sum) + Flush(even + odd));
    std::memcpy(place, &sum, 4);
  }
  float Input(int tile, int row, int column) const {
    uint16_t bf16;
    std::memcpy(&bf16, tiles_[tile] + row * kTileRowBytes + column * 2, 2);
    const uint32_t bits = static_cast<uint32_t>(bf16) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return Flush(value);
  }
  // NaN stays NaN: it compares false.
  static float Flush(float value) {
    return std::fabs(value) < 1.17549435e-38f ? std::copysign(0.0f, value)
                                              : value;
  }

  alignas(64) char tiles_[8][kTileBytes];
};

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_AMX_TILES_H_
