// The vector loops' elementary functions against the C library in double.
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/vector_kernels.h"
#include "kernels/dtype.h"
#include "tests/kernels/device.h"

namespace octet::test {
namespace {

// Every 9973rd f32 there is: all exponents, both signs, subnormals, NaN.
std::vector<float> ManyFloats() {
  std::vector<float> values;
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 9973) {
    values.push_back(std::bit_cast<float>(static_cast<uint32_t>(bits)));
  }
  return values;
}

class VectorMathTest : public testing::TestWithParam<cpu::Isa> {
 protected:
  const cpu::VectorKernels& kernels_ = cpu::VectorKernelsFor(GetParam());
};

TEST_P(VectorMathTest, ExpIsWithinOneUlp) {
  const std::vector<float> x = ManyFloats();
  std::vector<float> y = x;
  kernels_.exp(y.data(), static_cast<int64_t>(y.size()));
  double worst = 0.0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double exact = std::exp(static_cast<double>(x[i]));
    if (std::isnan(x[i])) {
      ASSERT_TRUE(std::isnan(y[i]));
    } else if (std::isinf(static_cast<float>(exact)) || exact < 1e-46) {
      ASSERT_EQ(y[i], static_cast<float>(exact)) << x[i];
    } else {
      const double ulp =
          std::ldexp(1.0, std::max(-149, std::ilogb(exact) - 23));
      worst = std::fmax(worst, std::fabs(y[i] - exact) / ulp);
    }
  }
  EXPECT_LT(worst, 1.0);
}

TEST_P(VectorMathTest, ExpDoesNotDependOnTheLane) {
  Random random(1);
  std::vector<float> x = random.Floats(67, 10.0f);
  std::vector<float> together = x;
  kernels_.exp(together.data(), 67);
  for (size_t i = 0; i < x.size(); ++i) {
    kernels_.exp(&x[i], 1);
    EXPECT_EQ(std::bit_cast<uint32_t>(x[i]),
              std::bit_cast<uint32_t>(together[i]));
  }
}

TEST_P(VectorMathTest, BF16ConversionsEqualTheScalarOnes) {
  const std::vector<float> x = ManyFloats();
  std::vector<uint16_t> narrow(x.size());
  kernels_.to_bf16(x.data(), static_cast<int64_t>(x.size()), narrow.data());
  std::vector<float> wide(x.size());
  kernels_.from_bf16(narrow.data(), static_cast<int64_t>(x.size()),
                     wide.data());
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_EQ(narrow[i], octet::ToBF16(x[i]).bits) << x[i];
    ASSERT_EQ(std::bit_cast<uint32_t>(wide[i]), uint32_t{narrow[i]} << 16);
  }
}

TEST_P(VectorMathTest, SumsOfExponentialsAreEqualBitsOnEveryInstructionSet) {
  const cpu::VectorKernels& lowest =
      cpu::VectorKernelsFor(cpu::SupportedIsas().front());
  Random random(2);
  for (int64_t n : {1, 7, 8, 15, 16, 17, 1000}) {
    const std::vector<float> x = random.Floats(n, 20.0f);
    double expected = 0.0;
    for (float value : x)
      expected += std::exp(static_cast<double>(value) - 40.0);
    const double sum = kernels_.sum_exp(x.data(), n, 40.0f);
    EXPECT_NEAR(sum / expected, 1.0, 1e-14);
    EXPECT_EQ(sum, lowest.sum_exp(x.data(), n, 40.0f));
    std::vector<double> here(n), there(n);
    kernels_.exp_scaled(x.data(), n, 40.0f, 1.7, here.data());
    lowest.exp_scaled(x.data(), n, 40.0f, 1.7, there.data());
    EXPECT_EQ(here, there);
    for (int64_t i = 0; i < n; ++i) {
      const double exact = std::exp((x[i] - 40.0) * 1.7);
      EXPECT_NEAR(here[i], exact, 1e-15 * exact);
    }
  }
}

TEST_P(VectorMathTest, MaxSeesNanAndMinusInfinity) {
  const float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (int64_t n : {1, 8, 16, 17, 40}) {
    for (int64_t at = 0; at < n; ++at) {
      std::vector<float> x(n, -inf);
      bool has_nan = true;
      EXPECT_EQ(kernels_.max(x.data(), n, &has_nan), -inf);
      EXPECT_FALSE(has_nan);
      x[at] = -5.0f;
      EXPECT_EQ(kernels_.max(x.data(), n, &has_nan), -5.0f);
      x[at] = nan;
      kernels_.max(x.data(), n, &has_nan);
      EXPECT_TRUE(has_nan);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isa, VectorMathTest,
                         testing::ValuesIn(cpu::SupportedIsas()),
                         [](const auto& info) { return IsaName(info.param); });

}  // namespace
}  // namespace octet::test
