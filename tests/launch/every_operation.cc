#include "tests/launch/every_operation.h"

#include "gtest/gtest.h"
#include "launch/kernel_bench.h"
#include "launch/kernel_cases.h"

namespace octet::test {
namespace {

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

}  // namespace

void ExpectEveryOperationRuns(Backend& backend) {
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    const ModelConfig config = TinyConfig();
    auto bench = KernelBench::Create(&backend, config, dtype);
    ASSERT_TRUE(bench.ok()) << bench.status();
    for (const KernelWorkload& workload :
         {KernelWorkload{.decode = true, .tokens = 1, .context = 33},
          KernelWorkload{.decode = true, .tokens = 7, .context = 15},
          KernelWorkload{.decode = false, .tokens = 37},
          KernelWorkload{.tokens = 37, .training = true}}) {
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

}  // namespace octet::test
