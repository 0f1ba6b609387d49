// The operations of one step of a Mixtral-shaped model on one rank, with their
// shapes, and what each costs at least (kernels/op_cost.h).
#ifndef OCTET_LAUNCH_KERNEL_CASES_H_
#define OCTET_LAUNCH_KERNEL_CASES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/dtype.h"
#include "kernels/op_cost.h"
#include "worker/model/config.h"

namespace octet {

enum class KernelOp {
  kEmbedding,
  kRmsNorm,
  kQkvGemm,
  kRopeAndCache,
  kPagedAttention,
  kOutputGemm,
  kGateGemm,
  kRouter,
  kGatherRows,
  kGroupedGemmSwiGlu,
  kGroupedGemm,
  kCombineRows,
  kHeadGemm,
  kSample,
  kScoreTokens,
  // ---- of training
  kCrossEntropy,
  kRmsNormBackward,
  kRmsNormBackwardWeight,
  kQkvBackwardInput,
  kQkvBackwardWeight,
  kAttentionBackward,
  kRopeBackward,
  kRouterBackward,
  kRouterProbabilities,
  kRouterLossBackward,
  kSlotDots,
  kScaleRows,
  kGroupedGemmBackwardInput,
  kExpertBackwardWeight,
  kSwiGlu,
  kSwiGluBackward,
  kDropout,
  kCast,
  kEmbeddingBackward,
  kSumOfSquares,
  kAddScaled,
  kAdamW,
  kRepack,
};

// A step of `tokens` tokens: as many sequences with `context` tokens before
// (decode), one prompt from its beginning (prefill), or one document of a
// training step.
struct KernelWorkload {
  bool decode = false;
  int64_t tokens = 0;   // T
  int64_t context = 0;  // decode only
  bool training = false;

  // Rows of logits: of every sequence its last token's, or every token's.
  int64_t head_rows() const { return decode || training ? tokens : 1; }
  std::vector<AttentionRange> sequences() const;
};

// Tokens spread over experts as evenly as can be: choice j of token t is expert
// (t K + j) mod E; rows are in the experts' order.
struct BalancedRouting {
  BalancedRouting(int64_t tokens, int num_experts, int top_k);

  std::vector<int64_t> group_rows;   // [E]
  std::vector<int64_t> row_offsets;  // [E + 1]
  std::vector<int32_t> row_tokens;   // [T K]: the token of each row
  std::vector<int32_t> slot_rows;    // [T, K]: the row of each choice
};

struct KernelCase {
  KernelOp op = KernelOp::kEmbedding;
  std::string name;   // "GroupedGemmSwiGlu"
  std::string shape;  // "16 rows, 8 x [28672, 4096]"
  int per_layer = 1;  // calls in a layer; 0: once a step
  OpCost cost;        // of one call
};

// Every operation of kernels/backend.h in the order of a step, or of
// kernels/training_backend.h. All experts are on this rank; of products there
// is one of each kind, and the update is that of the output projection.
std::vector<KernelCase> KernelCases(const ModelConfig& config, DType dtype,
                                    const KernelWorkload& workload);

// The part of KernelCases that is training's (training_cases.cc).
std::vector<KernelCase> TrainingCases(const ModelConfig& config, DType dtype,
                                      const KernelWorkload& workload);

}  // namespace octet

#endif  // OCTET_LAUNCH_KERNEL_CASES_H_
