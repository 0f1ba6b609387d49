#include "tests/reference/reference_training_ops.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "kernels/philox.h"

namespace octet::test {
namespace {

double MeanOfSquares(const double* x, int64_t n) {
  return std::inner_product(x, x + n, x, 0.0) / static_cast<double>(n);
}

double Dot(const double* a, const double* b, int64_t n) {
  return std::inner_product(a, a + n, b, 0.0);
}

}  // namespace

Values MatMulBackwardInput(const Values& dy, const Values& w, int64_t k) {
  const int64_t n = static_cast<int64_t>(w.size()) / k;
  const int64_t num_rows = static_cast<int64_t>(dy.size()) / n;
  Values dx(num_rows * k);
  for (int64_t t = 0; t < num_rows; ++t) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t i = 0; i < k; ++i) {
        dx[t * k + i] += dy[t * n + j] * w[j * k + i];
      }
    }
  }
  return dx;
}

Values MatMulBackwardWeight(const Values& x, const Values& dy, int64_t k,
                            int64_t n) {
  const int64_t num_rows = static_cast<int64_t>(x.size()) / k;
  Values dw(n * k);
  for (int64_t t = 0; t < num_rows; ++t) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t i = 0; i < k; ++i) {
        dw[j * k + i] += dy[t * n + j] * x[t * k + i];
      }
    }
  }
  return dw;
}

Values GatedSilu(const Values& h, int64_t ffn) {
  Values out(h.size() / 2);
  for (size_t i = 0; i < out.size(); ++i) {
    const int64_t row = static_cast<int64_t>(i) / ffn * 2 * ffn;
    const int64_t col = static_cast<int64_t>(i) % ffn;
    out[i] = Silu(h[row + col]) * h[row + ffn + col];
  }
  return out;
}

Values GatedSiluBackward(const Values& h, const Values& dout, int64_t ffn) {
  Values dh(h.size());
  for (size_t i = 0; i < dout.size(); ++i) {
    const int64_t at =
        static_cast<int64_t>(i) / ffn * 2 * ffn + static_cast<int64_t>(i) % ffn;
    const double a = h[at];
    const double b = h[at + ffn];
    const double s = 1.0 / (1.0 + std::exp(-a));
    dh[at] = dout[i] * b * s * (1.0 + a * (1.0 - s));
    dh[at + ffn] = dout[i] * a * s;
  }
  return dh;
}

Values RmsNormBackward(const Values& x, const Values& weight, double eps,
                       const Values& dy) {
  const int64_t hidden = static_cast<int64_t>(weight.size());
  Values dx(x.size());
  for (size_t row = 0; row < x.size(); row += hidden) {
    const double r = 1.0 / std::sqrt(MeanOfSquares(&x[row], hidden) + eps);
    double mean = 0.0;
    for (int64_t i = 0; i < hidden; ++i) {
      mean += dy[row + i] * weight[i] * x[row + i];
    }
    mean /= static_cast<double>(hidden);
    for (int64_t i = 0; i < hidden; ++i) {
      dx[row + i] = r * (dy[row + i] * weight[i] - x[row + i] * r * r * mean);
    }
  }
  return dx;
}

Values RmsNormBackwardWeight(const Values& x, double eps, const Values& dy,
                             int64_t hidden) {
  Values dweight(hidden);
  for (size_t row = 0; row < x.size(); row += hidden) {
    const double r = 1.0 / std::sqrt(MeanOfSquares(&x[row], hidden) + eps);
    for (int64_t i = 0; i < hidden; ++i) {
      dweight[i] += dy[row + i] * x[row + i] * r;
    }
  }
  return dweight;
}

AttentionGradient AttentionBackward(const Values& q, const Values& keys,
                                    const Values& values, const Values& out,
                                    const Values& dout,
                                    const AttentionShape& shape) {
  const int64_t dim = shape.head_dim;
  const int64_t q_row = shape.num_heads * dim;
  const int64_t kv_row = shape.num_kv_heads * dim;
  const int64_t length = static_cast<int64_t>(q.size()) / q_row;
  const double scale = 1.0 / std::sqrt(static_cast<double>(dim));
  AttentionGradient gradient{Values(q.size()), Values(keys.size()),
                             Values(keys.size())};
  for (int64_t row = 0; row < length; ++row) {
    const int64_t begin =
        shape.window > 0 ? std::max<int64_t>(0, row - shape.window + 1) : 0;
    for (int64_t head = 0; head < shape.num_heads; ++head) {
      const int64_t kv = head / (shape.num_heads / shape.num_kv_heads) * dim;
      const int64_t at = row * q_row + head * dim;
      Values scores;
      for (int64_t s = begin; s <= row; ++s) {
        scores.push_back(scale * Dot(&q[at], &keys[s * kv_row + kv], dim));
      }
      const Values log_p = LogSoftmax(scores);
      const double delta = Dot(&dout[at], &out[at], dim);
      for (int64_t s = begin; s <= row; ++s) {
        const int64_t key = s * kv_row + kv;
        const double p = std::exp(log_p[s - begin]);
        const double ds = p * (Dot(&dout[at], &values[key], dim) - delta);
        for (int64_t d = 0; d < dim; ++d) {
          gradient.dv[key + d] += p * dout[at + d];
          gradient.dk[key + d] += scale * ds * q[at + d];
          gradient.dq[at + d] += scale * ds * keys[key + d];
        }
      }
    }
  }
  return gradient;
}

void RotateBack(absl::Span<double> x, int64_t position, double theta) {
  Rotate(x, -position, theta);
}

Values RouterBackward(const std::vector<int32_t>& ids, const Values& weights,
                      const Values& dweights, int64_t top_k,
                      int64_t num_experts) {
  const int64_t num_rows = static_cast<int64_t>(ids.size()) / top_k;
  Values dlogits(num_rows * num_experts);
  for (int64_t t = 0; t < num_rows; ++t) {
    const double mean = Dot(&weights[t * top_k], &dweights[t * top_k], top_k);
    for (int64_t k = t * top_k; k < (t + 1) * top_k; ++k) {
      dlogits[t * num_experts + ids[k]] = weights[k] * (dweights[k] - mean);
    }
  }
  return dlogits;
}

Softmaxes RowSoftmax(const Values& logits, int64_t num_experts) {
  Softmaxes result;
  for (size_t row = 0; row < logits.size(); row += num_experts) {
    const Values log_p =
        LogSoftmax(absl::MakeConstSpan(&logits[row], num_experts));
    for (double value : log_p) result.probabilities.push_back(std::exp(value));
    result.log_sums.push_back(logits[row] - log_p[0]);
  }
  return result;
}

double RouterLoss(const Values& logits, const Values& coef, double z_coef) {
  const int64_t num_experts = static_cast<int64_t>(coef.size());
  const Softmaxes softmax = RowSoftmax(logits, num_experts);
  double loss = 0.0;
  for (size_t t = 0; t < softmax.log_sums.size(); ++t) {
    loss +=
        Dot(coef.data(), &softmax.probabilities[t * num_experts], num_experts) +
        z_coef * softmax.log_sums[t] * softmax.log_sums[t];
  }
  return loss;
}

Values RouterLossBackward(const Values& logits, const Values& coef,
                          double z_coef) {
  const int64_t num_experts = static_cast<int64_t>(coef.size());
  const Softmaxes softmax = RowSoftmax(logits, num_experts);
  Values dlogits(logits.size());
  for (size_t t = 0; t < softmax.log_sums.size(); ++t) {
    const double* p = &softmax.probabilities[t * num_experts];
    const double mean = Dot(coef.data(), p, num_experts);
    for (int64_t e = 0; e < num_experts; ++e) {
      dlogits[t * num_experts + e] =
          p[e] * (coef[e] - mean) + 2.0 * z_coef * softmax.log_sums[t] * p[e];
    }
  }
  return dlogits;
}

Values SlotDots(const Values& x, const Values& rows,
                const std::vector<int32_t>& slot_rows, int64_t top_k,
                int64_t hidden) {
  Values dots(slot_rows.size());
  for (size_t slot = 0; slot < slot_rows.size(); ++slot) {
    dots[slot] = Dot(&x[static_cast<int64_t>(slot) / top_k * hidden],
                     &rows[slot_rows[slot] * hidden], hidden);
  }
  return dots;
}

Losses CrossEntropy(const Values& logits, const std::vector<int32_t>& targets,
                    const Values& scales) {
  Losses result{Values(targets.size()), Values(logits.size())};
  if (targets.empty()) return result;
  const size_t vocab = logits.size() / targets.size();
  for (size_t i = 0; i < targets.size(); ++i) {
    if (targets[i] < 0) continue;
    const Values log_p =
        LogSoftmax(absl::MakeConstSpan(&logits[i * vocab], vocab));
    result.losses[i] = -log_p[targets[i]];
    for (size_t j = 0; j < vocab; ++j) {
      const double is_target = static_cast<int64_t>(j) == targets[i] ? 1 : 0;
      result.dlogits[i * vocab + j] =
          scales[i] * (std::exp(log_p[j]) - is_target);
    }
  }
  return result;
}

void EmbeddingBackward(const Values& dx, const std::vector<int32_t>& ids,
                       Values& dtable) {
  if (ids.empty()) return;
  const size_t hidden = dx.size() / ids.size();
  for (size_t t = 0; t < ids.size(); ++t) {
    for (size_t i = 0; i < hidden; ++i) {
      dtable[ids[t] * hidden + i] += dx[t * hidden + i];
    }
  }
}

double DropoutFactor(uint64_t seed, int64_t row_key, int64_t column, float p) {
  const uint64_t row = static_cast<uint64_t>(row_key);
  const uint64_t block = static_cast<uint64_t>(column) / 4;
  const std::array<uint32_t, 4> words =
      Philox({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
              static_cast<uint32_t>(row), static_cast<uint32_t>(row >> 32)},
             {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return words[column % 4] * 0x1p-32 >= p ? 1.0 / (1.0 - static_cast<double>(p))
                                          : 0.0;
}

Values SumOfSquares(const Values& x, int64_t chunk) {
  const int64_t n = static_cast<int64_t>(x.size());
  Values sums((n + chunk - 1) / chunk);
  for (int64_t i = 0; i < n; ++i) sums[i / chunk] += x[i] * x[i];
  return sums;
}

void AdamW(const AdamWParams& params, const Values& grad, Values& weight,
           Values& m, Values& v) {
  const double beta1 = params.beta1;
  const double beta2 = params.beta2;
  const double step = static_cast<double>(params.step);
  for (size_t i = 0; i < grad.size(); ++i) {
    const double g = static_cast<double>(params.grad_scale) * grad[i];
    weight[i] -= static_cast<double>(params.learning_rate) *
                 params.weight_decay * weight[i];
    m[i] = beta1 * m[i] + (1.0 - beta1) * g;
    v[i] = beta2 * v[i] + (1.0 - beta2) * g * g;
    weight[i] -= params.learning_rate * (m[i] / (1.0 - std::pow(beta1, step))) /
                 (std::sqrt(v[i] / (1.0 - std::pow(beta2, step))) + params.eps);
  }
}

}  // namespace octet::test
