#include "kernels/cpu/optimizer.h"

#include <algorithm>

#include "kernels/adamw_step.h"

namespace octet::cpu {
namespace {

constexpr int64_t kChunk = TrainingBackend::kSquareChunk;

// Elements of one piece of an update.
constexpr int64_t kPiece = 2048;

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
  const AdamWStep step = MakeAdamWStep(params);
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
