#include "kernels/cpu/optimizer.h"

#include <algorithm>
#include <cmath>

namespace octet::cpu {
namespace {

constexpr int64_t kChunk = TrainingBackend::kSquareChunk;

// The parameters with what does not depend on the element worked out.
struct Step {
  explicit Step(const AdamWParams& params)
      : decay(
            static_cast<float>(1.0 - static_cast<double>(params.learning_rate) *
                                         params.weight_decay)),
        rest1(1.0f - params.beta1),
        rest2(1.0f - params.beta2),
        rate(static_cast<float>(
            params.learning_rate /
            (1.0 - std::pow(static_cast<double>(params.beta1),
                            static_cast<double>(params.step))))),
        correction(static_cast<float>(
            1.0 /
            std::sqrt(1.0 - std::pow(static_cast<double>(params.beta2),
                                     static_cast<double>(params.step))))) {}

  float decay;
  float rest1;
  float rest2;
  float rate;        // learning_rate / (1 - beta1^step)
  float correction;  // 1 / sqrt(1 - beta2^step)
};

}  // namespace

void SumOfSquares(CpuContext& context, ConstTensor x,
                  std::vector<double>* sums) {
  const int64_t n = x.num_elements();
  const float* values = x.as<float>();
  sums->assign((n + kChunk - 1) / kChunk, 0.0);
  context.ForRows(static_cast<int64_t>(sums->size()), kChunk * sizeof(float),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t c = begin; c < end; ++c) {
                      const int64_t last = std::min(n, (c + 1) * kChunk);
                      double sum = 0.0;
                      for (int64_t i = c * kChunk; i < last; ++i) {
                        sum += static_cast<double>(values[i]) * values[i];
                      }
                      (*sums)[c] = sum;
                    }
                  });
}

void AdamW(CpuContext& context, const AdamWParams& params, ConstTensor grad,
           Tensor weight, Tensor m, Tensor v) {
  const Step step(params);
  const float* g = grad.as<float>();
  float* weights = weight.as<float>();
  float* means = m.as<float>();
  float* squares = v.as<float>();
  context.ForRows(
      grad.dim(0), 7 * sizeof(float), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const float scaled = params.grad_scale * g[i];
          means[i] = params.beta1 * means[i] + step.rest1 * scaled;
          squares[i] = params.beta2 * squares[i] + step.rest2 * scaled * scaled;
          weights[i] =
              weights[i] * step.decay -
              step.rate * means[i] /
                  (std::sqrt(squares[i]) * step.correction + params.eps);
        }
      });
}

}  // namespace octet::cpu
