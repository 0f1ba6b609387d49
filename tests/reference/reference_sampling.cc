#include "tests/reference/reference_sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "tests/reference/reference_ops.h"

namespace octet::test {
namespace {

std::vector<float> Adjust(absl::Span<const float> logits,
                          const SamplingRow& row) {
  std::vector<float> adjusted(logits.begin(), logits.end());
  for (int32_t id : row.banned_ids) {
    adjusted[id] = -std::numeric_limits<float>::infinity();
  }
  for (int32_t id : std::set<int32_t>(row.history.begin(), row.history.end())) {
    if (adjusted[id] > 0.0f) {
      adjusted[id] /= row.repetition_penalty;
    } else {
      adjusted[id] *= row.repetition_penalty;
    }
  }
  std::map<int32_t, int> generated;
  for (size_t i = row.num_prompt_tokens; i < row.history.size(); ++i) {
    ++generated[row.history[i]];
  }
  for (const auto& [id, count] : generated) {
    adjusted[id] -= row.frequency_penalty * static_cast<float>(count);
    adjusted[id] -= row.presence_penalty;
  }
  return adjusted;
}

void Normalize(Values& p) {
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& value : p) value /= sum;
}

}  // namespace

std::vector<int32_t> DescendingOrder(absl::Span<const double> logits) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  return order;
}

Values SamplingDistribution(absl::Span<const float> logits,
                            const SamplingRow& row) {
  Values scaled = ToValues(Adjust(logits, row));
  const std::vector<int32_t> order = DescendingOrder(scaled);
  Values p(scaled.size());
  if (row.temperature == 0.0f) {
    p[order[0]] = 1.0;
    return p;
  }
  for (double& value : scaled) value /= row.temperature;
  const Values log_p = LogSoftmax(scaled);
  for (size_t i = 0; i < p.size(); ++i) p[i] = std::exp(log_p[i]);
  if (row.top_k > 0) {
    for (size_t i = row.top_k; i < order.size(); ++i) p[order[i]] = 0.0;
    Normalize(p);
  }
  if (row.top_p < 1.0f) {
    double before = 0.0;
    for (size_t i = 0; i < order.size(); ++i) {
      const double mass = p[order[i]];
      if (i > 0 && before >= row.top_p) p[order[i]] = 0.0;
      before += mass;
    }
    Normalize(p);
  }
  const double floor = row.min_p * p[order[0]];
  for (double& value : p) {
    if (value < floor) value = 0.0;
  }
  Normalize(p);
  return p;
}

}  // namespace octet::test
