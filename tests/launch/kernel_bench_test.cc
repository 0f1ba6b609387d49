#include <algorithm>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "launch/gpu_peaks.h"
#include "launch/kernel_cases.h"
#include "tests/launch/every_operation.h"

namespace octet {
namespace {

TEST(KernelCasesTest, EveryOperationOnceWithACost) {
  std::set<KernelOp> ops;
  for (const KernelCase& c : KernelCases(ModelConfig(), DType::kBF16,
                                         {.decode = true, .tokens = 8})) {
    EXPECT_TRUE(ops.insert(c.op).second) << c.name;
    EXPECT_GT(c.cost.bytes, 0) << c.name;
    EXPECT_FALSE(c.shape.empty()) << c.name;
  }
  EXPECT_EQ(ops.size(), static_cast<size_t>(KernelOp::kScoreTokens) + 1);
  for (const KernelCase& c : KernelCases(ModelConfig(), DType::kBF16,
                                         {.tokens = 8, .training = true})) {
    EXPECT_TRUE(ops.insert(c.op).second) << c.name;
    EXPECT_GT(c.cost.bytes, 0) << c.name;
    EXPECT_FALSE(c.shape.empty()) << c.name;
  }
  EXPECT_EQ(ops.size(), static_cast<size_t>(KernelOp::kRepack) + 1);
}

TEST(KernelCasesTest, ADecodedTokenReadsTheActiveParameters) {
  // All products of one token read each active parameter once, but for norms
  // and the embedding's row: 32 layers and the head.
  const ModelConfig config;
  double weights = 0;
  for (const KernelCase& c :
       KernelCases(config, DType::kBF16, {.decode = true, .tokens = 1})) {
    if (c.cost.unit != DType::kBF16 || c.op == KernelOp::kPagedAttention) {
      continue;
    }
    weights += (c.per_layer ? config.num_layers : 1) * c.cost.bytes / 2;
  }
  const double expected = static_cast<double>(config.num_active_parameters());
  EXPECT_NEAR(weights / expected, 1.0, 0.012);
}

TEST(BalancedRoutingTest, SlotsAndRowsAreTheSamePairs) {
  for (int tokens : {1, 2, 7, 64}) {
    const BalancedRouting routing(tokens, 5, 3);
    EXPECT_EQ(routing.row_offsets.back(), tokens * 3);
    const auto [least, most] = std::minmax_element(routing.group_rows.begin(),
                                                   routing.group_rows.end());
    EXPECT_LE(*most - *least, 1);
    std::vector<int32_t> rows = routing.slot_rows;
    for (int i = 0; i < tokens * 3; ++i) {
      const int32_t row = routing.slot_rows[i];
      ASSERT_LT(row, tokens * 3);
      EXPECT_EQ(routing.row_tokens[row], i / 3);
      EXPECT_GE(row, routing.row_offsets[i % 5]);
      EXPECT_LT(row, routing.row_offsets[i % 5 + 1]);
    }
    std::sort(rows.begin(), rows.end());
    std::vector<int32_t> all(tokens * 3);
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(rows, all);
  }
}

TEST(KernelBenchTest, EveryOperationRunsOnTheCpu) {
  auto backend = NewCpuBackend({.num_threads = 2});
  ASSERT_TRUE(backend.ok()) << backend.status();
  test::ExpectEveryOperationRuns(**backend);
}

TEST(GpuPeaksTest, FoundByTheDriversNameAlone) {
  ASSERT_EQ(GpuPeaks().size(), 4);
  const GpuPeak* h200 = FindGpuPeak("cuda (NVIDIA H200, sm_90, 140 GiB)");
  ASSERT_NE(h200, nullptr);
  EXPECT_EQ(h200->name, "H200");
  // Other limits than the SXM module's.
  EXPECT_EQ(FindGpuPeak("cuda (NVIDIA H200 NVL, sm_90, 140 GiB)"), nullptr);
  EXPECT_EQ(FindGpuPeak("cuda (NVIDIA H100 PCIe, sm_90, 79 GiB)"), nullptr);
  EXPECT_EQ(FindGpuPeak("cpu (avx2), 2 threads"), nullptr);
}

}  // namespace
}  // namespace octet
