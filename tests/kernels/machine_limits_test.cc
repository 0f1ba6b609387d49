#include "kernels/cpu/machine_limits.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace octet::cpu {
namespace {

// Figures are the machine's own; what can be asserted is that every loop runs
// and counts something.
TEST(MachineLimitsTest, EveryLoopRunsOnEveryInstructionSet) {
  for (Isa isa : SupportedIsas()) {
    ThreadPool pool(2);
    const auto bandwidth = MeasureReadBandwidth(isa, pool, 100'000);
    ASSERT_TRUE(bandwidth.ok()) << bandwidth.status();
    EXPECT_GT(*bandwidth, 0);
    EXPECT_TRUE(std::isfinite(*bandwidth));
    for (DType dtype : {DType::kF32, DType::kBF16}) {
      const double peak = MeasureMatrixPeak(isa, dtype, pool);
      EXPECT_GT(peak, 1e6) << Name(isa) << " " << Name(dtype);
      EXPECT_TRUE(std::isfinite(peak));
    }
  }
}

TEST(MachineLimitsTest, NoMemoryIsAnError) {
  ThreadPool pool(1);
  EXPECT_EQ(
      MeasureReadBandwidth(BestIsa(), pool, size_t{1} << 62).status().code(),
      absl::StatusCode::kResourceExhausted);
}

TEST(MachineLimitsTest, DescriptionNamesTheBestInstructionSet) {
  EXPECT_THAT(DescribeMachine(),
              testing::HasSubstr(std::string(Name(BestIsa()))));
}

}  // namespace
}  // namespace octet::cpu
