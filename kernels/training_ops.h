// The operations of kernels/training_backend.h with their arguments checked:
// the only way to call them. training_backend.h says what each computes.
//
// Errors, empty calls, indices in backend memory and threads: as kernels/ops.h.
// A call without rows is OK and does nothing, but a gradient of a weight that
// is not accumulated becomes zero.
//
// Notation as in backend.h. "f" stands for "f32 or bf16".
#ifndef OCTET_KERNELS_TRAINING_OPS_H_
#define OCTET_KERNELS_TRAINING_OPS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"
#include "kernels/training_backend.h"

namespace octet::train_ops {

// ---- products (training_ops.cc)
// x [T, k]; all w [n, k] of x's dtype; row_offsets: w.size() + 1 entries that
// rise from 0 to T; out [T, n] f32.
absl::Status GroupedGemmAccumulate(TrainingBackend& backend, ConstTensor x,
                                   absl::Span<const PackedMatrix* const> w,
                                   absl::Span<const int64_t> row_offsets,
                                   Tensor out, Stream& stream);

// dy [T, n] of W's dtype; dx [T, k] f32, or bf16 when not accumulating.
absl::Status GemmBackwardInput(TrainingBackend& backend, ConstTensor dy,
                               const PackedMatrix& w, bool accumulate,
                               Tensor dx, Stream& stream);

// dy [T, n]; all w [n, k] of dy's dtype; dx as above.
absl::Status GroupedGemmBackwardInput(TrainingBackend& backend, ConstTensor dy,
                                      absl::Span<const PackedMatrix* const> w,
                                      absl::Span<const int64_t> row_offsets,
                                      bool accumulate, Tensor dx,
                                      Stream& stream);

// x [T, k] f; dy [T, n] of x's dtype; dw [n, k] f32.
absl::Status GemmBackwardWeight(TrainingBackend& backend, ConstTensor x,
                                ConstTensor dy, float scale, bool accumulate,
                                Tensor dw, Stream& stream);

// ---- activations and attention (training_ops.cc)
// h [T, 2F] f; out [T, F] f.
absl::Status SwiGlu(TrainingBackend& backend, ConstTensor h, Tensor out,
                    Stream& stream);

// h [T, 2F] f; dout [T, F] f; dh [T, 2F] f; dh may be h where the dtype is the
// same.
absl::Status SwiGluBackward(TrainingBackend& backend, ConstTensor h,
                            ConstTensor dout, Tensor dh, Stream& stream);

// x, dy, dx [T, H] f32; weight [H] f32; eps >= 0.
absl::Status RmsNormBackward(TrainingBackend& backend, ConstTensor x,
                             ConstTensor weight, float eps, ConstTensor dy,
                             Tensor dx, Stream& stream);

// x, dy [T, H] f32; dweight [H] f32; eps >= 0.
absl::Status RmsNormBackwardWeight(TrainingBackend& backend, ConstTensor x,
                                   float eps, ConstTensor dy, bool accumulate,
                                   Tensor dweight, Stream& stream);

// q, dq [T, N_q D] f32; out, dout [T, N_q D] f; dk, dv [T, N_kv D] f32; every
// first_position 0. Rows of no sequence are left as they are; the rows of two
// sequences must not overlap.
absl::Status AttentionBackward(TrainingBackend& backend, ConstTensor q,
                               const KvCacheView& cache,
                               absl::Span<const AttentionSequence> sequences,
                               int sliding_window, ConstTensor out,
                               ConstTensor dout, Tensor dq, Tensor dk,
                               Tensor dv, Stream& stream);

// dq [T, N_q D] f32; dk, dv [T, N_kv D] f32; positions [T] i32, each >= 0; dqkv
// [T, (N_q + 2 N_kv) D] f.
absl::Status RopeBackward(TrainingBackend& backend, ConstTensor dq,
                          ConstTensor dk, ConstTensor dv, ConstTensor positions,
                          const RopeParams& params, Tensor dqkv,
                          Stream& stream);

// ---- router (training_row_ops.cc, as all that follows)
// topk_ids [T, K] i32; topk_weights, dweights [T, K] f32; dlogits [T, E] f32;
// 1 <= K <= E.
absl::Status RouterBackward(TrainingBackend& backend, ConstTensor topk_ids,
                            ConstTensor topk_weights, ConstTensor dweights,
                            Tensor dlogits, Stream& stream);

// logits, probabilities [T, E] f32; log_sums [T] f32; E >= 1.
absl::Status RouterProbabilities(TrainingBackend& backend, ConstTensor logits,
                                 Tensor probabilities, Tensor log_sums,
                                 Stream& stream);

// logits, dlogits [T, E] f32; coef [E] f32; E >= 1.
absl::Status RouterLossBackward(TrainingBackend& backend, ConstTensor logits,
                                ConstTensor coef, float z_coef, Tensor dlogits,
                                Stream& stream);

// x [T, H] f32; rows [N, H] f; slot_rows [T, K] i32; dots [T, K] f32.
absl::Status SlotDots(TrainingBackend& backend, ConstTensor x, ConstTensor rows,
                      ConstTensor slot_rows, Tensor dots, Stream& stream);

// x [N, H] f; scales [N] f32; out [N, H] f; out may be x where the dtype is the
// same.
absl::Status ScaleRows(TrainingBackend& backend, ConstTensor x,
                       ConstTensor scales, Tensor out, Stream& stream);

// ---- ends of the model
// logits [N, V] f32; targets [N] i32, each -1 to V - 1; scales, losses [N] f32;
// dlogits [N, V] f, or Tensor(): not wanted; V >= 1. dlogits may be logits.
absl::Status CrossEntropy(TrainingBackend& backend, ConstTensor logits,
                          ConstTensor targets, ConstTensor scales,
                          Tensor losses, Tensor dlogits, Stream& stream);

// dx [T, H] f32; ids [T] i32; dtable [V, H] f32.
absl::Status EmbeddingBackward(TrainingBackend& backend, ConstTensor dx,
                               ConstTensor ids, Tensor dtable, Stream& stream);

// ---- elementwise
// x, out f of any shape, the same number of elements.
absl::Status Cast(TrainingBackend& backend, ConstTensor x, Tensor out,
                  Stream& stream);

// x, out f32 of any shape, the same number of elements.
absl::Status AddScaled(TrainingBackend& backend, ConstTensor x, float scale,
                       Tensor out, Stream& stream);

// src, dst f32 matrices that hold the rectangles and do not overlap.
absl::Status CopyBlock(TrainingBackend& backend, ConstTensor src,
                       MatrixBlock src_at, Tensor dst, MatrixBlock dst_at,
                       int64_t num_rows, int64_t num_cols, bool accumulate,
                       Stream& stream);

// x [T, k] f; row_keys [T] i64; 0 <= p < 1; out [T, k] f, f32 when
// accumulating.
absl::Status Dropout(TrainingBackend& backend, ConstTensor x,
                     ConstTensor row_keys, uint64_t seed, float p,
                     bool accumulate, Tensor out, Stream& stream);

// ---- optimizer
// x f32 of any shape. *sums has an entry for each started chunk of
// TrainingBackend::kSquareChunk elements.
absl::Status SumOfSquares(TrainingBackend& backend, ConstTensor x,
                          std::vector<double>* sums, Stream& stream);

// All [n] f32. learning_rate, eps, weight_decay >= 0; beta1, beta2 in [0, 1);
// grad_scale finite; step >= 1.
absl::Status AdamW(TrainingBackend& backend, const AdamWParams& params,
                   ConstTensor grad, Tensor weight, Tensor m, Tensor v,
                   Stream& stream);

// rows [r, k] f32, which fit at row_begin.
absl::Status Repack(TrainingBackend& backend, PackedMatrix& matrix,
                    int64_t row_begin, ConstTensor rows, Stream& stream);

}  // namespace octet::train_ops

#endif  // OCTET_KERNELS_TRAINING_OPS_H_
