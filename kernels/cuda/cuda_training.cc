#include "kernels/cuda/cuda_training.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/adamw_step.h"
#include "kernels/cuda/attention_backward_plan.h"
#include "kernels/cuda/combine_backward.h"
#include "kernels/cuda/cross_entropy.h"
#include "kernels/cuda/cuda_objects.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/embedding_backward.h"
#include "kernels/cuda/gemm_backward.h"
#include "kernels/cuda/optimizer.h"
#include "kernels/cuda/rms_norm_backward.h"
#include "kernels/cuda/rope_backward.h"
#include "kernels/cuda/router_backward.h"
#include "kernels/cuda/swiglu.h"
#include "kernels/weight_rows.h"

namespace octet::cuda {
namespace {

bool IsBf16(ConstTensor tensor) { return tensor.dtype() == DType::kBF16; }
ConstElements Of(ConstTensor tensor) { return {tensor.data(), IsBf16(tensor)}; }
Elements To(Tensor tensor) { return {tensor.data(), IsBf16(tensor)}; }

// dx rows [begin, end) of dy W.
GemmBackwardArgs InputArgs(ConstTensor dy, const CudaPackedMatrix& w,
                           bool accumulate, Tensor dx, int64_t begin,
                           int64_t end) {
  GemmBackwardArgs args;
  args.num_rows = end - begin;
  args.num_cols = w.k();
  args.depth = w.n();
  args.a = dy.Rows(begin, args.num_rows).data();
  args.b = w.data();
  args.out = To(dx.Rows(begin, args.num_rows));
  args.ld_a = w.n();
  args.ld_b = w.ld();
  args.is_bf16 = w.dtype() == DType::kBF16;
  args.accumulate = accumulate;
  return args;
}

}  // namespace

absl::Status CudaTraining::GroupedGemmAccumulate(
    ConstTensor x, absl::Span<const PackedMatrix* const> w,
    absl::Span<const int64_t> row_offsets, Tensor out, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, EnterStream(stream, device_));
  OCTET_RETURN_IF_ERROR(CheckMatrices(w));
  return gemm_.GroupedGemmAccumulate(x, w, row_offsets, out, on->get());
}

absl::Status CudaTraining::GemmBackwardInput(ConstTensor dy,
                                             const PackedMatrix& w,
                                             bool accumulate, Tensor dx,
                                             Stream& stream) {
  const PackedMatrix* const matrices[] = {&w};
  const int64_t offsets[] = {0, dy.dim(0)};
  return GroupedGemmBackwardInput(dy, matrices, offsets, accumulate, dx,
                                  stream);
}

absl::Status CudaTraining::GroupedGemmBackwardInput(
    ConstTensor dy, absl::Span<const PackedMatrix* const> w,
    absl::Span<const int64_t> row_offsets, bool accumulate, Tensor dx,
    Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, EnterStream(stream, device_));
  OCTET_RETURN_IF_ERROR(CheckMatrices(w));
  for (size_t g = 0; g < w.size(); ++g) {
    const GemmBackwardArgs args =
        InputArgs(dy, static_cast<const CudaPackedMatrix&>(*w[g]), accumulate,
                  dx, row_offsets[g], row_offsets[g + 1]);
    OCTET_RETURN_IF_ERROR(CudaStatus(LaunchGemmBackward(args, on->get()),
                                     "launch of GemmBackwardInput"));
  }
  return absl::OkStatus();
}

absl::Status CudaTraining::GemmBackwardWeight(ConstTensor x, ConstTensor dy,
                                              float scale, bool accumulate,
                                              Tensor dw, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, EnterStream(stream, device_));
  GemmBackwardArgs args;
  args.a = dy.data();
  args.b = x.data();
  args.out = To(dw);
  args.num_rows = dw.dim(0);
  args.num_cols = dw.dim(1);
  args.depth = x.dim(0);
  args.ld_a = dy.dim(1);
  args.ld_b = x.dim(1);
  args.scale = scale;
  args.is_bf16 = IsBf16(x);
  args.a_by_cols = true;
  args.accumulate = accumulate;
  return CudaStatus(LaunchGemmBackward(args, on->get()),
                    "launch of GemmBackwardWeight");
}

absl::Status CudaTraining::SwiGlu(ConstTensor h, Tensor out, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, EnterStream(stream, device_));
  return CudaStatus(
      LaunchSwiGlu(Of(h), To(out), out.dim(0), out.dim(1), on->get()),
      "launch of SwiGlu");
}

absl::Status CudaTraining::SwiGluBackward(ConstTensor h, ConstTensor dout,
                                          Tensor dh, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, EnterStream(stream, device_));
  return CudaStatus(LaunchSwiGluBackward(Of(h), Of(dout), To(dh), dout.dim(0),
                                         dout.dim(1), on->get()),
                    "launch of SwiGluBackward");
}

absl::Status CudaTraining::RmsNormBackward(ConstTensor x, ConstTensor weight,
                                           float eps, ConstTensor dy, Tensor dx,
                                           Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, EnterStream(stream, device_));
  RmsNormBackwardArgs args;
  args.x = x.as<float>();
  args.weight = weight.as<float>();
  args.eps = eps;
  args.dy = dy.as<float>();
  args.dx = dx.as<float>();
  args.num_rows = x.dim(0);
  args.hidden = x.dim(1);
  return CudaStatus(LaunchRmsNormBackward(args, on->get()),
                    "launch of RmsNormBackward");
}

absl::Status CudaTraining::RmsNormBackwardWeight(ConstTensor x, float eps,
                                                 ConstTensor dy,
                                                 bool accumulate,
                                                 Tensor dweight,
                                                 Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, EnterStream(stream, device_));
  OCTET_ASSIGN_OR_RETURN(std::byte * scratch,
                         on->Scratch(x.dim(0) * sizeof(float)));
  RmsNormBackwardArgs args;
  args.x = x.as<float>();
  args.eps = eps;
  args.dy = dy.as<float>();
  args.scales = reinterpret_cast<float*>(scratch);
  args.dweight = dweight.as<float>();
  args.accumulate = accumulate;
  args.num_rows = x.dim(0);
  args.hidden = x.dim(1);
  return CudaStatus(LaunchRmsNormBackwardWeight(args, on->get()),
                    "launch of RmsNormBackwardWeight");
}

absl::Status CudaTraining::AttentionBackward(
    ConstTensor q, const KvCacheView& cache,
    absl::Span<const AttentionSequence> sequences, int sliding_window,
    ConstTensor out, ConstTensor dout, Tensor dq, Tensor dk, Tensor dv,
    Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, EnterStream(stream, device_));
  OCTET_RETURN_IF_ERROR(CheckCache("AttentionBackward", cache));
  const int group = static_cast<int>(q.dim(1) / dk.dim(1));
  if (q.dim(0) * group > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "AttentionBackward: q has ", q.dim(0), " rows, expected at most ",
        std::numeric_limits<int32_t>::max() / group, " on the cuda backend"));
  }
  const AttentionBackwardPlan plan(sequences, group, cache.block_tokens);
  if (plan.empty()) return absl::OkStatus();
  OCTET_ASSIGN_OR_RETURN(const std::byte* base, on->UploadPlan(plan.Bytes()));
  OCTET_ASSIGN_OR_RETURN(
      std::byte * scratch,
      on->Scratch(q.dim(0) * group * cache.num_kv_heads * sizeof(float4)));
  const bool cache_is_bf16 = cache.dtype == DType::kBF16;
  AttentionBackwardArgs args;
  args.q = q.as<float>();
  args.out = Of(out);
  args.dout = Of(dout);
  args.keys = {cache.keys, cache_is_bf16};
  args.values = {cache.values, cache_is_bf16};
  args.state = reinterpret_cast<float4*>(scratch);
  args.dq = dq.as<float>();
  args.dk = dk.as<float>();
  args.dv = dv.as<float>();
  args.group = group;
  args.num_kv_heads = cache.num_kv_heads;
  args.head_dim = cache.head_dim;
  args.block_tokens = cache.block_tokens;
  args.window = sliding_window;
  plan.PointTo(base, args);
  return CudaStatus(LaunchAttentionBackward(args, on->get()),
                    "launch of AttentionBackward");
}

absl::Status CudaTraining::RopeBackward(ConstTensor dq, ConstTensor dk,
                                        ConstTensor dv, ConstTensor positions,
                                        const RopeParams& params, Tensor dqkv,
                                        Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, EnterStream(stream, device_));
  RopeBackwardArgs args;
  OCTET_ASSIGN_OR_RETURN(args.table, rope_tables_.For(params, *on));
  args.dq = dq.as<float>();
  args.dk = dk.as<float>();
  args.dv = dv.as<float>();
  args.positions = positions.as<int32_t>();
  args.dqkv = To(dqkv);
  args.num_rows = dq.dim(0);
  args.num_heads = params.num_heads;
  args.num_kv_heads = params.num_kv_heads;
  args.head_dim = params.head_dim;
  return CudaStatus(LaunchRopeBackward(args, on->get()),
                    "launch of RopeBackward");
}

absl::Status CudaTraining::RouterBackward(ConstTensor topk_ids,
                                          ConstTensor topk_weights,
                                          ConstTensor dweights, Tensor dlogits,
                                          Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, EnterStream(stream, device_));
  return CudaStatus(
      LaunchRouterBackward({topk_ids.as<int32_t>(), topk_weights.as<float>(),
                            dweights.as<float>(), dlogits.as<float>(),
                            dlogits.dim(0), topk_ids.dim(1), dlogits.dim(1)},
                           on->get()),
      "launch of RouterBackward");
}

absl::Status CudaTraining::RouterProbabilities(ConstTensor logits,
                                               Tensor probabilities,
                                               Tensor log_sums,
                                               Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, EnterStream(stream, device_));
  return CudaStatus(
      LaunchRouterProbabilities(logits.as<float>(), probabilities.as<float>(),
                                log_sums.as<float>(), logits.dim(0),
                                logits.dim(1), on->get()),
      "launch of RouterProbabilities");
}

absl::Status CudaTraining::RouterLossBackward(ConstTensor logits,
                                              ConstTensor coef, float z_coef,
                                              Tensor dlogits, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, EnterStream(stream, device_));
  return CudaStatus(
      LaunchRouterLossBackward(logits.as<float>(), coef.as<float>(), z_coef,
                               dlogits.as<float>(), logits.dim(0),
                               logits.dim(1), on->get()),
      "launch of RouterLossBackward");
}

absl::Status CudaTraining::SlotDots(ConstTensor x, ConstTensor rows,
                                    ConstTensor slot_rows, Tensor dots,
                                    Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, EnterStream(stream, device_));
  return CudaStatus(
      LaunchSlotDots({x.as<float>(), Of(rows), slot_rows.as<int32_t>(),
                      dots.as<float>(), dots.dim(0), dots.dim(1), x.dim(1)},
                     on->get()),
      "launch of SlotDots");
}

absl::Status CudaTraining::ScaleRows(ConstTensor x, ConstTensor scales,
                                     Tensor out, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, EnterStream(stream, device_));
  return CudaStatus(LaunchScaleRows(Of(x), scales.as<float>(), To(out),
                                    x.dim(0), x.dim(1), on->get()),
                    "launch of ScaleRows");
}

absl::Status CudaTraining::CrossEntropy(ConstTensor logits, ConstTensor targets,
                                        ConstTensor scales, Tensor losses,
                                        Tensor dlogits, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, EnterStream(stream, device_));
  CrossEntropyArgs args;
  args.logits = logits.as<float>();
  args.targets = targets.as<int32_t>();
  args.scales = scales.as<float>();
  args.losses = losses.as<float>();
  if (dlogits.data() != nullptr) args.dlogits = To(dlogits);
  args.num_rows = logits.dim(0);
  args.vocab = logits.dim(1);
  return CudaStatus(LaunchCrossEntropy(args, on->get()),
                    "launch of CrossEntropy");
}

absl::Status CudaTraining::EmbeddingBackward(ConstTensor dx, ConstTensor ids,
                                             Tensor dtable, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, EnterStream(stream, device_));
  return CudaStatus(LaunchEmbeddingBackward(dx.as<float>(), ids.as<int32_t>(),
                                            dtable.as<float>(), dx.dim(0),
                                            dx.dim(1), on->get()),
                    "launch of EmbeddingBackward");
}

absl::Status CudaTraining::Cast(ConstTensor x, Tensor out, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, EnterStream(stream, device_));
  return CudaStatus(LaunchCast(Of(x), To(out), x.num_elements(), on->get()),
                    "launch of Cast");
}

absl::Status CudaTraining::AddScaled(ConstTensor x, float scale, Tensor out,
                                     Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, EnterStream(stream, device_));
  return CudaStatus(LaunchAddScaled(x.as<float>(), scale, out.as<float>(),
                                    x.num_elements(), on->get()),
                    "launch of AddScaled");
}

absl::Status CudaTraining::CopyBlock(ConstTensor src, MatrixBlock src_at,
                                     Tensor dst, MatrixBlock dst_at,
                                     int64_t num_rows, int64_t num_cols,
                                     bool accumulate, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, EnterStream(stream, device_));
  CopyBlockArgs args;
  args.src = src.as<float>() + src_at.row * src.dim(1) + src_at.col;
  args.src_stride = src.dim(1);
  args.dst = dst.as<float>() + dst_at.row * dst.dim(1) + dst_at.col;
  args.dst_stride = dst.dim(1);
  args.num_rows = num_rows;
  args.num_cols = num_cols;
  args.accumulate = accumulate;
  return CudaStatus(LaunchCopyBlock(args, on->get()), "launch of CopyBlock");
}

absl::Status CudaTraining::Dropout(ConstTensor x, ConstTensor row_keys,
                                   uint64_t seed, float p, bool accumulate,
                                   Tensor out, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, EnterStream(stream, device_));
  DropoutArgs args;
  args.x = Of(x);
  args.row_keys = row_keys.as<int64_t>();
  args.out = To(out);
  args.num_rows = x.dim(0);
  args.num_cols = x.dim(1);
  args.seed = seed;
  // word 2^-32 >= p for the words from here on; exact, and p < 1 keeps it below
  // 2^32.
  args.threshold =
      static_cast<uint32_t>(std::ceil(static_cast<double>(p) * 0x1p32));
  args.factor = 1.0f / (1.0f - p);
  args.accumulate = accumulate;
  return CudaStatus(LaunchDropout(args, on->get()), "launch of Dropout");
}

absl::Status CudaTraining::SumOfSquares(ConstTensor x,
                                        std::vector<double>* sums,
                                        Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, EnterStream(stream, device_));
  const int64_t n = x.num_elements();
  sums->assign((n + kSquareChunk - 1) / kSquareChunk, 0.0);
  if (n == 0) return absl::OkStatus();
  const size_t num_bytes = sums->size() * sizeof(double);
  OCTET_ASSIGN_OR_RETURN(std::byte * scratch, on->Scratch(num_bytes));
  OCTET_RETURN_IF_ERROR(CudaStatus(
      LaunchSumOfSquares(x.as<float>(), n, kSquareChunk,
                         reinterpret_cast<double*>(scratch), on->get()),
      "launch of SumOfSquares"));
  OCTET_RETURN_IF_ERROR(on->Download(sums->data(), scratch, num_bytes));
  return on->Synchronize();
}

absl::Status CudaTraining::AdamW(const AdamWParams& params, ConstTensor grad,
                                 Tensor weight, Tensor m, Tensor v,
                                 Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, EnterStream(stream, device_));
  return CudaStatus(
      LaunchAdamW(MakeAdamWStep(params), grad.as<float>(), weight.as<float>(),
                  m.as<float>(), v.as<float>(), grad.dim(0), on->get()),
      "launch of AdamW");
}

absl::Status CudaTraining::Repack(PackedMatrix& matrix, int64_t row_begin,
                                  ConstTensor rows, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, EnterStream(stream, device_));
  OCTET_RETURN_IF_ERROR(CheckMatrix(matrix));
  OCTET_RETURN_IF_ERROR(CheckRowsToPack(matrix, row_begin, rows));
  const auto& packed = static_cast<const CudaPackedMatrix&>(matrix);
  const bool is_bf16 = packed.dtype() == DType::kBF16;
  auto* to = static_cast<std::byte*>(packed.data()) +
             row_begin * packed.ld() * SizeOf(packed.dtype());
  return CudaStatus(LaunchRepack(rows.as<float>(), {to, is_bf16}, rows.dim(0),
                                 packed.k(), packed.ld(), on->get()),
                    "launch of Repack");
}

}  // namespace octet::cuda
