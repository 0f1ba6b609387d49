#include "kernels/cpu/router_backward.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/status_macros.h"

namespace octet::cpu {
namespace {

// p = softmax(logits); returns log sum exp(logits).
float Softmax(const VectorKernels& kernels, const float* logits, int64_t n,
              float* p) {
  const float max = *std::max_element(logits, logits + n);
  for (int64_t e = 0; e < n; ++e) p[e] = logits[e] - max;
  kernels.exp(p, n);
  float sum = 0.0f;
  for (int64_t e = 0; e < n; ++e) sum += p[e];
  for (int64_t e = 0; e < n; ++e) p[e] /= sum;
  return max + std::log(sum);
}

}  // namespace

absl::Status RouterBackward(CpuContext& context, ConstTensor topk_ids,
                            ConstTensor topk_weights, ConstTensor dweights,
                            Tensor dlogits) {
  const int64_t num_experts = dlogits.dim(1);
  OCTET_RETURN_IF_ERROR(
      CheckIndices("RouterBackward", "topk_ids", topk_ids, num_experts));
  const int64_t top_k = topk_ids.dim(1);
  context.ForRows(dlogits.dim(0), (num_experts + 3 * top_k) * sizeof(float),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t t = begin; t < end; ++t) {
                      const int32_t* id = topk_ids.as<int32_t>() + t * top_k;
                      const float* w = topk_weights.as<float>() + t * top_k;
                      const float* dw = dweights.as<float>() + t * top_k;
                      float* to = dlogits.as<float>() + t * num_experts;
                      std::fill_n(to, num_experts, 0.0f);
                      float mean = 0.0f;
                      for (int64_t k = 0; k < top_k; ++k) mean += w[k] * dw[k];
                      for (int64_t k = 0; k < top_k; ++k)
                        to[id[k]] = w[k] * (dw[k] - mean);
                    }
                  });
  return absl::OkStatus();
}

void RouterProbabilities(CpuContext& context, ConstTensor logits,
                         Tensor probabilities, Tensor log_sums) {
  const int64_t num_experts = logits.dim(1);
  context.ForRows(
      logits.dim(0), 4 * num_experts * sizeof(float),
      [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
          log_sums.as<float>()[t] =
              Softmax(context.kernels(), logits.as<float>() + t * num_experts,
                      num_experts, probabilities.as<float>() + t * num_experts);
        }
      });
}

void RouterLossBackward(CpuContext& context, ConstTensor logits,
                        ConstTensor coef, float z_coef, Tensor dlogits) {
  const int64_t num_experts = logits.dim(1);
  const float* c = coef.as<float>();
  context.ForRows(logits.dim(0), 4 * num_experts * sizeof(float),
                  [&](int64_t begin, int64_t end) {
                    std::vector<float> p(num_experts);
                    for (int64_t t = begin; t < end; ++t) {
                      const float log_sum =
                          Softmax(context.kernels(),
                                  logits.as<float>() + t * num_experts,
                                  num_experts, p.data());
                      float mean = 0.0f;
                      for (int64_t e = 0; e < num_experts; ++e)
                        mean += c[e] * p[e];
                      const float shift = 2.0f * z_coef * log_sum - mean;
                      float* to = dlogits.as<float>() + t * num_experts;
                      for (int64_t e = 0; e < num_experts; ++e) {
                        to[e] += p[e] * (c[e] + shift);
                      }
                    }
                  });
}

}  // namespace octet::cpu
