// The size of a rank's weights by formula.
#include <gtest/gtest.h>

#include "worker/checkpoint/hf_loader.h"
#include "worker/model/config.h"

namespace octet {
namespace {

TEST(WeightBytesTest, OfMixtral8x7B) {
  const ModelConfig config;
  // Two bytes per matrix parameter and four per norm parameter.
  const int64_t norms = 65 * 4096;
  EXPECT_EQ(WeightBytes(config, 8, DType::kBF16),
            2 * config.num_parameters() + 2 * norms);
  EXPECT_EQ(WeightBytes(config, 8, DType::kF32), 4 * config.num_parameters());
  EXPECT_EQ(WeightBytes(config, 8, DType::kBF16) -
                WeightBytes(config, 0, DType::kBF16),
            int64_t{32} * 8 * 3 * 4096 * 14336 * 2);
}

}  // namespace
}  // namespace octet
