#include "kernels/cpu/router.h"

#include <vector>

namespace octet::cpu {
namespace {

// softmax over E, the K largest, divided by their sum: the softmax's own
// denominator cancels, so only the chosen logits are exponentiated. Choosing by
// logit instead of probability also keeps apart what f32 probabilities merge.
void RouteRow(const VectorKernels& kernels, const float* logits,
              int64_t num_experts, int64_t top_k, std::vector<bool>& taken,
              int32_t* ids, float* weights) {
  taken.assign(num_experts, false);
  for (int64_t k = 0; k < top_k; ++k) {
    int64_t best = -1;
    for (int64_t e = 0; e < num_experts; ++e) {
      if (!taken[e] && (best < 0 || logits[e] > logits[best])) best = e;
    }
    taken[best] = true;
    ids[k] = static_cast<int32_t>(best);
    weights[k] = logits[best] - logits[ids[0]];
  }
  kernels.exp(weights, top_k);
  float sum = 0.0f;
  for (int64_t k = 0; k < top_k; ++k) sum += weights[k];
  for (int64_t k = 0; k < top_k; ++k) weights[k] /= sum;
}

}  // namespace

void Router(CpuContext& context, ConstTensor logits, Tensor topk_ids,
            Tensor topk_weights) {
  const int64_t num_experts = logits.dim(1);
  const int64_t top_k = topk_ids.dim(1);
  // A comparison costs about as much as moving 4 bytes.
  context.ForRows(logits.dim(0), num_experts * top_k * sizeof(float),
                  [&](int64_t begin, int64_t end) {
                    std::vector<bool> taken;
                    for (int64_t t = begin; t < end; ++t) {
                      RouteRow(context.kernels(),
                               logits.as<float>() + t * num_experts,
                               num_experts, top_k, taken,
                               topk_ids.as<int32_t>() + t * top_k,
                               topk_weights.as<float>() + t * top_k);
                    }
                  });
}

}  // namespace octet::cpu
