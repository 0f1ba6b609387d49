// The second half of the seam to a device: what training needs beside the
// operations of kernels/backend.h. Same rules: asynchronous on a Stream,
// memory of the backend unless a parameter says "host", shapes checked by
// kernels/training_ops.h, which is the only caller, and a row's bits depend on
// that row alone. Sums over rows (gradients of weights) run over the rows in
// one fixed order, so they depend on the rows of the call and on nothing else;
// which rows share a call is the caller's choice (worker/train sums calls in a
// fixed tree).
//
// Notation as in backend.h; d... is the gradient of the loss. "compute dtype"
// is f32 or bf16; gradients of weights are f32.
#ifndef OCTET_KERNELS_TRAINING_BACKEND_H_
#define OCTET_KERNELS_TRAINING_BACKEND_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace octet {

// A rectangle of a matrix.
struct MatrixBlock {
  int64_t row = 0;
  int64_t col = 0;
};

// One step of AdamW (Loshchilov and Hutter, 2019), as torch.optim.AdamW:
//   g' = grad_scale g ; w -= lr weight_decay w
//   m = beta1 m + (1 - beta1) g' ; v = beta2 v + (1 - beta2) g'^2
//   w -= lr (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps)
struct AdamWParams {
  float learning_rate = 0;
  float beta1 = 0.9f;
  float beta2 = 0.999f;
  float eps = 1e-8f;
  float weight_decay = 0;
  float grad_scale = 1;  // of clipping
  int64_t step = 1;      // from 1
};

class FusedProducts;

class TrainingBackend {
 public:
  virtual ~TrainingBackend() = default;

  // Products and what is around them in one pass (kernels/fused_products.h);
  // nullptr: the operations below do it one after another.
  virtual FusedProducts* fused() { return nullptr; }

  // ---- products
  // out += x W^T in groups, as Backend::GroupedGemm; out [T, n] f32.
  virtual absl::Status GroupedGemmAccumulate(
      ConstTensor x, absl::Span<const PackedMatrix* const> w,
      absl::Span<const int64_t> row_offsets, Tensor out, Stream& stream) = 0;

  // dx = dy W, or dx += dy W. dy [T, n] of W's dtype; W [n, k]; dx [T, k] f32,
  // or bf16 when not accumulating.
  virtual absl::Status GemmBackwardInput(ConstTensor dy, const PackedMatrix& w,
                                         bool accumulate, Tensor dx,
                                         Stream& stream) = 0;

  // The same in groups of rows (row_offsets as in Backend::GroupedGemm).
  virtual absl::Status GroupedGemmBackwardInput(
      ConstTensor dy, absl::Span<const PackedMatrix* const> w,
      absl::Span<const int64_t> row_offsets, bool accumulate, Tensor dx,
      Stream& stream) = 0;

  // dw = scale dy^T x, or dw += scale dy^T x (the product is summed first). x
  // [T, k] and dy [T, n] of one dtype, f32 or bf16; dw [n, k] f32. T = 0 gives
  // zeros, or leaves dw as it is.
  virtual absl::Status GemmBackwardWeight(ConstTensor x, ConstTensor dy,
                                          float scale, bool accumulate,
                                          Tensor dw, Stream& stream) = 0;

  // ---- activations
  // out = silu(h[:, :F]) * h[:, F:]. h [T, 2F] f32 or bf16; out [T, F] f32 or
  // bf16.
  virtual absl::Status SwiGlu(ConstTensor h, Tensor out, Stream& stream) = 0;

  // With a = h[:, :F], b = h[:, F:], s = 1 / (1 + exp(-a)):
  //   dh[:, :F] = dout b s (1 + a (1 - s)) ; dh[:, F:] = dout a s.
  // h [T, 2F], dout [T, F], dh [T, 2F]; each f32 or bf16.
  virtual absl::Status SwiGluBackward(ConstTensor h, ConstTensor dout,
                                      Tensor dh, Stream& stream) = 0;

  // dx += gradient of y = x r weight, r = 1 / sqrt(mean(x^2) + eps):
  //   dx += r (dy weight - x r^2 mean(dy weight x)). All [T, H] f32; weight [H]
  //   f32.
  virtual absl::Status RmsNormBackward(ConstTensor x, ConstTensor weight,
                                       float eps, ConstTensor dy, Tensor dx,
                                       Stream& stream) = 0;
  // dweight = sum over rows of dy x r, or added to it. x, dy [T, H] f32;
  // dweight [H] f32.
  virtual absl::Status RmsNormBackwardWeight(ConstTensor x, float eps,
                                             ConstTensor dy, bool accumulate,
                                             Tensor dweight,
                                             Stream& stream) = 0;

  // Gradient of Backend::PagedAttention over whole sequences (first_position 0
  // each). q [T, N_q D] f32 (rotated) and the cache as the forward pass left
  // them; out, dout [T, N_q D] f32 or bf16; dq [T, N_q D] f32; dk, dv [T, N_kv
  // D] f32, where the row of a token is that of q. With P = softmax rows:
  //   dv = P^T dout ; dS = P (dout v^T - rowsum(dout out)) ; dq = dS k /
  //   sqrt(D) dk = dS^T q / sqrt(D), summed over the query heads of a group.
  virtual absl::Status AttentionBackward(
      ConstTensor q, const KvCacheView& cache,
      absl::Span<const AttentionSequence> sequences, int sliding_window,
      ConstTensor out, ConstTensor dout, Tensor dq, Tensor dk, Tensor dv,
      Stream& stream) = 0;

  // dqkv = [rotate back(dq), rotate back(dk), dv]. positions [T] i32; dqkv [T,
  // (N_q + 2 N_kv) D] f32 or bf16.
  virtual absl::Status RopeBackward(ConstTensor dq, ConstTensor dk,
                                    ConstTensor dv, ConstTensor positions,
                                    const RopeParams& params, Tensor dqkv,
                                    Stream& stream) = 0;

  // ---- router
  // The K weights are the softmax over the chosen logits, so with w = weights:
  //   dlogits[id_k] = w_k (dw_k - sum_j w_j dw_j), others 0.
  // ids [T, K] i32; weights, dweights [T, K] f32; dlogits [T, E] f32.
  virtual absl::Status RouterBackward(ConstTensor topk_ids,
                                      ConstTensor topk_weights,
                                      ConstTensor dweights, Tensor dlogits,
                                      Stream& stream) = 0;
  // p = softmax(logits) and its logarithm's normaliser. logits [T, E] f32;
  // probabilities [T, E] f32; log_sums [T] f32: log sum exp(logits).
  virtual absl::Status RouterProbabilities(ConstTensor logits,
                                           Tensor probabilities,
                                           Tensor log_sums, Stream& stream) = 0;
  // Gradient of sum over rows of sum_e coef[e] p[e] + z_coef log_sum^2:
  //   dlogits[e] += p[e] (coef[e] - sum_j coef[j] p[j]) + 2 z_coef log_sum
  //   p[e].
  // logits, dlogits [T, E] f32; coef [E] f32.
  virtual absl::Status RouterLossBackward(ConstTensor logits, ConstTensor coef,
                                          float z_coef, Tensor dlogits,
                                          Stream& stream) = 0;

  // dot[t, k] = sum_h x[t, h] rows[slot_rows[t, k], h]: the gradient of
  // CombineRows' weights. x [T, H] f32; rows [N, H] f32 or bf16; slot_rows [T,
  // K] i32; dots [T, K] f32.
  virtual absl::Status SlotDots(ConstTensor x, ConstTensor rows,
                                ConstTensor slot_rows, Tensor dots,
                                Stream& stream) = 0;
  // out[i] = scales[i] x[i]. x [N, H], out [N, H] each f32 or bf16; scales [N]
  // f32.
  virtual absl::Status ScaleRows(ConstTensor x, ConstTensor scales, Tensor out,
                                 Stream& stream) = 0;

  // ---- ends of the model
  // losses[i] = log sum exp(logits[i]) - logits[i, target]; dlogits[i] =
  // scales[i] (softmax(logits[i]) - onehot(target)). target -1: loss and
  // gradient 0. logits [N, V] f32; targets [N] i32; scales, losses [N] f32;
  // dlogits [N, V] f32 or bf16, or without data: not wanted.
  virtual absl::Status CrossEntropy(ConstTensor logits, ConstTensor targets,
                                    ConstTensor scales, Tensor losses,
                                    Tensor dlogits, Stream& stream) = 0;
  // dtable[ids[t]] += dx[t], by rising t. dx [T, H] f32; ids [T] i32; dtable
  // [V, H] f32.
  virtual absl::Status EmbeddingBackward(ConstTensor dx, ConstTensor ids,
                                         Tensor dtable, Stream& stream) = 0;

  // ---- elementwise
  // out = x in out's dtype. Same number of elements; f32 or bf16 each.
  virtual absl::Status Cast(ConstTensor x, Tensor out, Stream& stream) = 0;
  // out += scale x, fused. f32, same number of elements.
  virtual absl::Status AddScaled(ConstTensor x, float scale, Tensor out,
                                 Stream& stream) = 0;
  // dst[dst_at + (r, c)] = src[src_at + (r, c)] (or +=) for r < num_rows, c <
  // num_cols. Both f32 matrices.
  virtual absl::Status CopyBlock(ConstTensor src, MatrixBlock src_at,
                                 Tensor dst, MatrixBlock dst_at,
                                 int64_t num_rows, int64_t num_cols,
                                 bool accumulate, Stream& stream) = 0;
  // out = x mask / (1 - p), or out += that. mask[t, j] is 1 when element j of
  // the Philox stream with key `seed` and counter (j / 4, row_keys[t]) is
  // >= p: word j % 4 of the block, times 2^-32. So it depends on seed, row key
  // and column alone. x, out [T, k] f32 or bf16 (out f32 when accumulating);
  // row_keys [T] i64; 0 <= p < 1.
  virtual absl::Status Dropout(ConstTensor x, ConstTensor row_keys,
                               uint64_t seed, float p, bool accumulate,
                               Tensor out, Stream& stream) = 0;

  // ---- optimizer
  // sums[c] = sum of squares of elements [c 65536, (c + 1) 65536) of x, in
  // double and a fixed order. Result on the host: synchronizes.
  static constexpr int64_t kSquareChunk = 65536;
  virtual absl::Status SumOfSquares(ConstTensor x, std::vector<double>* sums,
                                    Stream& stream) = 0;
  // In place. All [n] f32.
  virtual absl::Status AdamW(const AdamWParams& params, ConstTensor grad,
                             Tensor weight, Tensor m, Tensor v,
                             Stream& stream) = 0;
  // Backend::PackRows from device memory, in stream order: rows [r, k] f32.
  // The weights change for all work that follows on the stream.
  virtual absl::Status Repack(PackedMatrix& matrix, int64_t row_begin,
                              ConstTensor rows, Stream& stream) = 0;
};

}  // namespace octet

#endif  // OCTET_KERNELS_TRAINING_BACKEND_H_
