#include "launch/kernel_cases.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace octet {
namespace {

std::string MatrixShape(int64_t rows, int64_t n, int64_t k) {
  return absl::StrCat(rows, " rows, [", n, ", ", k, "]");
}

std::string GroupedShape(const BalancedRouting& routing, int64_t n, int64_t k) {
  const int64_t busy =
      std::count_if(routing.group_rows.begin(), routing.group_rows.end(),
                    [](int64_t rows) { return rows > 0; });
  return absl::StrCat(routing.row_tokens.size(), " rows, ", busy, " x [", n,
                      ", ", k, "]");
}

void AddAttention(const ModelConfig& config, DType dtype,
                  const KernelWorkload& workload,
                  std::vector<KernelCase>& cases) {
  const int64_t t = workload.tokens, h = config.hidden_dim;
  const int64_t q = config.q_dim(), qkv = q + 2 * config.kv_dim();
  const RopeParams rope = {.num_heads = config.num_heads,
                           .num_kv_heads = config.num_kv_heads,
                           .head_dim = config.head_dim};
  const AttentionCostShape attention = {.num_heads = config.num_heads,
                                        .num_kv_heads = config.num_kv_heads,
                                        .head_dim = config.head_dim,
                                        .sliding_window = config.sliding_window,
                                        .cache = dtype,
                                        .out = dtype};
  const std::string heads =
      absl::StrCat(config.num_heads, "/", config.num_kv_heads, " heads of ",
                   config.head_dim);
  cases.push_back({KernelOp::kQkvGemm, "Gemm, qkv", MatrixShape(t, qkv, h), 1,
                   GemmCost(t, qkv, h, dtype, DType::kF32, false)});
  cases.push_back({KernelOp::kRopeAndCache, "RopeAndCache",
                   absl::StrCat(t, " rows, ", heads), 1,
                   RopeAndCacheCost(t, rope, dtype)});
  cases.push_back({KernelOp::kPagedAttention, "PagedAttention",
                   workload.decode ? absl::StrCat(t, " x 1 after ",
                                                  workload.context, ", ", heads)
                                   : absl::StrCat("1 x ", t, ", ", heads),
                   1, PagedAttentionCost(workload.sequences(), attention)});
  cases.push_back({KernelOp::kOutputGemm,
                   "Gemm, output += ", MatrixShape(t, h, q), 1,
                   GemmCost(t, h, q, dtype, DType::kF32, true)});
}

void AddExperts(const ModelConfig& config, DType dtype, int64_t t,
                std::vector<KernelCase>& cases) {
  const int64_t h = config.hidden_dim, f = config.ffn_dim;
  const int64_t e = config.num_experts, k = config.top_k;
  const BalancedRouting routing(t, config.num_experts, config.top_k);
  cases.push_back({KernelOp::kGateGemm, "Gemm, gate", MatrixShape(t, e, h), 1,
                   GemmCost(t, e, h, dtype, DType::kF32, false)});
  cases.push_back({KernelOp::kRouter, "Router",
                   absl::StrCat(t, " rows, ", k, " of ", e), 1,
                   RouterCost(t, e, k)});
  cases.push_back({KernelOp::kGatherRows, "GatherRows",
                   absl::StrCat(t * k, " rows of ", h), 1,
                   GatherRowsCost(t, t * k, h, dtype)});
  cases.push_back({KernelOp::kGroupedGemmSwiGlu, "GroupedGemmSwiGlu",
                   GroupedShape(routing, 2 * f, h), 1,
                   GroupedGemmSwiGluCost(routing.group_rows, f, h, dtype)});
  cases.push_back({KernelOp::kGroupedGemm, "GroupedGemm",
                   GroupedShape(routing, h, f), 1,
                   GroupedGemmCost(routing.group_rows, h, f, dtype, dtype)});
  cases.push_back({KernelOp::kCombineRows, "CombineRows",
                   absl::StrCat(t, " rows, ", k, " x ", h), 1,
                   CombineRowsCost(t, k, h, dtype)});
}

}  // namespace

std::vector<AttentionRange> KernelWorkload::sequences() const {
  if (!decode) return {{.num_rows = tokens, .first_position = 0}};
  return std::vector<AttentionRange>(
      tokens, {.num_rows = 1, .first_position = context});
}

BalancedRouting::BalancedRouting(int64_t tokens, int num_experts, int top_k)
    : group_rows(num_experts),
      row_offsets(num_experts + 1),
      row_tokens(tokens * top_k),
      slot_rows(tokens * top_k) {
  const int64_t choices = tokens * top_k;
  for (int64_t i = 0; i < choices; ++i) ++group_rows[i % num_experts];
  for (int e = 0; e < num_experts; ++e) {
    row_offsets[e + 1] = row_offsets[e] + group_rows[e];
  }
  for (int64_t i = 0; i < choices; ++i) {
    const int64_t row = row_offsets[i % num_experts] + i / num_experts;
    slot_rows[i] = static_cast<int32_t>(row);
    row_tokens[row] = static_cast<int32_t>(i / top_k);
  }
}

std::vector<KernelCase> KernelCases(const ModelConfig& config, DType dtype,
                                    const KernelWorkload& workload) {
  if (workload.training) return TrainingCases(config, dtype, workload);
  const int64_t t = workload.tokens, n = workload.head_rows();
  const int64_t h = config.hidden_dim, v = config.vocab_size;
  const std::string logits = absl::StrCat(n, " rows of ", v);
  std::vector<KernelCase> cases;
  cases.push_back({KernelOp::kEmbedding, "Embedding",
                   absl::StrCat(t, " rows of ", h), 0,
                   EmbeddingCost(t, h, dtype)});
  cases.push_back({KernelOp::kRmsNorm, "RmsNorm, twice",
                   absl::StrCat(t, " rows of ", h), 2,
                   RmsNormCost(t, h, dtype)});
  AddAttention(config, dtype, workload, cases);
  AddExperts(config, dtype, t, cases);
  cases.push_back({KernelOp::kHeadGemm, "Gemm, head", MatrixShape(n, v, h), 0,
                   GemmCost(n, v, h, dtype, DType::kF32, false)});
  cases.push_back({KernelOp::kSample, "Sample", logits, 0, SampleCost(n, v)});
  cases.push_back({KernelOp::kScoreTokens, "ScoreTokens", logits, 0,
                   ScoreTokensCost(n, v)});
  return cases;
}

}  // namespace octet
