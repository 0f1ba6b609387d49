// NormalFloat of 4 bits with double quantisation (Dettmers, Pagnoni, Holtzman,
// Zettlemoyer, 2023, "QLoRA"), with the levels, thresholds and roundings of
// bitsandbytes.
//
// A matrix is quantised in blocks of 64 weights along its rows:
//   absmax = max |w| ; code = how many thresholds w (1 / absmax) is above, in
//   f32: the nearest level ; w ~ level[code] absmax.
// The absmax of one matrix, in row-major order, are quantised again in blocks
// of 256:
//   mean = their mean ; d = absmax - mean ; scale = max |d| ; code = the entry
//   of the dynamic map nearest to d (1 / scale) ; absmax ~ map[code] scale +
//   mean.
// Together 4 + 8 / 64 + 32 / (64 256) = 4.127 bits per weight.
//
// Against bitsandbytes: codes of weights and scales are equal bit by bit. The
// mean is rounded from the sum in double, where torch sums in f32 in an order
// of its own: it may differ in the last bit. An absmax code may differ by one
// where d falls within rounding of a midpoint (its CPU path searches by a
// table there). A block of zeros has code 7 (zero), as in its CPU path.
#ifndef OCTET_KERNELS_QUANT_NF4_H_
#define OCTET_KERNELS_QUANT_NF4_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace octet {

inline constexpr int64_t kNf4Block = 64;         // weights
inline constexpr int64_t kNf4NestedBlock = 256;  // absmax

// Quantiles of the normal distribution, as bitsandbytes rounds them.
inline constexpr std::array<float, 16> kNf4Levels = {-1.0f,
                                                     -0.6961928009986877f,
                                                     -0.5250730514526367f,
                                                     -0.39491748809814453f,
                                                     -0.28444138169288635f,
                                                     -0.18477343022823334f,
                                                     -0.09105003625154495f,
                                                     0.0f,
                                                     0.07958029955625534f,
                                                     0.16093020141124725f,
                                                     0.24611230194568634f,
                                                     0.33791524171829224f,
                                                     0.44070982933044434f,
                                                     0.5626170039176941f,
                                                     0.7229568362236023f,
                                                     1.0f};

// Between the levels, as bitsandbytes' CUDA code spells them out (its CPU path
// computes midpoints in f32, some of which differ in the last bit).
inline constexpr std::array<float, 15> kNf4Thresholds = {
    -0.8480964004993439f,   -0.6106329262256622f,  -0.4599952697753906f,
    -0.33967943489551544f,  -0.23460740596055984f, -0.13791173323988914f,
    -0.045525018125772476f, 0.03979014977812767f,  0.1202552504837513f,
    0.2035212516784668f,    0.2920137718319893f,   0.3893125355243683f,
    0.5016634166240692f,    0.6427869200706482f,   0.8614784181118011f};

// The signed 8-bit dynamic map, rising: 0, 1, and for i = 0 .. 6 the 2^i means
// of neighbours of 2^i + 1 equidistant numbers from 0.1 to 1, times 10^(i - 6),
// with both signs.
const std::array<float, 256>& DynamicMap();

// Writes the codes (0 .. 15) of a block of 64 weights and returns its absmax.
float QuantizeNf4Block(const float* weights, uint8_t* codes);

// The absmax of one matrix, quantised.
struct Nf4Scales {
  float mean = 0;
  std::vector<uint8_t> codes;  // one per absmax
  std::vector<float> scales;   // one per 256 of them

  float Absmax(int64_t block) const {
    return DynamicMap()[codes[block]] * scales[block / kNf4NestedBlock] + mean;
  }
};
Nf4Scales QuantizeNf4Scales(absl::Span<const float> absmax);

}  // namespace octet

#endif  // OCTET_KERNELS_QUANT_NF4_H_
