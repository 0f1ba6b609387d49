// NF4 against bitsandbytes 0.50.2 on its CPU (quantize_4bit with nf4 and
// compress_statistics, dequantize_4bit), whose results stand below.
#include "kernels/quant/nf4.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace octet {
namespace {

using testing::ElementsAre;

// FNV-1a, 64 bits.
template <typename T>
uint64_t Hash(const T* values, size_t count) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(values);
  uint64_t hash = 0xcbf29ce484222325;
  for (size_t i = 0; i < count * sizeof(T); ++i) {
    hash = (hash ^ bytes[i]) * 0x100000001b3;
  }
  return hash;
}

// Sums of four uniform numbers, about normal, each exact in f32.
std::vector<float> Weights(size_t count, uint32_t seed) {
  std::vector<float> weights(count);
  for (float& weight : weights) {
    int64_t sum = 0;
    for (int i = 0; i < 4; ++i) {
      seed = seed * 1664525u + 1013904223u;
      sum += seed >> 16;
    }
    weight = static_cast<float>(std::ldexp(sum - 131070, -20));
  }
  return weights;
}

struct Quantized {
  std::vector<uint8_t> codes;
  Nf4Scales scales;
  std::vector<float> weights;  // dequantised
};

Quantized Quantize(const std::vector<float>& weights) {
  Quantized out;
  out.codes.resize(weights.size());
  std::vector<float> absmax;
  for (size_t i = 0; i < weights.size(); i += kNf4Block) {
    absmax.push_back(QuantizeNf4Block(&weights[i], &out.codes[i]));
  }
  out.scales = QuantizeNf4Scales(absmax);
  for (size_t i = 0; i < weights.size(); ++i) {
    out.weights.push_back(
        kNf4Levels[out.codes[i]] *
        out.scales.Absmax(static_cast<int64_t>(i) / kNf4Block));
  }
  return out;
}

TEST(Nf4Test, DynamicMapIsTheGolden) {
  EXPECT_EQ(Hash(DynamicMap().data(), 256), 0xd677f22a96665bc4);
  EXPECT_EQ(DynamicMap()[127], 0.0f);
  EXPECT_EQ(DynamicMap()[255], 1.0f);
  EXPECT_EQ(DynamicMap()[0], -0.99296876788139343f);
}

TEST(Nf4Test, OneNestedBlockIsTheGolden) {
  const Quantized out = Quantize(Weights(512, 1));
  EXPECT_THAT(std::vector<uint8_t>(out.codes.begin(), out.codes.begin() + 16),
              ElementsAre(6, 5, 2, 12, 11, 0, 5, 8, 9, 14, 11, 3, 5, 7, 1, 7));
  EXPECT_EQ(Hash(out.codes.data(), 512), 0x7e2fd99f99ef222b);
  EXPECT_THAT(out.scales.codes, ElementsAre(56, 203, 219, 255, 53, 24, 36, 59));
  EXPECT_EQ(out.scales.mean, 0x1.6cd72p-4f);
  EXPECT_THAT(out.scales.scales, ElementsAre(0x1.942b8p-6f));
  EXPECT_EQ(Hash(out.weights.data(), 512), 0x1b8271a62ad3c089);
}

// 700 absmax: two nested blocks and a part of one.
TEST(Nf4Test, SeveralNestedBlocksAreTheGolden) {
  const Quantized out = Quantize(Weights(44800, 10));
  EXPECT_EQ(Hash(out.codes.data(), 44800), 0xe2ca9ffe45fbeaf);
  EXPECT_EQ(Hash(out.scales.codes.data(), 700), 0xbacb23dab3d7280e);
  EXPECT_EQ(out.scales.mean, 0x1.6a294ep-4f);
  EXPECT_THAT(out.scales.scales,
              ElementsAre(0x1.cc1938p-6f, 0x1.dc3ac8p-6f, 0x1.bddac8p-6f));
  EXPECT_EQ(Hash(out.weights.data(), 44800), 0x14798af6f3bb39be);
}

// Nearest level, and on a threshold the lower one.
TEST(Nf4Test, ThresholdsBelongToTheLowerLevel) {
  for (int i = 0; i < 15; ++i) {
    float weights[kNf4Block] = {1.0f, kNf4Thresholds[i],
                                std::nextafter(kNf4Thresholds[i], 2.0f)};
    EXPECT_NEAR(kNf4Thresholds[i], (kNf4Levels[i] + kNf4Levels[i + 1]) / 2,
                1e-7);
    uint8_t codes[kNf4Block];
    EXPECT_EQ(QuantizeNf4Block(weights, codes), 1.0f);
    EXPECT_EQ(codes[1], i);
    EXPECT_EQ(codes[2], i + 1);
    EXPECT_EQ(codes[0], 15);
    EXPECT_EQ(codes[3], 7);  // zero
  }
}

TEST(Nf4Test, ZerosStayZeros) {
  const Quantized out = Quantize(std::vector<float>(128, 0.0f));
  EXPECT_THAT(out.weights, testing::Each(0.0f));
}

TEST(Nf4Test, NoBlocks) { EXPECT_TRUE(QuantizeNf4Scales({}).codes.empty()); }

}  // namespace
}  // namespace octet
