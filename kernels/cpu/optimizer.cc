#include "kernels/cpu/optimizer.h"

#include <algorithm>
#include <cmath>

namespace octet::cpu {
namespace {

constexpr int64_t kChunk = TrainingBackend::kSquareChunk;

// Elements of one piece of an update.
constexpr int64_t kPiece = 2048;

AdamWStep StepOf(const AdamWParams& params) {
  const double step = static_cast<double>(params.step);
  const double unbias1 =
      1.0 - std::pow(static_cast<double>(params.beta1), step);
  const double unbias2 =
      1.0 - std::pow(static_cast<double>(params.beta2), step);
  AdamWStep result;
  result.grad_scale = params.grad_scale;
  result.beta1 = params.beta1;
  result.rest1 = 1.0f - params.beta1;
  result.beta2 = params.beta2;
  result.rest2 = 1.0f - params.beta2;
  result.decay = static_cast<float>(
      1.0 - static_cast<double>(params.learning_rate) * params.weight_decay);
  result.rate = static_cast<float>(params.learning_rate / unbias1);
  result.correction = static_cast<float>(1.0 / std::sqrt(unbias2));
  result.eps = params.eps;
  return result;
}

}  // namespace

void SumOfSquares(CpuContext& context, ConstTensor x,
                  std::vector<double>* sums) {
  const int64_t n = x.num_elements();
  const float* values = x.as<float>();
  sums->assign((n + kChunk - 1) / kChunk, 0.0);
  context.ForRows(static_cast<int64_t>(sums->size()), kChunk * sizeof(float),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t c = begin; c < end; ++c) {
                      const int64_t first = c * kChunk;
                      (*sums)[c] = context.training_kernels().sum_squares(
                          values + first, std::min(n - first, kChunk));
                    }
                  });
}

void AdamW(CpuContext& context, const AdamWParams& params, ConstTensor grad,
           Tensor weight, Tensor m, Tensor v) {
  const AdamWStep step = StepOf(params);
  const int64_t n = grad.dim(0);
  context.ForRows((n + kPiece - 1) / kPiece, kPiece * 7 * sizeof(float),
                  [&](int64_t begin, int64_t end) {
                    const int64_t first = begin * kPiece;
                    context.training_kernels().adamw(
                        step, grad.as<float>() + first,
                        std::min(n, end * kPiece) - first,
                        weight.as<float>() + first, m.as<float>() + first,
                        v.as<float>() + first);
                  });
}

}  // namespace octet::cpu
