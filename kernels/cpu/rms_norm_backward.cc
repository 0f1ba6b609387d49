#include "kernels/cpu/rms_norm_backward.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace octet::cpu {
namespace {

constexpr int64_t kColumnPiece = 256;

// r = 1 / sqrt(mean(x^2) + eps).
float InverseRms(const float* x, int64_t n, float eps) {
  float sum = 0.0f;
  for (int64_t i = 0; i < n; ++i) sum += x[i] * x[i];
  return 1.0f / std::sqrt(sum / static_cast<float>(n) + eps);
}

}  // namespace

void RmsNormBackward(CpuContext& context, ConstTensor x, ConstTensor weight,
                     float eps, ConstTensor dy, Tensor dx) {
  const int64_t hidden = x.dim(1);
  const float* w = weight.as<float>();
  context.ForRows(
      x.dim(0), 4 * hidden * sizeof(float), [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
          const float* row = x.as<float>() + t * hidden;
          const float* d = dy.as<float>() + t * hidden;
          float* to = dx.as<float>() + t * hidden;
          const float r = InverseRms(row, hidden, eps);
          float dot = 0.0f;
          for (int64_t i = 0; i < hidden; ++i) dot += d[i] * w[i] * row[i];
          const float shift = r * r * (dot / static_cast<float>(hidden));
          for (int64_t i = 0; i < hidden; ++i) {
            to[i] += r * (d[i] * w[i] - row[i] * shift);
          }
        }
      });
}

void RmsNormBackwardWeight(CpuContext& context, ConstTensor x, float eps,
                           ConstTensor dy, bool accumulate, Tensor dweight) {
  const int64_t num_rows = x.dim(0);
  const int64_t hidden = x.dim(1);
  std::vector<float> scales(num_rows);
  context.ForRows(
      num_rows, hidden * sizeof(float), [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
          scales[t] = InverseRms(x.as<float>() + t * hidden, hidden, eps);
        }
      });
  const int64_t num_pieces = (hidden + kColumnPiece - 1) / kColumnPiece;
  context.ForRows(num_pieces, 2 * num_rows * kColumnPiece * sizeof(float),
                  [&](int64_t begin, int64_t end) {
                    const int64_t last = std::min(hidden, end * kColumnPiece);
                    for (int64_t i = begin * kColumnPiece; i < last; ++i) {
                      float sum = 0.0f;
                      for (int64_t t = 0; t < num_rows; ++t) {
                        sum += dy.as<float>()[t * hidden + i] *
                               (x.as<float>()[t * hidden + i] * scales[t]);
                      }
                      float& to = dweight.as<float>()[i];
                      to = accumulate ? to + sum : sum;
                    }
                  });
}

}  // namespace octet::cpu
