#include "kernels/cpu/sampling.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "kernels/cpu/descending_tokens.h"
#include "kernels/logit_errors.h"
#include "kernels/philox.h"

namespace octet::cpu {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

// What the rows of one thread's share are worked on in.
struct RowBuffers {
  std::vector<float> adjusted;  // [V]
  std::vector<double> weights;  // [V]
  std::vector<int32_t> counts;  // [V], zero between rows
  std::vector<bool> seen;       // [V], false between rows
  DescendingTokens descending;
};

// The largest logit, or an error that names the row.
absl::StatusOr<float> FiniteMax(const VectorKernels& kernels,
                                absl::string_view operation, int64_t row,
                                absl::Span<const float> logits) {
  bool has_nan = false;
  const float max = kernels.max(logits.data(), logits.size(), &has_nan);
  if (has_nan || max == std::numeric_limits<float>::infinity()) {
    return NotFiniteLogits(operation, row, has_nan ? "NaN" : "infinity");
  }
  return max;
}

bool ChangesLogits(const SamplingRow& row) {
  return !row.banned_ids.empty() || row.repetition_penalty != 1.0f ||
         row.presence_penalty != 0.0f || row.frequency_penalty != 0.0f;
}

// Banned ids, then penalties. Repetition (Keskar et al., 2019: CTRL, section
// 4.1) looks at the whole history; presence and frequency (OpenAI's API) count
// the generated part.
void AdjustLogits(const SamplingRow& row, absl::Span<const float> logits,
                  RowBuffers& buffers) {
  std::vector<float>& adjusted = buffers.adjusted;
  adjusted.assign(logits.begin(), logits.end());
  buffers.counts.resize(logits.size());
  buffers.seen.resize(logits.size());
  for (int32_t id : row.banned_ids) adjusted[id] = kNever;
  for (int32_t id : row.history) {
    if (buffers.seen[id]) continue;
    buffers.seen[id] = true;
    float& logit = adjusted[id];
    logit = logit > 0.0f ? logit / row.repetition_penalty
                         : logit * row.repetition_penalty;
  }
  const auto generated = row.history.subspan(std::min<size_t>(
      row.history.size(), static_cast<size_t>(row.num_prompt_tokens)));
  for (int32_t id : generated) ++buffers.counts[id];
  for (int32_t id : generated) {
    const int32_t count = std::exchange(buffers.counts[id], 0);
    if (count == 0) continue;  // done at its first occurrence
    adjusted[id] -= row.frequency_penalty * static_cast<float>(count);
    adjusted[id] -= row.presence_penalty;
  }
  for (int32_t id : row.history) buffers.seen[id] = false;
}

// Inverse of the cumulative distribution over the tokens that pass the filters,
// likeliest first.
int32_t Draw(const VectorKernels& kernels, const SamplingRow& row,
             absl::Span<const float> logits, float max, RowBuffers& buffers) {
  const double factor = 1.0 / static_cast<double>(row.temperature);
  buffers.weights.resize(logits.size());
  kernels.exp_scaled(logits.data(), logits.size(), max, factor,
                     buffers.weights.data());
  DescendingTokens& tokens = buffers.descending;
  tokens.Reset(logits.data(), buffers.weights.data(), logits.size(), max,
               factor);
  DescendingTokens::Prefix kept = tokens.All();
  if (row.top_k > 0) kept = tokens.FirstCount(kept, row.top_k);
  if (row.top_p < 1.0f) {
    kept = tokens.UntilMass(kept, row.top_p * kept.mass, /*beyond=*/false);
  }
  if (row.min_p > 0.0f) kept = tokens.AtLeastWeight(kept, row.min_p);
  const double uniform = UniformAt(row.seed, row.position);
  return tokens.Last(
      tokens.UntilMass(kept, uniform * kept.mass, /*beyond=*/true));
}

// The `count` likeliest, lowest id first on a tie: a heap whose top is the
// worst one kept.
std::vector<int32_t> LikeliestTokens(absl::Span<const float> logits,
                                     int64_t count) {
  const auto better = [&](int32_t a, int32_t b) {
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
  };
  std::vector<int32_t> heap;
  if (count == 0) return heap;
  const int64_t num_tokens = static_cast<int64_t>(logits.size());
  for (int64_t i = 0; i < num_tokens; ++i) {
    const int32_t id = static_cast<int32_t>(i);
    if (static_cast<int64_t>(heap.size()) < count) {
      heap.push_back(id);
      std::push_heap(heap.begin(), heap.end(), better);
    } else if (logits[id] > logits[heap.front()]) {
      std::pop_heap(heap.begin(), heap.end(), better);
      heap.back() = id;
      std::push_heap(heap.begin(), heap.end(), better);
    }
  }
  std::sort_heap(heap.begin(), heap.end(), better);
  return heap;
}

// log softmax: x - max - ln sum e^(x - max), in double.
TokenLogprobs Logprobs(const VectorKernels& kernels,
                       absl::Span<const float> logits, float max,
                       int32_t token_id, int64_t num_top) {
  const double log_sum =
      std::log(kernels.sum_exp(logits.data(), logits.size(), max));
  const auto logprob = [&](int32_t id) {
    return static_cast<float>(static_cast<double>(logits[id]) -
                              static_cast<double>(max) - log_sum);
  };
  TokenLogprobs result;
  result.logprob = logprob(token_id);
  result.top_ids = LikeliestTokens(
      logits, std::min<int64_t>(num_top, static_cast<int64_t>(logits.size())));
  for (int32_t id : result.top_ids) result.top_logprobs.push_back(logprob(id));
  return result;
}

absl::Status SampleRow(const VectorKernels& kernels, const SamplingRow& row,
                       int64_t index, absl::Span<const float> logits,
                       RowBuffers& buffers, SampledToken* out) {
  absl::StatusOr<float> max = FiniteMax(kernels, "Sample", index, logits);
  if (!max.ok()) return max.status();
  absl::Span<const float> adjusted = logits;
  float adjusted_max = *max;
  if (ChangesLogits(row)) {
    AdjustLogits(row, logits, buffers);
    adjusted = buffers.adjusted;
    bool has_nan = false;
    adjusted_max = kernels.max(adjusted.data(), adjusted.size(), &has_nan);
  }
  if (adjusted_max == kNever) return NothingToDraw("Sample", index);
  out->token_id =
      row.temperature == 0.0f
          ? static_cast<int32_t>(
                std::find(adjusted.begin(), adjusted.end(), adjusted_max) -
                adjusted.begin())
          : Draw(kernels, row, adjusted, adjusted_max, buffers);
  if (row.num_logprobs >= 0) {
    out->logprobs =
        Logprobs(kernels, logits, *max, out->token_id, row.num_logprobs);
  }
  return absl::OkStatus();
}

// Runs body(row, buffers) for all rows; the error of the lowest row wins.
absl::Status ForEachRow(
    CpuContext& context, int64_t num_rows,
    absl::FunctionRef<absl::Status(int64_t, RowBuffers&)> body) {
  std::vector<RowBuffers> buffers(context.pool().num_threads());
  std::vector<absl::Status> statuses(num_rows);
  context.pool().ParallelFor(num_rows, [&](int64_t row, int thread) {
    statuses[row] = body(row, buffers[thread]);
  });
  for (absl::Status& status : statuses) {
    if (!status.ok()) return std::move(status);
  }
  return absl::OkStatus();
}

absl::Span<const float> RowOf(ConstTensor logits, int64_t row) {
  return absl::MakeConstSpan(logits.as<float>() + row * logits.dim(1),
                             logits.dim(1));
}

}  // namespace

absl::Status Sample(CpuContext& context, ConstTensor logits,
                    absl::Span<const SamplingRow> rows,
                    std::vector<SampledToken>* out) {
  std::vector<SampledToken> tokens(rows.size());
  absl::Status status =
      ForEachRow(context, logits.dim(0), [&](int64_t row, RowBuffers& buffers) {
        return SampleRow(context.kernels(), rows[row], row, RowOf(logits, row),
                         buffers, &tokens[row]);
      });
  if (status.ok()) *out = std::move(tokens);
  return status;
}

absl::Status ScoreTokens(CpuContext& context, ConstTensor logits,
                         absl::Span<const int32_t> targets,
                         absl::Span<const int> num_logprobs,
                         std::vector<TokenLogprobs>* out) {
  std::vector<TokenLogprobs> scores(targets.size());
  absl::Status status =
      ForEachRow(context, logits.dim(0), [&](int64_t row, RowBuffers&) {
        const absl::Span<const float> values = RowOf(logits, row);
        absl::StatusOr<float> max =
            FiniteMax(context.kernels(), "ScoreTokens", row, values);
        if (!max.ok()) return max.status();
        if (*max == kNever) return NothingToDraw("ScoreTokens", row);
        scores[row] = Logprobs(context.kernels(), values, *max, targets[row],
                               std::max(0, num_logprobs[row]));
        return absl::OkStatus();
      });
  if (status.ok()) *out = std::move(scores);
  return status;
}

}  // namespace octet::cpu
