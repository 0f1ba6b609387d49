#include "kernels/cuda/sampling.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <utility>

#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/sampling_kernels.h"
#include "kernels/logit_errors.h"
#include "kernels/philox.h"

namespace octet::cuda {
namespace {

// Of one launch: bounds the scratch for weights (32 MiB at V 32000).
constexpr int64_t kMaxRows = 128;
constexpr size_t kAlignment = 16;

// What one launch is given, on the host.
struct Batch {
  std::vector<TokenRow> rows;
  std::vector<LogitEdit> edits;
  std::vector<LogitPenalties> penalties;  // one per adjusted row
  std::vector<int64_t> adjusted;          // the batch's rows that are copied
  int64_t num_top = 0;                    // listed tokens of all rows
  bool draws = false;
};

struct BatchResult {
  std::vector<TokenResult> results;
  std::vector<TokenKey> top_keys;
};

int MassBits(int64_t vocab) {
  return std::min(
      52, 62 - static_cast<int>(std::bit_width(static_cast<uint64_t>(vocab))));
}

bool ChangesLogits(const SamplingRow& row) {
  return !row.banned_ids.empty() || row.repetition_penalty != 1.0f ||
         row.presence_penalty != 0.0f || row.frequency_penalty != 0.0f;
}

// Every id that the row's bans and penalties touch, once.
void AddEdits(const SamplingRow& row, Batch& batch) {
  const auto adjusted = static_cast<int32_t>(batch.penalties.size());
  batch.penalties.push_back(
      {row.repetition_penalty, row.presence_penalty, row.frequency_penalty});
  const size_t first = batch.edits.size();
  for (int32_t id : row.banned_ids) {
    batch.edits.push_back({.row = adjusted, .id = id, .banned = 1});
  }
  for (size_t i = 0; i < row.history.size(); ++i) {
    const bool generated = static_cast<int64_t>(i) >= row.num_prompt_tokens;
    batch.edits.push_back({.row = adjusted,
                           .id = row.history[i],
                           .count = generated ? 1 : 0,
                           .repeated = 1});
  }
  const auto begin = batch.edits.begin() + static_cast<int64_t>(first);
  std::sort(begin, batch.edits.end(),
            [](const LogitEdit& a, const LogitEdit& b) { return a.id < b.id; });
  auto last = begin;  // of the edits merged so far
  for (auto edit = begin; edit != batch.edits.end(); ++edit) {
    if (edit == begin) continue;
    if (edit->id == last->id) {
      last->count += edit->count;
      last->repeated |= edit->repeated;
      last->banned |= edit->banned;
    } else {
      *++last = *edit;
    }
  }
  if (begin != batch.edits.end())
    batch.edits.erase(last + 1, batch.edits.end());
}

void AddScore(int64_t num_logprobs, int64_t vocab, TokenRow& to, Batch& batch) {
  to.score = 1;
  to.num_top = static_cast<int32_t>(std::min(num_logprobs, vocab));
  to.top_begin = batch.num_top;
  batch.num_top += to.num_top;
}

void AddRow(const SamplingRow& row, int64_t vocab, Batch& batch) {
  TokenRow to;
  if (ChangesLogits(row)) {
    to.adjusted = static_cast<int32_t>(batch.adjusted.size());
    batch.adjusted.push_back(static_cast<int64_t>(batch.rows.size()));
    AddEdits(row, batch);
  }
  if (row.temperature > 0.0f) {
    batch.draws = true;
    to.choice = TokenChoice::kDraw;
    to.factor = 1.0 / static_cast<double>(row.temperature);
    to.top_k = row.top_k;
    if (row.top_p < 1.0f) {
      to.top_p = std::max<TokenMass>(
          1, static_cast<TokenMass>(static_cast<double>(row.top_p) * 0x1p64));
    }
    if (row.min_p > 0.0f) {
      to.min_mass = static_cast<TokenMass>(std::ceil(
          std::ldexp(static_cast<double>(row.min_p), MassBits(vocab))));
    }
    to.uniform =
        static_cast<uint64_t>(UniformAt(row.seed, row.position) * 0x1p53) << 11;
  }
  if (row.num_logprobs >= 0) AddScore(row.num_logprobs, vocab, to, batch);
  batch.rows.push_back(to);
}

// The device arrays of a batch within one piece of scratch.
class Layout {
 public:
  size_t Add(size_t num_bytes) {
    const size_t at = size_;
    size_ += (num_bytes + kAlignment - 1) / kAlignment * kAlignment;
    return at;
  }
  size_t size() const { return size_; }

 private:
  size_t size_ = 0;
};

template <typename T>
size_t BytesOf(const std::vector<T>& values) {
  return values.size() * sizeof(T);
}

// Copies and edits the rows that penalties or bans change.
absl::Status Adjust(const Batch& batch, ConstTensor logits, float* adjusted,
                    LogitEditArgs args, CudaStream& stream) {
  const int64_t vocab = logits.dim(1);
  for (size_t i = 0; i < batch.adjusted.size(); ++i) {
    OCTET_RETURN_IF_ERROR(CudaStatus(
        cudaMemcpyAsync(adjusted + static_cast<int64_t>(i) * vocab,
                        logits.as<float>() + batch.adjusted[i] * vocab,
                        vocab * sizeof(float), cudaMemcpyDeviceToDevice,
                        stream.get()),
        "cudaMemcpyAsync of a row of logits"));
  }
  args.logits = adjusted;
  args.num_edits = static_cast<int64_t>(batch.edits.size());
  args.vocab = vocab;
  return CudaStatus(LaunchLogitEdits(args, stream.get()),
                    "launch of the logit edits");
}

// logits: the batch's rows.
absl::StatusOr<BatchResult> RunBatch(const Batch& batch, ConstTensor logits,
                                     CudaStream& stream) {
  const int64_t num_rows = logits.dim(0);
  const int64_t vocab = logits.dim(1);
  BatchResult result;
  result.results.resize(num_rows);
  result.top_keys.resize(batch.num_top);
  Layout layout;
  const size_t results = layout.Add(BytesOf(result.results));
  const size_t top_keys = layout.Add(BytesOf(result.top_keys));
  const size_t rows = layout.Add(BytesOf(batch.rows));
  const size_t edits = layout.Add(BytesOf(batch.edits));
  const size_t penalties = layout.Add(BytesOf(batch.penalties));
  const size_t adjusted =
      layout.Add(batch.adjusted.size() * vocab * sizeof(float));
  const size_t weights =
      layout.Add(batch.draws ? num_rows * vocab * sizeof(TokenMass) : 0);
  OCTET_ASSIGN_OR_RETURN(std::byte * base, stream.Scratch(layout.size()));
  OCTET_RETURN_IF_ERROR(
      stream.Upload(base + rows, batch.rows.data(), BytesOf(batch.rows)));
  OCTET_RETURN_IF_ERROR(
      stream.Upload(base + edits, batch.edits.data(), BytesOf(batch.edits)));
  OCTET_RETURN_IF_ERROR(stream.Upload(base + penalties, batch.penalties.data(),
                                      BytesOf(batch.penalties)));
  LogitEditArgs edit_args;
  edit_args.edits = reinterpret_cast<const LogitEdit*>(base + edits);
  edit_args.penalties =
      reinterpret_cast<const LogitPenalties*>(base + penalties);
  auto* const adjusted_rows = reinterpret_cast<float*>(base + adjusted);
  OCTET_RETURN_IF_ERROR(
      Adjust(batch, logits, adjusted_rows, edit_args, stream));
  TokenArgs args;
  args.logits = logits.as<float>();
  args.adjusted = adjusted_rows;
  args.rows = reinterpret_cast<const TokenRow*>(base + rows);
  args.weights = reinterpret_cast<TokenMass*>(base + weights);
  args.top_keys = reinterpret_cast<TokenKey*>(base + top_keys);
  args.results = reinterpret_cast<TokenResult*>(base + results);
  args.num_rows = static_cast<int32_t>(num_rows);
  args.vocab = static_cast<int32_t>(vocab);
  args.mass_bits = MassBits(vocab);
  OCTET_RETURN_IF_ERROR(CudaStatus(LaunchChooseTokens(args, stream.get()),
                                   "launch of the choice of tokens"));
  OCTET_RETURN_IF_ERROR(stream.Download(result.results.data(), base + results,
                                        BytesOf(result.results)));
  OCTET_RETURN_IF_ERROR(stream.Download(result.top_keys.data(), base + top_keys,
                                        BytesOf(result.top_keys)));
  OCTET_RETURN_IF_ERROR(stream.Synchronize());
  return result;
}

absl::Status Check(absl::string_view operation, int64_t row,
                   TokenStatus status) {
  switch (status) {
    case TokenStatus::kNan:
      return NotFiniteLogits(operation, row, "NaN");
    case TokenStatus::kInfinity:
      return NotFiniteLogits(operation, row, "infinity");
    case TokenStatus::kNothingLeft:
      return NothingToDraw(operation, row);
    case TokenStatus::kOk:
      break;
  }
  return absl::OkStatus();
}

// log softmax: x - max - ln sum e^(x - max).
TokenLogprobs Logprobs(const TokenRow& row, const TokenResult& result,
                       absl::Span<TokenKey> top_keys, int mass_bits) {
  const double log_sum =
      std::log(std::ldexp(static_cast<double>(result.sum), -mass_bits));
  const auto logprob = [&](float logit) {
    return static_cast<float>(static_cast<double>(logit) -
                              static_cast<double>(result.max) - log_sum);
  };
  TokenLogprobs logprobs;
  logprobs.logprob = logprob(result.logit);
  const auto keys = top_keys.subspan(row.top_begin, row.num_top);
  std::sort(keys.begin(), keys.end(), std::greater<>());
  for (TokenKey key : keys) {
    logprobs.top_ids.push_back(IdOfKey(key));
    logprobs.top_logprobs.push_back(
        logprob(std::bit_cast<float>(LogitBitsOfKey(key))));
  }
  return logprobs;
}

// Chooses and scores `rows` rows, a launch at a time: add(row, batch) describes
// a row.
template <typename Add>
absl::StatusOr<std::vector<SampledToken>> RunRows(absl::string_view operation,
                                                  ConstTensor logits, Add add,
                                                  CudaStream& stream) {
  const int64_t num_rows = logits.dim(0);
  std::vector<SampledToken> tokens(num_rows);
  for (int64_t begin = 0; begin < num_rows; begin += kMaxRows) {
    const int64_t count = std::min(kMaxRows, num_rows - begin);
    Batch batch;
    for (int64_t i = 0; i < count; ++i) add(begin + i, batch);
    OCTET_ASSIGN_OR_RETURN(BatchResult result,
                           RunBatch(batch, logits.Rows(begin, count), stream));
    for (int64_t i = 0; i < count; ++i) {
      const TokenResult& row = result.results[i];
      OCTET_RETURN_IF_ERROR(Check(operation, begin + i, row.status));
      SampledToken& token = tokens[begin + i];
      token.token_id = row.token;
      if (batch.rows[i].score != 0) {
        token.logprobs =
            Logprobs(batch.rows[i], row, absl::MakeSpan(result.top_keys),
                     MassBits(logits.dim(1)));
      }
    }
  }
  return tokens;
}

}  // namespace

absl::Status Sample(ConstTensor logits, absl::Span<const SamplingRow> rows,
                    std::vector<SampledToken>* out, CudaStream& stream) {
  const int64_t vocab = logits.dim(1);
  OCTET_ASSIGN_OR_RETURN(*out, RunRows(
                                   "Sample", logits,
                                   [&](int64_t row, Batch& batch) {
                                     AddRow(rows[row], vocab, batch);
                                   },
                                   stream));
  return absl::OkStatus();
}

absl::Status ScoreTokens(ConstTensor logits, absl::Span<const int32_t> targets,
                         absl::Span<const int> num_logprobs,
                         std::vector<TokenLogprobs>* out, CudaStream& stream) {
  const int64_t vocab = logits.dim(1);
  OCTET_ASSIGN_OR_RETURN(std::vector<SampledToken> tokens,
                         RunRows(
                             "ScoreTokens", logits,
                             [&](int64_t row, Batch& batch) {
                               TokenRow to;
                               to.choice = TokenChoice::kGiven;
                               to.token = targets[row];
                               AddScore(std::max(0, num_logprobs[row]), vocab,
                                        to, batch);
                               batch.rows.push_back(to);
                             },
                             stream));
  out->clear();
  for (SampledToken& token : tokens) {
    out->push_back(std::move(token.logprobs));
  }
  return absl::OkStatus();
}

}  // namespace octet::cuda
