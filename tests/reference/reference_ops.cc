#include "tests/reference/reference_ops.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace octet::test {

Values RmsNorm(const Values& x, const Values& weight, double eps) {
  const size_t hidden = weight.size();
  Values out(x.size());
  for (size_t row = 0; row < x.size(); row += hidden) {
    double sum = 0.0;
    for (size_t i = 0; i < hidden; ++i) sum += x[row + i] * x[row + i];
    const double scale =
        1.0 / std::sqrt(sum / static_cast<double>(hidden) + eps);
    for (size_t i = 0; i < hidden; ++i) {
      out[row + i] = x[row + i] * scale * weight[i];
    }
  }
  return out;
}

Values MatMul(const Values& x, const Values& w, int64_t k) {
  const int64_t num_rows = static_cast<int64_t>(x.size()) / k;
  const int64_t n = static_cast<int64_t>(w.size()) / k;
  Values out(num_rows * n);
  for (int64_t t = 0; t < num_rows; ++t) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0.0;
      for (int64_t i = 0; i < k; ++i) sum += x[t * k + i] * w[j * k + i];
      out[t * n + j] = sum;
    }
  }
  return out;
}

double Silu(double a) { return a / (1.0 + std::exp(-a)); }

Values SwiGlu(const Values& x, const Values& w1, const Values& w3, int64_t k) {
  Values out = MatMul(x, w1, k);
  const Values up = MatMul(x, w3, k);
  for (size_t i = 0; i < out.size(); ++i) out[i] = Silu(out[i]) * up[i];
  return out;
}

void Rotate(absl::Span<double> x, int64_t position, double theta) {
  const size_t half = x.size() / 2;
  for (size_t i = 0; i < half; ++i) {
    const double angle = static_cast<double>(position) *
                         std::pow(theta, -2.0 * static_cast<double>(i) /
                                             static_cast<double>(x.size()));
    const double first = x[i];
    const double second = x[i + half];
    x[i] = first * std::cos(angle) - second * std::sin(angle);
    x[i + half] = second * std::cos(angle) + first * std::sin(angle);
  }
}

Values Attention(const Values& q, const Values& keys, const Values& values,
                 const AttentionShape& shape, int64_t first_position) {
  const int64_t dim = shape.head_dim;
  const int64_t q_row = shape.num_heads * dim;
  const int64_t kv_row = shape.num_kv_heads * dim;
  const int64_t num_rows = static_cast<int64_t>(q.size()) / q_row;
  Values out(q.size());
  for (int64_t row = 0; row < num_rows; ++row) {
    const int64_t position = first_position + row;
    const int64_t begin =
        shape.window > 0 ? std::max<int64_t>(0, position - shape.window + 1)
                         : 0;
    for (int64_t head = 0; head < shape.num_heads; ++head) {
      const int64_t kv = head / (shape.num_heads / shape.num_kv_heads) * dim;
      const double* query = q.data() + row * q_row + head * dim;
      Values scores;
      for (int64_t s = begin; s <= position; ++s) {
        const double* key = keys.data() + s * kv_row + kv;
        scores.push_back(std::inner_product(query, query + dim, key, 0.0) /
                         std::sqrt(static_cast<double>(dim)));
      }
      const Values log_p = LogSoftmax(scores);
      double* to = out.data() + row * q_row + head * dim;
      for (int64_t s = begin; s <= position; ++s) {
        const double p = std::exp(log_p[s - begin]);
        for (int64_t d = 0; d < dim; ++d) {
          to[d] += p * values[s * kv_row + kv + d];
        }
      }
    }
  }
  return out;
}

Routing Route(absl::Span<const double> logits, int64_t top_k) {
  const Values log_p = LogSoftmax(logits);
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  Routing routing;
  double sum = 0.0;
  for (int64_t k = 0; k < top_k; ++k) {
    routing.ids.push_back(order[k]);
    routing.weights.push_back(std::exp(log_p[order[k]]));
    sum += routing.weights.back();
  }
  for (double& weight : routing.weights) weight /= sum;
  return routing;
}

Values LogSoftmax(absl::Span<const double> logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (double logit : logits) sum += std::exp(logit - max);
  Values out;
  for (double logit : logits) out.push_back(logit - max - std::log(sum));
  return out;
}

Values Combine(const Values& rows, const std::vector<int32_t>& slot_rows,
               const Values& weights, int64_t top_k, int64_t hidden) {
  const int64_t num_tokens = static_cast<int64_t>(slot_rows.size()) / top_k;
  Values out(num_tokens * hidden);
  for (int64_t slot = 0; slot < num_tokens * top_k; ++slot) {
    for (int64_t i = 0; i < hidden; ++i) {
      out[slot / top_k * hidden + i] +=
          weights[slot] * rows[slot_rows[slot] * hidden + i];
    }
  }
  return out;
}

}  // namespace octet::test
