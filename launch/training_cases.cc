// The operations of a training step with what they cost.
#include "absl/strings/str_cat.h"
#include "kernels/training_cost.h"
#include "launch/kernel_cases.h"

namespace octet {
namespace {

std::string RowsOf(int64_t rows, int64_t cols) {
  return absl::StrCat(rows, " rows of ", cols);
}

void AddBackwardOfAttention(const ModelConfig& config, DType dtype, int64_t t,
                            std::vector<KernelCase>& cases) {
  const int64_t h = config.hidden_dim;
  const int64_t qkv = config.q_dim() + 2 * config.kv_dim();
  const AttentionCostShape attention = {.num_heads = config.num_heads,
                                        .num_kv_heads = config.num_kv_heads,
                                        .head_dim = config.head_dim,
                                        .sliding_window = config.sliding_window,
                                        .cache = dtype,
                                        .out = dtype};
  const RopeParams rope = {.num_heads = config.num_heads,
                           .num_kv_heads = config.num_kv_heads,
                           .head_dim = config.head_dim};
  const std::string heads =
      absl::StrCat(config.num_heads, "/", config.num_kv_heads, " heads of ",
                   config.head_dim);
  const std::string product = absl::StrCat(t, " rows, [", qkv, ", ", h, "]");
  cases.push_back({KernelOp::kAttentionBackward, "AttentionBackward",
                   absl::StrCat("1 x ", t, ", ", heads), 1,
                   AttentionBackwardCost({t}, attention)});
  cases.push_back({KernelOp::kRopeBackward, "RopeBackward",
                   absl::StrCat(t, " rows, ", heads), 1,
                   RopeBackwardCost(t, rope, dtype)});
  cases.push_back({KernelOp::kQkvBackwardInput, "GemmBackwardInput", product, 1,
                   GemmCost(t, h, qkv, dtype, DType::kF32, false)});
  cases.push_back({KernelOp::kQkvBackwardWeight, "GemmBackwardWeight", product,
                   1, GemmBackwardWeightCost(t, qkv, h, dtype, false)});
}

void AddBackwardOfExperts(const ModelConfig& config, DType dtype, int64_t t,
                          std::vector<KernelCase>& cases) {
  const int64_t h = config.hidden_dim, f = config.ffn_dim;
  const int64_t e = config.num_experts, k = config.top_k;
  const BalancedRouting routing(t, config.num_experts, config.top_k);
  const int64_t first = routing.group_rows[0];
  cases.push_back({KernelOp::kSlotDots, "SlotDots",
                   absl::StrCat(t, " rows, ", k, " x ", h), 1,
                   SlotDotsCost(t, k, h, dtype)});
  cases.push_back({KernelOp::kScaleRows, "ScaleRows", RowsOf(t * k, h), 1,
                   ScaleRowsCost(t * k, h, dtype, dtype)});
  cases.push_back({KernelOp::kSwiGlu, "SwiGlu", RowsOf(t * k, f), 1,
                   SwiGluCost(t * k, f, DType::kF32, dtype)});
  cases.push_back(
      {KernelOp::kSwiGluBackward, "SwiGluBackward", RowsOf(t * k, f), 1,
       SwiGluBackwardCost(t * k, f, DType::kF32, dtype, DType::kF32)});
  cases.push_back({KernelOp::kGroupedGemmBackwardInput, "GroupedBackwardInput",
                   absl::StrCat(t * k, " rows, [", h, ", ", f, "]"), 1,
                   GroupedGemmCost(routing.group_rows, f, h, dtype, dtype)});
  cases.push_back({KernelOp::kExpertBackwardWeight, "GemmBackwardWeight",
                   absl::StrCat(first, " rows, [", h, ", ", f, "]"),
                   config.num_experts,
                   GemmBackwardWeightCost(first, h, f, dtype, false)});
  cases.push_back({KernelOp::kRouterBackward, "RouterBackward",
                   absl::StrCat(t, " rows, ", k, " of ", e), 1,
                   RouterBackwardCost(t, e, k)});
  cases.push_back({KernelOp::kRouterProbabilities, "RouterProbabilities",
                   RowsOf(t, e), 1, RouterProbabilitiesCost(t, e)});
  cases.push_back({KernelOp::kRouterLossBackward, "RouterLossBackward",
                   RowsOf(t, e), 1, RouterLossBackwardCost(t, e)});
}

void AddUpdate(const ModelConfig& config, DType dtype,
               std::vector<KernelCase>& cases) {
  const int64_t n = config.hidden_dim * config.q_dim();
  const std::string shape =
      absl::StrCat("[", config.hidden_dim, ", ", config.q_dim(), "]");
  cases.push_back(
      {KernelOp::kAddScaled, "AddScaled", shape, 1, AddScaledCost(n)});
  cases.push_back(
      {KernelOp::kSumOfSquares, "SumOfSquares", shape, 1, SumOfSquaresCost(n)});
  cases.push_back({KernelOp::kAdamW, "AdamW", shape, 1, AdamWCost(n)});
  cases.push_back(
      {KernelOp::kRepack, "Repack", shape, 1, RepackCost(n, dtype)});
}

}  // namespace

std::vector<KernelCase> TrainingCases(const ModelConfig& config, DType dtype,
                                      const KernelWorkload& workload) {
  const int64_t t = workload.tokens;
  const int64_t h = config.hidden_dim, v = config.vocab_size;
  std::vector<KernelCase> cases;
  cases.push_back({KernelOp::kCrossEntropy, "CrossEntropy", RowsOf(t, v), 0,
                   CrossEntropyCost(t, v, dtype)});
  cases.push_back({KernelOp::kRmsNormBackward, "RmsNormBackward, twice",
                   RowsOf(t, h), 2, RmsNormBackwardCost(t, h)});
  cases.push_back({KernelOp::kRmsNormBackwardWeight, "its weight's, twice",
                   RowsOf(t, h), 2, RmsNormBackwardWeightCost(t, h)});
  AddBackwardOfExperts(config, dtype, t, cases);
  AddBackwardOfAttention(config, dtype, t, cases);
  cases.push_back({KernelOp::kDropout, "Dropout", RowsOf(t, h), 1,
                   DropoutCost(t, h, dtype, dtype)});
  cases.push_back({KernelOp::kCast, "Cast", RowsOf(t, h), 1,
                   CastCost(t * h, DType::kF32, dtype)});
  cases.push_back({KernelOp::kEmbeddingBackward, "EmbeddingBackward",
                   RowsOf(t, h), 0, EmbeddingBackwardCost(t, h)});
  AddUpdate(config, dtype, cases);
  return cases;
}

}  // namespace octet
