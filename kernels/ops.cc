#include "kernels/ops.h"

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/argument_check.h"

namespace octet::ops {
namespace {

constexpr int64_t kAny = ArgumentCheck::kAny;

// Shared by the two grouped products; `split` is 2 where n holds W1 and W3.
absl::Status CheckGrouped(const ArgumentCheck& check, ConstTensor x,
                          absl::string_view w_name,
                          absl::Span<const PackedMatrix* const> w, int split,
                          absl::Span<const int64_t> row_offsets) {
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("x", x, {kAny, kAny}, {DType::kF32, DType::kBF16}));
  OCTET_RETURN_IF_ERROR(check.MatricesAre(w_name, w, x.dim(1), x.dtype()));
  if (!w.empty()) {
    OCTET_RETURN_IF_ERROR(check.Require(
        w[0]->n() % split == 0, absl::StrCat("the number of rows of ", w_name),
        w[0]->n(), "even"));
  }
  return check.RowOffsetsAre(row_offsets, w.size(), "x", x.dim(0));
}

absl::Status CheckIds(const ArgumentCheck& check, const std::string& name,
                      absl::Span<const int32_t> ids, int64_t vocab_size) {
  for (size_t i = 0; i < ids.size(); ++i) {
    OCTET_RETURN_IF_ERROR(check.Require(ids[i] >= 0 && ids[i] < vocab_size,
                                        Element(name, i), ids[i],
                                        absl::StrCat("0 to ", vocab_size - 1)));
  }
  return absl::OkStatus();
}

absl::Status CheckSamplingRow(const ArgumentCheck& check,
                              const std::string& name, const SamplingRow& row,
                              int64_t vocab_size) {
  const auto field = [&](absl::string_view member) {
    return absl::StrCat(name, ".", member);
  };
  // Written so that NaN fails.
  OCTET_RETURN_IF_ERROR(
      check.Require(row.temperature >= 0.0f && std::isfinite(row.temperature),
                    field("temperature"), row.temperature, "0 or more"));
  OCTET_RETURN_IF_ERROR(check.Require(row.top_k >= 0, field("top_k"), row.top_k,
                                      "0 (off) or more"));
  OCTET_RETURN_IF_ERROR(check.Require(row.top_p >= 0.0f && row.top_p <= 1.0f,
                                      field("top_p"), row.top_p, "0 to 1"));
  OCTET_RETURN_IF_ERROR(check.Require(row.min_p >= 0.0f && row.min_p <= 1.0f,
                                      field("min_p"), row.min_p, "0 to 1"));
  OCTET_RETURN_IF_ERROR(check.Require(
      row.repetition_penalty > 0.0f && std::isfinite(row.repetition_penalty),
      field("repetition_penalty"), row.repetition_penalty, "more than 0"));
  OCTET_RETURN_IF_ERROR(check.Require(std::isfinite(row.presence_penalty),
                                      field("presence_penalty"),
                                      row.presence_penalty, "a finite number"));
  OCTET_RETURN_IF_ERROR(check.Require(
      std::isfinite(row.frequency_penalty), field("frequency_penalty"),
      row.frequency_penalty, "a finite number"));
  const int64_t history_size = static_cast<int64_t>(row.history.size());
  OCTET_RETURN_IF_ERROR(check.Require(
      row.num_prompt_tokens >= 0 &&
          (row.history.empty() || row.num_prompt_tokens <= history_size),
      field("num_prompt_tokens"), row.num_prompt_tokens,
      absl::StrCat("0 to ", history_size, ", the length of history")));
  OCTET_RETURN_IF_ERROR(check.Require(row.num_logprobs >= -1,
                                      field("num_logprobs"), row.num_logprobs,
                                      "-1 (none) or more"));
  OCTET_RETURN_IF_ERROR(
      CheckIds(check, field("history"), row.history, vocab_size));
  return CheckIds(check, field("banned_ids"), row.banned_ids, vocab_size);
}

}  // namespace

absl::Status Embedding(Backend& backend, ConstTensor table, ConstTensor ids,
                       Tensor out, Stream& stream) {
  const ArgumentCheck check("Embedding");
  OCTET_RETURN_IF_ERROR(check.TensorIs("table", table, {kAny, kAny},
                                       {DType::kF32, DType::kBF16}));
  OCTET_RETURN_IF_ERROR(check.TensorIs("ids", ids, {kAny}, {DType::kI32}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("out", out, {ids.dim(0), table.dim(1)}, {DType::kF32}));
  if (ids.dim(0) == 0) return absl::OkStatus();
  return backend.Embedding(table, ids, out, stream);
}

absl::Status RmsNorm(Backend& backend, ConstTensor x, ConstTensor weight,
                     float eps, Tensor out, Stream& stream) {
  const ArgumentCheck check("RmsNorm");
  OCTET_RETURN_IF_ERROR(check.TensorIs("x", x, {kAny, kAny}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("weight", weight, {x.dim(1)}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(check.Require(eps >= 0.0f && std::isfinite(eps), "eps",
                                      eps, "0 or more"));
  OCTET_RETURN_IF_ERROR(check.TensorIs("out", out, {x.dim(0), x.dim(1)},
                                       {DType::kF32, DType::kBF16}));
  if (x.dim(0) == 0) return absl::OkStatus();
  return backend.RmsNorm(x, weight, eps, out, stream);
}

absl::Status Gemm(Backend& backend, ConstTensor x, const PackedMatrix& w,
                  bool accumulate, Tensor out, Stream& stream) {
  const ArgumentCheck check("Gemm");
  OCTET_RETURN_IF_ERROR(check.TensorIs("x", x, {kAny, w.k()}, {w.dtype()}));
  if (accumulate) {
    OCTET_RETURN_IF_ERROR(
        check.TensorIs("out", out, {x.dim(0), w.n()}, {DType::kF32}));
  } else {
    OCTET_RETURN_IF_ERROR(check.TensorIs("out", out, {x.dim(0), w.n()},
                                         {DType::kF32, DType::kBF16}));
  }
  if (x.dim(0) == 0) return absl::OkStatus();
  return backend.Gemm(x, w, accumulate, out, stream);
}

absl::Status GroupedGemm(Backend& backend, ConstTensor x,
                         absl::Span<const PackedMatrix* const> w,
                         absl::Span<const int64_t> row_offsets, Tensor out,
                         Stream& stream) {
  const ArgumentCheck check("GroupedGemm");
  OCTET_RETURN_IF_ERROR(CheckGrouped(check, x, "w", w, 1, row_offsets));
  OCTET_RETURN_IF_ERROR(check.TensorIs("out", out,
                                       {x.dim(0), w.empty() ? kAny : w[0]->n()},
                                       {DType::kF32, DType::kBF16}));
  if (x.dim(0) == 0) return absl::OkStatus();
  return backend.GroupedGemm(x, w, row_offsets, out, stream);
}

absl::Status GroupedGemmSwiGlu(Backend& backend, ConstTensor x,
                               absl::Span<const PackedMatrix* const> w13,
                               absl::Span<const int64_t> row_offsets,
                               Tensor out, Stream& stream) {
  const ArgumentCheck check("GroupedGemmSwiGlu");
  OCTET_RETURN_IF_ERROR(CheckGrouped(check, x, "w13", w13, 2, row_offsets));
  OCTET_RETURN_IF_ERROR(check.TensorIs(
      "out", out, {x.dim(0), w13.empty() ? kAny : w13[0]->n() / 2},
      {x.dtype()}));
  if (x.dim(0) == 0) return absl::OkStatus();
  return backend.GroupedGemmSwiGlu(x, w13, row_offsets, out, stream);
}

absl::Status RopeAndCache(Backend& backend, ConstTensor qkv,
                          ConstTensor positions, ConstTensor slots,
                          const RopeParams& params, const KvCacheView& cache,
                          Tensor q_out, Stream& stream) {
  const ArgumentCheck check("RopeAndCache");
  OCTET_RETURN_IF_ERROR(check.RopeIs(params));
  const int64_t dim = params.head_dim;
  OCTET_RETURN_IF_ERROR(check.CacheIsValid(cache));
  OCTET_RETURN_IF_ERROR(check.Require(cache.head_dim == dim, "cache.head_dim",
                                      cache.head_dim, dim));
  OCTET_RETURN_IF_ERROR(check.Require(cache.num_kv_heads == params.num_kv_heads,
                                      "cache.num_kv_heads", cache.num_kv_heads,
                                      params.num_kv_heads));
  OCTET_RETURN_IF_ERROR(check.TensorIs(
      "qkv", qkv,
      {kAny, (params.num_heads + 2 * int64_t{params.num_kv_heads}) * dim},
      {DType::kF32}));
  const int64_t num_rows = qkv.dim(0);
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("positions", positions, {num_rows}, {DType::kI32}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("slots", slots, {num_rows}, {DType::kI64}));
  OCTET_RETURN_IF_ERROR(check.TensorIs(
      "q_out", q_out, {num_rows, params.num_heads * dim}, {DType::kF32}));
  if (num_rows == 0) return absl::OkStatus();
  return backend.RopeAndCache(qkv, positions, slots, params, cache, q_out,
                              stream);
}

absl::Status PagedAttention(Backend& backend, ConstTensor q,
                            const KvCacheView& cache,
                            absl::Span<const AttentionSequence> sequences,
                            int sliding_window, Tensor out, Stream& stream) {
  const ArgumentCheck check("PagedAttention");
  OCTET_RETURN_IF_ERROR(check.CacheIsValid(cache));
  OCTET_RETURN_IF_ERROR(check.Require(sliding_window >= 0, "sliding_window",
                                      sliding_window, "0 (off) or more"));
  OCTET_RETURN_IF_ERROR(check.TensorIs("q", q, {kAny, kAny}, {DType::kF32}));
  const int64_t kv_row = int64_t{cache.num_kv_heads} * cache.head_dim;
  OCTET_RETURN_IF_ERROR(check.Require(
      q.dim(1) > 0 && q.dim(1) % kv_row == 0, "the row length of q", q.dim(1),
      absl::StrCat("a multiple of ", kv_row, ", the cache's N_kv D")));
  OCTET_RETURN_IF_ERROR(check.TensorIs("out", out, {q.dim(0), q.dim(1)},
                                       {DType::kF32, DType::kBF16}));
  OCTET_RETURN_IF_ERROR(
      check.SequencesAre(sequences, q.dim(0), cache, sliding_window));
  if (q.dim(0) == 0) return absl::OkStatus();
  return backend.PagedAttention(q, cache, sequences, sliding_window, out,
                                stream);
}

absl::Status Router(Backend& backend, ConstTensor logits, Tensor topk_ids,
                    Tensor topk_weights, Stream& stream) {
  const ArgumentCheck check("Router");
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("logits", logits, {kAny, kAny}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(check.TensorIs("topk_ids", topk_ids,
                                       {logits.dim(0), kAny}, {DType::kI32}));
  const int64_t top_k = topk_ids.dim(1);
  OCTET_RETURN_IF_ERROR(check.Require(
      top_k >= 1 && top_k <= logits.dim(1), "K", top_k,
      absl::StrCat("1 to ", logits.dim(1), ", the number of experts")));
  OCTET_RETURN_IF_ERROR(check.TensorIs("topk_weights", topk_weights,
                                       {logits.dim(0), top_k}, {DType::kF32}));
  if (logits.dim(0) == 0) return absl::OkStatus();
  return backend.Router(logits, topk_ids, topk_weights, stream);
}

absl::Status GatherRows(Backend& backend, ConstTensor src, ConstTensor row_ids,
                        Tensor out, Stream& stream) {
  const ArgumentCheck check("GatherRows");
  OCTET_RETURN_IF_ERROR(check.TensorIs("src", src, {kAny, kAny},
                                       {DType::kF32, DType::kBF16, DType::kF16,
                                        DType::kI32, DType::kI64, DType::kU8}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("row_ids", row_ids, {kAny}, {DType::kI32}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("out", out, {row_ids.dim(0), src.dim(1)}, {src.dtype()}));
  if (row_ids.dim(0) == 0) return absl::OkStatus();
  return backend.GatherRows(src, row_ids, out, stream);
}

absl::Status CombineRows(Backend& backend, ConstTensor rows,
                         ConstTensor slot_rows, ConstTensor weights, Tensor out,
                         Stream& stream) {
  const ArgumentCheck check("CombineRows");
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("rows", rows, {kAny, kAny}, {DType::kF32, DType::kBF16}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("slot_rows", slot_rows, {kAny, kAny}, {DType::kI32}));
  OCTET_RETURN_IF_ERROR(check.TensorIs(
      "weights", weights, {slot_rows.dim(0), slot_rows.dim(1)}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(check.TensorIs(
      "out", out, {slot_rows.dim(0), rows.dim(1)}, {DType::kF32}));
  if (slot_rows.dim(0) == 0) return absl::OkStatus();
  return backend.CombineRows(rows, slot_rows, weights, out, stream);
}

absl::Status Sample(Backend& backend, ConstTensor logits,
                    absl::Span<const SamplingRow> rows,
                    std::vector<SampledToken>* out, Stream& stream) {
  const ArgumentCheck check("Sample");
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("logits", logits,
                     {static_cast<int64_t>(rows.size()), kAny}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(
      check.Require(out != nullptr, "out", "null", "a vector"));
  for (size_t i = 0; i < rows.size(); ++i) {
    OCTET_RETURN_IF_ERROR(
        CheckSamplingRow(check, Element("rows", i), rows[i], logits.dim(1)));
  }
  if (rows.empty()) {
    out->clear();
    return absl::OkStatus();
  }
  OCTET_RETURN_IF_ERROR(check.Require(logits.dim(1) > 0, "V", 0, "1 or more"));
  return backend.Sample(logits, rows, out, stream);
}

absl::Status ScoreTokens(Backend& backend, ConstTensor logits,
                         absl::Span<const int32_t> targets,
                         absl::Span<const int> num_logprobs,
                         std::vector<TokenLogprobs>* out, Stream& stream) {
  const ArgumentCheck check("ScoreTokens");
  OCTET_RETURN_IF_ERROR(check.TensorIs(
      "logits", logits, {static_cast<int64_t>(targets.size()), kAny},
      {DType::kF32}));
  OCTET_RETURN_IF_ERROR(
      check.Require(out != nullptr, "out", "null", "a vector"));
  OCTET_RETURN_IF_ERROR(CheckIds(check, "targets", targets, logits.dim(1)));
  OCTET_RETURN_IF_ERROR(check.Require(num_logprobs.size() == targets.size(),
                                      "the number of num_logprobs",
                                      num_logprobs.size(), targets.size()));
  for (size_t i = 0; i < num_logprobs.size(); ++i) {
    OCTET_RETURN_IF_ERROR(check.Require(num_logprobs[i] >= 0,
                                        Element("num_logprobs", i),
                                        num_logprobs[i], "0 or more"));
  }
  if (targets.empty()) {
    out->clear();
    return absl::OkStatus();
  }
  return backend.ScoreTokens(logits, targets, num_logprobs, out, stream);
}

}  // namespace octet::ops
