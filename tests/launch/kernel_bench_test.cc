#include "launch/kernel_bench.h"

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

namespace octet {
namespace {

// Odd sizes, and experts that get no row.
ModelConfig TinyConfig() {
  ModelConfig config;
  config.vocab_size = 67;
  config.hidden_dim = 48;
  config.ffn_dim = 80;
  config.num_heads = 6;
  config.num_kv_heads = 2;
  config.head_dim = 8;
  config.num_experts = 5;
  config.top_k = 2;
  config.sliding_window = 20;
  return config;
}

TEST(KernelCasesTest, EveryOperationOnceWithACost) {
  std::set<KernelOp> ops;
  for (const KernelCase& c : KernelCases(ModelConfig(), DType::kBF16,
                                         {.decode = true, .tokens = 8})) {
    EXPECT_TRUE(ops.insert(c.op).second) << c.name;
    EXPECT_GT(c.cost.bytes, 0) << c.name;
    EXPECT_FALSE(c.shape.empty()) << c.name;
  }
  EXPECT_EQ(ops.size(), static_cast<size_t>(KernelOp::kScoreTokens) + 1);
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
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    auto backend = NewCpuBackend({.num_threads = 2});
    ASSERT_TRUE(backend.ok()) << backend.status();
    const ModelConfig config = TinyConfig();
    auto bench = KernelBench::Create(backend->get(), config, dtype);
    ASSERT_TRUE(bench.ok()) << bench.status();
    for (const KernelWorkload& workload :
         {KernelWorkload{.decode = true, .tokens = 1, .context = 33},
          KernelWorkload{.decode = true, .tokens = 7, .context = 15},
          KernelWorkload{.decode = false, .tokens = 37}}) {
      const absl::Status prepared = (*bench)->Prepare(workload);
      ASSERT_TRUE(prepared.ok()) << prepared;
      for (const KernelCase& c : KernelCases(config, dtype, workload)) {
        const auto seconds = (*bench)->Time(c.op, 0.0);
        ASSERT_TRUE(seconds.ok()) << c.name << ": " << seconds.status();
        EXPECT_GT(*seconds, 0) << c.name;
      }
    }
  }
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
