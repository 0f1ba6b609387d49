// TrainingBackend on the CPU. Each operation is a function of its topic's file;
// here they are only put together.
#ifndef OCTET_KERNELS_CPU_CPU_TRAINING_H_
#define OCTET_KERNELS_CPU_CPU_TRAINING_H_

#include <cstdint>
#include <vector>

#include "kernels/cpu/context.h"
#include "kernels/cpu/fused_products.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/rope.h"
#include "kernels/training_backend.h"

namespace octet::cpu {

// A part of the CPU backend, whose threads, scratch memory and rotary table it
// uses: they must outlive it.
class CpuTraining : public TrainingBackend {
 public:
  CpuTraining(CpuContext& context, GemmWorkspace& gemm, RopeTable& rope_table)
      : context_(context),
        gemm_(gemm),
        rope_table_(rope_table),
        fused_(context, gemm) {}

  FusedProducts* fused() override { return &fused_; }

  absl::Status GroupedGemmAccumulate(ConstTensor x,
                                     absl::Span<const PackedMatrix* const> w,
                                     absl::Span<const int64_t> row_offsets,
                                     Tensor out, Stream& stream) override;
  absl::Status GemmBackwardInput(ConstTensor dy, const PackedMatrix& w,
                                 bool accumulate, Tensor dx,
                                 Stream& stream) override;
  absl::Status GroupedGemmBackwardInput(ConstTensor dy,
                                        absl::Span<const PackedMatrix* const> w,
                                        absl::Span<const int64_t> row_offsets,
                                        bool accumulate, Tensor dx,
                                        Stream& stream) override;
  absl::Status GemmBackwardWeight(ConstTensor x, ConstTensor dy, float scale,
                                  bool accumulate, Tensor dw,
                                  Stream& stream) override;
  absl::Status SwiGlu(ConstTensor h, Tensor out, Stream& stream) override;
  absl::Status SwiGluBackward(ConstTensor h, ConstTensor dout, Tensor dh,
                              Stream& stream) override;
  absl::Status RmsNormBackward(ConstTensor x, ConstTensor weight, float eps,
                               ConstTensor dy, Tensor dx,
                               Stream& stream) override;
  absl::Status RmsNormBackwardWeight(ConstTensor x, float eps, ConstTensor dy,
                                     bool accumulate, Tensor dweight,
                                     Stream& stream) override;
  absl::Status AttentionBackward(ConstTensor q, const KvCacheView& cache,
                                 absl::Span<const AttentionSequence> sequences,
                                 int sliding_window, ConstTensor out,
                                 ConstTensor dout, Tensor dq, Tensor dk,
                                 Tensor dv, Stream& stream) override;
  absl::Status RopeBackward(ConstTensor dq, ConstTensor dk, ConstTensor dv,
                            ConstTensor positions, const RopeParams& params,
                            Tensor dqkv, Stream& stream) override;
  absl::Status RouterBackward(ConstTensor topk_ids, ConstTensor topk_weights,
                              ConstTensor dweights, Tensor dlogits,
                              Stream& stream) override;
  absl::Status RouterProbabilities(ConstTensor logits, Tensor probabilities,
                                   Tensor log_sums, Stream& stream) override;
  absl::Status RouterLossBackward(ConstTensor logits, ConstTensor coef,
                                  float z_coef, Tensor dlogits,
                                  Stream& stream) override;
  absl::Status SlotDots(ConstTensor x, ConstTensor rows, ConstTensor slot_rows,
                        Tensor dots, Stream& stream) override;
  absl::Status ScaleRows(ConstTensor x, ConstTensor scales, Tensor out,
                         Stream& stream) override;
  absl::Status CrossEntropy(ConstTensor logits, ConstTensor targets,
                            ConstTensor scales, Tensor losses, Tensor dlogits,
                            Stream& stream) override;
  absl::Status EmbeddingBackward(ConstTensor dx, ConstTensor ids, Tensor dtable,
                                 Stream& stream) override;
  absl::Status Cast(ConstTensor x, Tensor out, Stream& stream) override;
  absl::Status AddScaled(ConstTensor x, float scale, Tensor out,
                         Stream& stream) override;
  absl::Status CopyBlock(ConstTensor src, MatrixBlock src_at, Tensor dst,
                         MatrixBlock dst_at, int64_t num_rows, int64_t num_cols,
                         bool accumulate, Stream& stream) override;
  absl::Status Dropout(ConstTensor x, ConstTensor row_keys, uint64_t seed,
                       float p, bool accumulate, Tensor out,
                       Stream& stream) override;
  absl::Status SumOfSquares(ConstTensor x, std::vector<double>* sums,
                            Stream& stream) override;
  absl::Status AdamW(const AdamWParams& params, ConstTensor grad, Tensor weight,
                     Tensor m, Tensor v, Stream& stream) override;
  absl::Status Repack(PackedMatrix& matrix, int64_t row_begin, ConstTensor rows,
                      Stream& stream) override;

 private:
  CpuContext& context_;
  GemmWorkspace& gemm_;
  RopeTable& rope_table_;
  CpuFusedProducts fused_;
};

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_CPU_TRAINING_H_
