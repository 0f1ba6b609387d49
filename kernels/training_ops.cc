#include "kernels/training_ops.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/argument_check.h"

namespace octet::train_ops {
namespace {

constexpr int64_t kAny = ArgumentCheck::kAny;

// "dx" of a product, whose columns are the matrices' inputs.
absl::Status CheckProductOut(const ArgumentCheck& check,
                             absl::string_view argument, Tensor out,
                             int64_t rows, int64_t cols, bool accumulate) {
  if (accumulate) {
    return check.TensorIs(argument, out, {rows, cols}, {DType::kF32});
  }
  return check.TensorIs(argument, out, {rows, cols},
                        {DType::kF32, DType::kBF16});
}

absl::Status CheckEps(const ArgumentCheck& check, float eps) {
  // Written so that NaN fails.
  return check.Require(eps >= 0.0f && std::isfinite(eps), "eps", eps,
                       "0 or more");
}

// [T, H] of the cache's heads, as of q.
absl::Status CheckAttentionShapes(const ArgumentCheck& check, ConstTensor q,
                                  const KvCacheView& cache, ConstTensor out,
                                  ConstTensor dout, Tensor dq, Tensor dk,
                                  Tensor dv) {
  const int64_t rows = q.dim(0);
  const int64_t kv_row = int64_t{cache.num_kv_heads} * cache.head_dim;
  OCTET_RETURN_IF_ERROR(check.Require(
      q.dim(1) > 0 && q.dim(1) % kv_row == 0, "the row length of q", q.dim(1),
      absl::StrCat("a multiple of ", kv_row, ", the cache's N_kv D")));
  OCTET_RETURN_IF_ERROR(check.TensorIs("out", out, {rows, q.dim(1)},
                                       {DType::kF32, DType::kBF16}));
  OCTET_RETURN_IF_ERROR(check.TensorIs("dout", dout, {rows, q.dim(1)},
                                       {DType::kF32, DType::kBF16}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("dq", dq, {rows, q.dim(1)}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("dk", dk, {rows, kv_row}, {DType::kF32}));
  return check.TensorIs("dv", dv, {rows, kv_row}, {DType::kF32});
}

}  // namespace

absl::Status GroupedGemmAccumulate(TrainingBackend& backend, ConstTensor x,
                                   absl::Span<const PackedMatrix* const> w,
                                   absl::Span<const int64_t> row_offsets,
                                   Tensor out, Stream& stream) {
  const ArgumentCheck check("GroupedGemmAccumulate");
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("x", x, {kAny, kAny}, {DType::kF32, DType::kBF16}));
  OCTET_RETURN_IF_ERROR(check.MatricesAre("w", w, x.dim(1), x.dtype()));
  OCTET_RETURN_IF_ERROR(
      check.RowOffsetsAre(row_offsets, w.size(), "x", x.dim(0)));
  OCTET_RETURN_IF_ERROR(CheckProductOut(check, "out", out, x.dim(0),
                                        w.empty() ? kAny : w[0]->n(),
                                        /*accumulate=*/true));
  if (x.dim(0) == 0) return absl::OkStatus();
  return backend.GroupedGemmAccumulate(x, w, row_offsets, out, stream);
}

absl::Status GemmBackwardInput(TrainingBackend& backend, ConstTensor dy,
                               const PackedMatrix& w, bool accumulate,
                               Tensor dx, Stream& stream) {
  const ArgumentCheck check("GemmBackwardInput");
  OCTET_RETURN_IF_ERROR(check.TensorIs("dy", dy, {kAny, w.n()}, {w.dtype()}));
  OCTET_RETURN_IF_ERROR(
      CheckProductOut(check, "dx", dx, dy.dim(0), w.k(), accumulate));
  if (dy.dim(0) == 0) return absl::OkStatus();
  return backend.GemmBackwardInput(dy, w, accumulate, dx, stream);
}

absl::Status GroupedGemmBackwardInput(TrainingBackend& backend, ConstTensor dy,
                                      absl::Span<const PackedMatrix* const> w,
                                      absl::Span<const int64_t> row_offsets,
                                      bool accumulate, Tensor dx,
                                      Stream& stream) {
  const ArgumentCheck check("GroupedGemmBackwardInput");
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("dy", dy, {kAny, kAny}, {DType::kF32, DType::kBF16}));
  if (!w.empty() && w[0] != nullptr) {
    OCTET_RETURN_IF_ERROR(check.MatricesAre("w", w, w[0]->k(), dy.dtype()));
    OCTET_RETURN_IF_ERROR(
        check.Require(dy.dim(1) == w[0]->n(), "the row length of dy", dy.dim(1),
                      absl::StrCat(w[0]->n(), ", the rows of w")));
  } else {
    OCTET_RETURN_IF_ERROR(check.MatricesAre("w", w, 0, dy.dtype()));
  }
  OCTET_RETURN_IF_ERROR(
      check.RowOffsetsAre(row_offsets, w.size(), "dy", dy.dim(0)));
  OCTET_RETURN_IF_ERROR(CheckProductOut(
      check, "dx", dx, dy.dim(0), w.empty() ? kAny : w[0]->k(), accumulate));
  if (dy.dim(0) == 0) return absl::OkStatus();
  return backend.GroupedGemmBackwardInput(dy, w, row_offsets, accumulate, dx,
                                          stream);
}

absl::Status GemmBackwardWeight(TrainingBackend& backend, ConstTensor x,
                                ConstTensor dy, float scale, bool accumulate,
                                Tensor dw, Stream& stream) {
  const ArgumentCheck check("GemmBackwardWeight");
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("x", x, {kAny, kAny}, {DType::kF32, DType::kBF16}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("dy", dy, {x.dim(0), kAny}, {x.dtype()}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("dw", dw, {dy.dim(1), x.dim(1)}, {DType::kF32}));
  if (dw.num_elements() == 0 || (x.dim(0) == 0 && accumulate)) {
    return absl::OkStatus();
  }
  return backend.GemmBackwardWeight(x, dy, scale, accumulate, dw, stream);
}

absl::Status SwiGlu(TrainingBackend& backend, ConstTensor h, Tensor out,
                    Stream& stream) {
  const ArgumentCheck check("SwiGlu");
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("h", h, {kAny, kAny}, {DType::kF32, DType::kBF16}));
  OCTET_RETURN_IF_ERROR(check.Require(h.dim(1) % 2 == 0, "the row length of h",
                                      h.dim(1), "even"));
  OCTET_RETURN_IF_ERROR(check.TensorIs("out", out, {h.dim(0), h.dim(1) / 2},
                                       {DType::kF32, DType::kBF16}));
  if (h.dim(0) == 0) return absl::OkStatus();
  return backend.SwiGlu(h, out, stream);
}

absl::Status SwiGluBackward(TrainingBackend& backend, ConstTensor h,
                            ConstTensor dout, Tensor dh, Stream& stream) {
  const ArgumentCheck check("SwiGluBackward");
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("h", h, {kAny, kAny}, {DType::kF32, DType::kBF16}));
  OCTET_RETURN_IF_ERROR(check.Require(h.dim(1) % 2 == 0, "the row length of h",
                                      h.dim(1), "even"));
  OCTET_RETURN_IF_ERROR(check.TensorIs("dout", dout, {h.dim(0), h.dim(1) / 2},
                                       {DType::kF32, DType::kBF16}));
  OCTET_RETURN_IF_ERROR(check.TensorIs("dh", dh, {h.dim(0), h.dim(1)},
                                       {DType::kF32, DType::kBF16}));
  if (h.dim(0) == 0) return absl::OkStatus();
  return backend.SwiGluBackward(h, dout, dh, stream);
}

absl::Status RmsNormBackward(TrainingBackend& backend, ConstTensor x,
                             ConstTensor weight, float eps, ConstTensor dy,
                             Tensor dx, Stream& stream) {
  const ArgumentCheck check("RmsNormBackward");
  OCTET_RETURN_IF_ERROR(check.TensorIs("x", x, {kAny, kAny}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("weight", weight, {x.dim(1)}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(CheckEps(check, eps));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("dy", dy, {x.dim(0), x.dim(1)}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("dx", dx, {x.dim(0), x.dim(1)}, {DType::kF32}));
  if (x.dim(0) == 0) return absl::OkStatus();
  return backend.RmsNormBackward(x, weight, eps, dy, dx, stream);
}

absl::Status RmsNormBackwardWeight(TrainingBackend& backend, ConstTensor x,
                                   float eps, ConstTensor dy, bool accumulate,
                                   Tensor dweight, Stream& stream) {
  const ArgumentCheck check("RmsNormBackwardWeight");
  OCTET_RETURN_IF_ERROR(check.TensorIs("x", x, {kAny, kAny}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(CheckEps(check, eps));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("dy", dy, {x.dim(0), x.dim(1)}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("dweight", dweight, {x.dim(1)}, {DType::kF32}));
  if (x.dim(1) == 0 || (x.dim(0) == 0 && accumulate)) return absl::OkStatus();
  return backend.RmsNormBackwardWeight(x, eps, dy, accumulate, dweight, stream);
}

absl::Status AttentionBackward(TrainingBackend& backend, ConstTensor q,
                               const KvCacheView& cache,
                               absl::Span<const AttentionSequence> sequences,
                               int sliding_window, ConstTensor out,
                               ConstTensor dout, Tensor dq, Tensor dk,
                               Tensor dv, Stream& stream) {
  const ArgumentCheck check("AttentionBackward");
  OCTET_RETURN_IF_ERROR(check.CacheIsValid(cache));
  OCTET_RETURN_IF_ERROR(check.Require(sliding_window >= 0, "sliding_window",
                                      sliding_window, "0 (off) or more"));
  OCTET_RETURN_IF_ERROR(check.TensorIs("q", q, {kAny, kAny}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(
      CheckAttentionShapes(check, q, cache, out, dout, dq, dk, dv));
  for (size_t i = 0; i < sequences.size(); ++i) {
    OCTET_RETURN_IF_ERROR(
        check.Require(sequences[i].first_position == 0,
                      absl::StrCat(Element("sequences", i), ".first_position"),
                      sequences[i].first_position, 0));
  }
  OCTET_RETURN_IF_ERROR(
      check.SequencesAre(sequences, q.dim(0), cache, sliding_window));
  if (q.dim(0) == 0) return absl::OkStatus();
  return backend.AttentionBackward(q, cache, sequences, sliding_window, out,
                                   dout, dq, dk, dv, stream);
}

absl::Status RopeBackward(TrainingBackend& backend, ConstTensor dq,
                          ConstTensor dk, ConstTensor dv, ConstTensor positions,
                          const RopeParams& params, Tensor dqkv,
                          Stream& stream) {
  const ArgumentCheck check("RopeBackward");
  OCTET_RETURN_IF_ERROR(check.RopeIs(params));
  OCTET_RETURN_IF_ERROR(check.Require(params.num_kv_heads > 0,
                                      "params.num_kv_heads",
                                      params.num_kv_heads, "1 or more"));
  const int64_t q_row = int64_t{params.num_heads} * params.head_dim;
  const int64_t kv_row = int64_t{params.num_kv_heads} * params.head_dim;
  OCTET_RETURN_IF_ERROR(check.TensorIs("dq", dq, {kAny, q_row}, {DType::kF32}));
  const int64_t rows = dq.dim(0);
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("dk", dk, {rows, kv_row}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("dv", dv, {rows, kv_row}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("positions", positions, {rows}, {DType::kI32}));
  OCTET_RETURN_IF_ERROR(check.TensorIs("dqkv", dqkv, {rows, q_row + 2 * kv_row},
                                       {DType::kF32, DType::kBF16}));
  if (rows == 0) return absl::OkStatus();
  return backend.RopeBackward(dq, dk, dv, positions, params, dqkv, stream);
}

}  // namespace octet::train_ops
