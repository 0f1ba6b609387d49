#include "kernels/cpu/cpu_training.h"

#include "base/status_macros.h"
#include "kernels/cpu/attention_backward.h"
#include "kernels/cpu/combine_backward.h"
#include "kernels/cpu/cpu_objects.h"
#include "kernels/cpu/cross_entropy.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/embedding_backward.h"
#include "kernels/cpu/gemm_backward.h"
#include "kernels/cpu/optimizer.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/repack.h"
#include "kernels/cpu/rms_norm_backward.h"
#include "kernels/cpu/rope_backward.h"
#include "kernels/cpu/router_backward.h"
#include "kernels/cpu/swiglu.h"

namespace octet::cpu {

absl::Status CpuTraining::GroupedGemmAccumulate(
    ConstTensor x, absl::Span<const PackedMatrix* const> w,
    absl::Span<const int64_t> row_offsets, Tensor out, Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  OCTET_RETURN_IF_ERROR(CheckMatrices(w));
  return cpu::GroupedGemm(x, w, row_offsets, /*accumulate=*/true, out, gemm_);
}

absl::Status CpuTraining::GemmBackwardInput(ConstTensor dy,
                                            const PackedMatrix& w,
                                            bool accumulate, Tensor dx,
                                            Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  OCTET_RETURN_IF_ERROR(CheckMatrix(w));
  return cpu::GemmBackwardInput(dy, w, accumulate, dx, gemm_);
}

absl::Status CpuTraining::GroupedGemmBackwardInput(
    ConstTensor dy, absl::Span<const PackedMatrix* const> w,
    absl::Span<const int64_t> row_offsets, bool accumulate, Tensor dx,
    Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  OCTET_RETURN_IF_ERROR(CheckMatrices(w));
  return cpu::GroupedGemmBackwardInput(dy, w, row_offsets, accumulate, dx,
                                       gemm_);
}

absl::Status CpuTraining::GemmBackwardWeight(ConstTensor x, ConstTensor dy,
                                             float scale, bool accumulate,
                                             Tensor dw, Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  return cpu::GemmBackwardWeight(x, dy, scale, accumulate, dw, gemm_);
}

absl::Status CpuTraining::SwiGlu(ConstTensor h, Tensor out, Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  cpu::SwiGlu(context_, h, out);
  return absl::OkStatus();
}

absl::Status CpuTraining::SwiGluBackward(ConstTensor h, ConstTensor dout,
                                         Tensor dh, Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  cpu::SwiGluBackward(context_, h, dout, dh);
  return absl::OkStatus();
}

absl::Status CpuTraining::RmsNormBackward(ConstTensor x, ConstTensor weight,
                                          float eps, ConstTensor dy, Tensor dx,
                                          Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  cpu::RmsNormBackward(context_, x, weight, eps, dy, dx);
  return absl::OkStatus();
}

absl::Status CpuTraining::RmsNormBackwardWeight(ConstTensor x, float eps,
                                                ConstTensor dy, bool accumulate,
                                                Tensor dweight,
                                                Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  cpu::RmsNormBackwardWeight(context_, x, eps, dy, accumulate, dweight);
  return absl::OkStatus();
}

absl::Status CpuTraining::AttentionBackward(
    ConstTensor q, const KvCacheView& cache,
    absl::Span<const AttentionSequence> sequences, int sliding_window,
    ConstTensor out, ConstTensor dout, Tensor dq, Tensor dk, Tensor dv,
    Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  return cpu::AttentionBackward(context_, q, cache, sequences, sliding_window,
                                out, dout, dq, dk, dv);
}

absl::Status CpuTraining::RopeBackward(ConstTensor dq, ConstTensor dk,
                                       ConstTensor dv, ConstTensor positions,
                                       const RopeParams& params, Tensor dqkv,
                                       Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  return cpu::RopeBackward(context_, rope_table_, dq, dk, dv, positions, params,
                           dqkv);
}

absl::Status CpuTraining::RouterBackward(ConstTensor topk_ids,
                                         ConstTensor topk_weights,
                                         ConstTensor dweights, Tensor dlogits,
                                         Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  return cpu::RouterBackward(context_, topk_ids, topk_weights, dweights,
                             dlogits);
}

absl::Status CpuTraining::RouterProbabilities(ConstTensor logits,
                                              Tensor probabilities,
                                              Tensor log_sums, Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  cpu::RouterProbabilities(context_, logits, probabilities, log_sums);
  return absl::OkStatus();
}

absl::Status CpuTraining::RouterLossBackward(ConstTensor logits,
                                             ConstTensor coef, float z_coef,
                                             Tensor dlogits, Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  cpu::RouterLossBackward(context_, logits, coef, z_coef, dlogits);
  return absl::OkStatus();
}

absl::Status CpuTraining::SlotDots(ConstTensor x, ConstTensor rows,
                                   ConstTensor slot_rows, Tensor dots,
                                   Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  return cpu::SlotDots(context_, x, rows, slot_rows, dots);
}

absl::Status CpuTraining::ScaleRows(ConstTensor x, ConstTensor scales,
                                    Tensor out, Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  cpu::ScaleRows(context_, x, scales, out);
  return absl::OkStatus();
}

absl::Status CpuTraining::CrossEntropy(ConstTensor logits, ConstTensor targets,
                                       ConstTensor scales, Tensor losses,
                                       Tensor dlogits, Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  return cpu::CrossEntropy(context_, logits, targets, scales, losses, dlogits);
}

absl::Status CpuTraining::EmbeddingBackward(ConstTensor dx, ConstTensor ids,
                                            Tensor dtable, Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  return cpu::EmbeddingBackward(context_, dx, ids, dtable);
}

absl::Status CpuTraining::Cast(ConstTensor x, Tensor out, Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  cpu::Cast(context_, x, out);
  return absl::OkStatus();
}

absl::Status CpuTraining::AddScaled(ConstTensor x, float scale, Tensor out,
                                    Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  cpu::AddScaled(context_, x, scale, out);
  return absl::OkStatus();
}

absl::Status CpuTraining::CopyBlock(ConstTensor src, MatrixBlock src_at,
                                    Tensor dst, MatrixBlock dst_at,
                                    int64_t num_rows, int64_t num_cols,
                                    bool accumulate, Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  cpu::CopyBlock(context_, src, src_at, dst, dst_at, num_rows, num_cols,
                 accumulate);
  return absl::OkStatus();
}

absl::Status CpuTraining::Dropout(ConstTensor x, ConstTensor row_keys,
                                  uint64_t seed, float p, bool accumulate,
                                  Tensor out, Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  cpu::Dropout(context_, x, row_keys, seed, p, accumulate, out);
  return absl::OkStatus();
}

absl::Status CpuTraining::SumOfSquares(ConstTensor x, std::vector<double>* sums,
                                       Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  cpu::SumOfSquares(context_, x, sums);
  return absl::OkStatus();
}

absl::Status CpuTraining::AdamW(const AdamWParams& params, ConstTensor grad,
                                Tensor weight, Tensor m, Tensor v,
                                Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  cpu::AdamW(context_, params, grad, weight, m, v);
  return absl::OkStatus();
}

absl::Status CpuTraining::Repack(PackedMatrix& matrix, int64_t row_begin,
                                 ConstTensor rows, Stream& stream) {
  OCTET_RETURN_IF_ERROR(CheckStream(stream));
  OCTET_RETURN_IF_ERROR(CheckOwned(matrix));
  auto* packed = dynamic_cast<CpuPackedMatrix*>(&matrix);
  if (!packed) {
    return absl::FailedPreconditionError(
        "Repack: the matrix is in NF4, expected one in its compute dtype: "
        "quantised weights are not trained");
  }
  return cpu::Repack(context_, *packed, row_begin, rows);
}

}  // namespace octet::cpu
