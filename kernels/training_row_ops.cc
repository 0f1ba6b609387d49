// The operations of kernels/training_ops.h from the router on.
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/argument_check.h"
#include "kernels/training_ops.h"

namespace octet::train_ops {
namespace {

constexpr int64_t kAny = ArgumentCheck::kAny;

// logits [T, E], E >= 1.
absl::Status CheckLogits(const ArgumentCheck& check, ConstTensor logits,
                         absl::string_view columns) {
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("logits", logits, {kAny, kAny}, {DType::kF32}));
  return check.Require(logits.dim(1) > 0, columns, logits.dim(1), "1 or more");
}

// The rectangle is within a f32 matrix.
absl::Status CheckBlock(const ArgumentCheck& check, absl::string_view argument,
                        ConstTensor matrix, MatrixBlock at, int64_t num_rows,
                        int64_t num_cols) {
  OCTET_RETURN_IF_ERROR(
      check.TensorIs(argument, matrix, {kAny, kAny}, {DType::kF32}));
  return check.Require(at.row >= 0 && at.col >= 0 &&
                           at.row <= matrix.dim(0) - num_rows &&
                           at.col <= matrix.dim(1) - num_cols,
                       absl::StrCat("the block of ", argument),
                       absl::StrCat("[", num_rows, ", ", num_cols, "] at (",
                                    at.row, ", ", at.col, ")"),
                       absl::StrCat("one within ", matrix.ToString()));
}

absl::Status CheckAdamWParams(const ArgumentCheck& check,
                              const AdamWParams& params) {
  // Written so that NaN fails.
  const auto not_negative = [&](absl::string_view name, float value) {
    return check.Require(value >= 0.0f && std::isfinite(value), name, value,
                         "0 or more");
  };
  const auto below_one = [&](absl::string_view name, float value) {
    return check.Require(value >= 0.0f && value < 1.0f, name, value,
                         "0 or more and less than 1");
  };
  OCTET_RETURN_IF_ERROR(
      not_negative("params.learning_rate", params.learning_rate));
  OCTET_RETURN_IF_ERROR(below_one("params.beta1", params.beta1));
  OCTET_RETURN_IF_ERROR(below_one("params.beta2", params.beta2));
  OCTET_RETURN_IF_ERROR(not_negative("params.eps", params.eps));
  OCTET_RETURN_IF_ERROR(
      not_negative("params.weight_decay", params.weight_decay));
  OCTET_RETURN_IF_ERROR(check.Require(std::isfinite(params.grad_scale),
                                      "params.grad_scale", params.grad_scale,
                                      "finite"));
  return check.Require(params.step >= 1, "params.step", params.step,
                       "1 or more");
}

}  // namespace

absl::Status RouterBackward(TrainingBackend& backend, ConstTensor topk_ids,
                            ConstTensor topk_weights, ConstTensor dweights,
                            Tensor dlogits, Stream& stream) {
  const ArgumentCheck check("RouterBackward");
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("topk_ids", topk_ids, {kAny, kAny}, {DType::kI32}));
  const int64_t rows = topk_ids.dim(0);
  const int64_t top_k = topk_ids.dim(1);
  OCTET_RETURN_IF_ERROR(check.TensorIs("topk_weights", topk_weights,
                                       {rows, top_k}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("dweights", dweights, {rows, top_k}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("dlogits", dlogits, {rows, kAny}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(check.Require(
      top_k >= 1 && top_k <= dlogits.dim(1), "K", top_k,
      absl::StrCat("1 to ", dlogits.dim(1), ", the number of experts")));
  if (rows == 0) return absl::OkStatus();
  return backend.RouterBackward(topk_ids, topk_weights, dweights, dlogits,
                                stream);
}

absl::Status RouterProbabilities(TrainingBackend& backend, ConstTensor logits,
                                 Tensor probabilities, Tensor log_sums,
                                 Stream& stream) {
  const ArgumentCheck check("RouterProbabilities");
  OCTET_RETURN_IF_ERROR(CheckLogits(check, logits, "E"));
  OCTET_RETURN_IF_ERROR(check.TensorIs("probabilities", probabilities,
                                       {logits.dim(0), logits.dim(1)},
                                       {DType::kF32}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("log_sums", log_sums, {logits.dim(0)}, {DType::kF32}));
  if (logits.dim(0) == 0) return absl::OkStatus();
  return backend.RouterProbabilities(logits, probabilities, log_sums, stream);
}

absl::Status RouterLossBackward(TrainingBackend& backend, ConstTensor logits,
                                ConstTensor coef, float z_coef, Tensor dlogits,
                                Stream& stream) {
  const ArgumentCheck check("RouterLossBackward");
  OCTET_RETURN_IF_ERROR(CheckLogits(check, logits, "E"));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("coef", coef, {logits.dim(1)}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(check.TensorIs(
      "dlogits", dlogits, {logits.dim(0), logits.dim(1)}, {DType::kF32}));
  if (logits.dim(0) == 0) return absl::OkStatus();
  return backend.RouterLossBackward(logits, coef, z_coef, dlogits, stream);
}

absl::Status SlotDots(TrainingBackend& backend, ConstTensor x, ConstTensor rows,
                      ConstTensor slot_rows, Tensor dots, Stream& stream) {
  const ArgumentCheck check("SlotDots");
  OCTET_RETURN_IF_ERROR(check.TensorIs("x", x, {kAny, kAny}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(check.TensorIs("rows", rows, {kAny, x.dim(1)},
                                       {DType::kF32, DType::kBF16}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("slot_rows", slot_rows, {x.dim(0), kAny}, {DType::kI32}));
  OCTET_RETURN_IF_ERROR(check.TensorIs(
      "dots", dots, {x.dim(0), slot_rows.dim(1)}, {DType::kF32}));
  if (dots.num_elements() == 0) return absl::OkStatus();
  return backend.SlotDots(x, rows, slot_rows, dots, stream);
}

absl::Status ScaleRows(TrainingBackend& backend, ConstTensor x,
                       ConstTensor scales, Tensor out, Stream& stream) {
  const ArgumentCheck check("ScaleRows");
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("x", x, {kAny, kAny}, {DType::kF32, DType::kBF16}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("scales", scales, {x.dim(0)}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(check.TensorIs("out", out, {x.dim(0), x.dim(1)},
                                       {DType::kF32, DType::kBF16}));
  if (x.dim(0) == 0) return absl::OkStatus();
  return backend.ScaleRows(x, scales, out, stream);
}

absl::Status CrossEntropy(TrainingBackend& backend, ConstTensor logits,
                          ConstTensor targets, ConstTensor scales,
                          Tensor losses, Tensor dlogits, Stream& stream) {
  const ArgumentCheck check("CrossEntropy");
  OCTET_RETURN_IF_ERROR(CheckLogits(check, logits, "V"));
  const int64_t rows = logits.dim(0);
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("targets", targets, {rows}, {DType::kI32}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("scales", scales, {rows}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("losses", losses, {rows}, {DType::kF32}));
  if (dlogits.data() != nullptr) {
    OCTET_RETURN_IF_ERROR(check.TensorIs("dlogits", dlogits,
                                         {rows, logits.dim(1)},
                                         {DType::kF32, DType::kBF16}));
  }
  if (rows == 0) return absl::OkStatus();
  return backend.CrossEntropy(logits, targets, scales, losses, dlogits, stream);
}

absl::Status EmbeddingBackward(TrainingBackend& backend, ConstTensor dx,
                               ConstTensor ids, Tensor dtable, Stream& stream) {
  const ArgumentCheck check("EmbeddingBackward");
  OCTET_RETURN_IF_ERROR(check.TensorIs("dx", dx, {kAny, kAny}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(check.TensorIs("ids", ids, {dx.dim(0)}, {DType::kI32}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("dtable", dtable, {kAny, dx.dim(1)}, {DType::kF32}));
  if (dx.dim(0) == 0) return absl::OkStatus();
  return backend.EmbeddingBackward(dx, ids, dtable, stream);
}

absl::Status Cast(TrainingBackend& backend, ConstTensor x, Tensor out,
                  Stream& stream) {
  const ArgumentCheck check("Cast");
  OCTET_RETURN_IF_ERROR(
      check.ElementsAre("x", x, kAny, {DType::kF32, DType::kBF16}));
  OCTET_RETURN_IF_ERROR(check.ElementsAre("out", out, x.num_elements(),
                                          {DType::kF32, DType::kBF16}));
  if (x.num_elements() == 0) return absl::OkStatus();
  return backend.Cast(x, out, stream);
}

absl::Status AddScaled(TrainingBackend& backend, ConstTensor x, float scale,
                       Tensor out, Stream& stream) {
  const ArgumentCheck check("AddScaled");
  OCTET_RETURN_IF_ERROR(check.ElementsAre("x", x, kAny, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(
      check.ElementsAre("out", out, x.num_elements(), {DType::kF32}));
  if (x.num_elements() == 0) return absl::OkStatus();
  return backend.AddScaled(x, scale, out, stream);
}

absl::Status CopyBlock(TrainingBackend& backend, ConstTensor src,
                       MatrixBlock src_at, Tensor dst, MatrixBlock dst_at,
                       int64_t num_rows, int64_t num_cols, bool accumulate,
                       Stream& stream) {
  const ArgumentCheck check("CopyBlock");
  OCTET_RETURN_IF_ERROR(
      check.Require(num_rows >= 0, "num_rows", num_rows, "0 or more"));
  OCTET_RETURN_IF_ERROR(
      check.Require(num_cols >= 0, "num_cols", num_cols, "0 or more"));
  OCTET_RETURN_IF_ERROR(
      CheckBlock(check, "src", src, src_at, num_rows, num_cols));
  OCTET_RETURN_IF_ERROR(
      CheckBlock(check, "dst", dst, dst_at, num_rows, num_cols));
  if (num_rows == 0 || num_cols == 0) return absl::OkStatus();
  return backend.CopyBlock(src, src_at, dst, dst_at, num_rows, num_cols,
                           accumulate, stream);
}

absl::Status Dropout(TrainingBackend& backend, ConstTensor x,
                     ConstTensor row_keys, uint64_t seed, float p,
                     bool accumulate, Tensor out, Stream& stream) {
  const ArgumentCheck check("Dropout");
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("x", x, {kAny, kAny}, {DType::kF32, DType::kBF16}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("row_keys", row_keys, {x.dim(0)}, {DType::kI64}));
  OCTET_RETURN_IF_ERROR(check.Require(p >= 0.0f && p < 1.0f, "p", p,
                                      "0 or more and less than 1"));
  if (accumulate) {
    OCTET_RETURN_IF_ERROR(
        check.TensorIs("out", out, {x.dim(0), x.dim(1)}, {DType::kF32}));
  } else {
    OCTET_RETURN_IF_ERROR(check.TensorIs("out", out, {x.dim(0), x.dim(1)},
                                         {DType::kF32, DType::kBF16}));
  }
  if (x.num_elements() == 0) return absl::OkStatus();
  return backend.Dropout(x, row_keys, seed, p, accumulate, out, stream);
}

absl::Status SumOfSquares(TrainingBackend& backend, ConstTensor x,
                          std::vector<double>* sums, Stream& stream) {
  const ArgumentCheck check("SumOfSquares");
  OCTET_RETURN_IF_ERROR(check.ElementsAre("x", x, kAny, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(
      check.Require(sums != nullptr, "sums", "null", "a vector"));
  if (x.num_elements() == 0) {
    sums->clear();
    return absl::OkStatus();
  }
  return backend.SumOfSquares(x, sums, stream);
}

absl::Status AdamW(TrainingBackend& backend, const AdamWParams& params,
                   ConstTensor grad, Tensor weight, Tensor m, Tensor v,
                   Stream& stream) {
  const ArgumentCheck check("AdamW");
  OCTET_RETURN_IF_ERROR(CheckAdamWParams(check, params));
  OCTET_RETURN_IF_ERROR(check.TensorIs("grad", grad, {kAny}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("weight", weight, {grad.dim(0)}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(check.TensorIs("m", m, {grad.dim(0)}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(check.TensorIs("v", v, {grad.dim(0)}, {DType::kF32}));
  if (grad.dim(0) == 0) return absl::OkStatus();
  return backend.AdamW(params, grad, weight, m, v, stream);
}

absl::Status Repack(TrainingBackend& backend, PackedMatrix& matrix,
                    int64_t row_begin, ConstTensor rows, Stream& stream) {
  const ArgumentCheck check("Repack");
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("rows", rows, {kAny, matrix.k()}, {DType::kF32}));
  OCTET_RETURN_IF_ERROR(check.Require(
      row_begin >= 0 && row_begin <= matrix.n() - rows.dim(0), "the row range",
      absl::StrCat(row_begin, " + ", rows.dim(0)),
      absl::StrCat("within the matrix's ", matrix.n(), " rows")));
  if (rows.num_elements() == 0) return absl::OkStatus();
  return backend.Repack(matrix, row_begin, rows, stream);
}

}  // namespace octet::train_ops
