#include "kernels/cpu/rms_norm_backward.h"

#include <algorithm>
#include <vector>

namespace octet::cpu {
namespace {

// Columns whose sums are worked on at once: they stay in the first-level cache.
constexpr int64_t kColumnPiece = 512;

}  // namespace

void RmsNormBackward(CpuContext& context, ConstTensor x, ConstTensor weight,
                     float eps, ConstTensor dy, Tensor dx) {
  const int64_t hidden = x.dim(1);
  context.ForRows(
      x.dim(0), 4 * hidden * sizeof(float), [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
          context.training_kernels().rms_norm_backward(
              x.as<float>() + t * hidden, weight.as<float>(), eps,
              dy.as<float>() + t * hidden, hidden, dx.as<float>() + t * hidden);
        }
      });
}

void RmsNormBackwardWeight(CpuContext& context, ConstTensor x, float eps,
                           ConstTensor dy, bool accumulate, Tensor dweight) {
  const TrainingKernels& kernels = context.training_kernels();
  const int64_t num_rows = x.dim(0);
  const int64_t hidden = x.dim(1);
  std::vector<float> scales(num_rows);
  context.ForRows(
      num_rows, hidden * sizeof(float), [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
          scales[t] =
              kernels.inverse_rms(x.as<float>() + t * hidden, hidden, eps);
        }
      });
  const int64_t num_pieces = (hidden + kColumnPiece - 1) / kColumnPiece;
  context.ForRows(num_pieces, 2 * num_rows * kColumnPiece * sizeof(float),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t piece = begin; piece < end; ++piece) {
                      const int64_t first = piece * kColumnPiece;
                      const int64_t n = std::min(hidden - first, kColumnPiece);
                      float sums[kColumnPiece] = {};
                      for (int64_t t = 0; t < num_rows; ++t) {
                        kernels.add_products(
                            dy.as<float>() + t * hidden + first,
                            x.as<float>() + t * hidden + first, scales[t], n,
                            sums);
                      }
                      float* to = dweight.as<float>() + first;
                      if (accumulate) {
                        kernels.add_scaled(sums, 1.0f, n, to);
                      } else {
                        std::copy_n(sums, n, to);
                      }
                    }
                  });
}

}  // namespace octet::cpu
