// One rank's forward and backward pass over the microbatches of a training
// call, on the live weights. Every rank of the group makes the same calls with
// the same batch, with no slots of its own too.
//
//   forward   x = embedding[ids]; each layer x += attention(norm(x)),
//             x += moe(norm(x)), as worker/model/transformer.h: the same
//             logits to the bit
//   loss      cross-entropy of the rows that have a label, in chunks: logits of
//             the whole batch never exist. Router losses
//   backward  head, layers from the last, embedding; gradients of weights go to
//             a GradientSink by slot
//
// Loss. With S slots in the batch, n_s labels in slot s and N in all, a label's
// weight is loss_scale / (S n_s) (SLOT_MEAN, the seeds' mean of means) or
// loss_scale / N (TOKEN_MEAN); loss_scale / S is rounded to f32, so that S / N
// as loss_scale gives 1 / N to the bit for every S. A slot without labels has
// loss 0 and counts in S. A batch without labels has loss 0.
//
// Router losses, with p = softmax(logits), c[e] the number of top-k choices of
// expert e, over n rows of logits: aux = E sum_e (c[e] / n) (mean p[e]), K at
// balance (transformers' load_balancing_loss_func); z = mean (log sum
// exp(logits))^2. The n rows are those of all layers together (n = L T), or
// aux of each layer (n = T), averaged; over all ranks' tokens of the batch, or
// over each slot's, averaged over slots. Gradients carry loss_scale and the
// coefficient.
//
// Bits: losses, gradients of a slot and everything in PassResult but seconds do
// not depend on the number of ranks or on which of them computes a slot; nor,
// but for statistics of scope BATCH and S or N in the weights, on the other
// slots of the batch.
//
// Threads: one at a time. Everything handed to Create outlives it. Adapters may
// be attached to the weights or taken away between calls.
#ifndef OCTET_WORKER_MODEL_TRAINING_PASS_H_
#define OCTET_WORKER_MODEL_TRAINING_PASS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "worker/comm/communicator.h"
#include "worker/model/config.h"
#include "worker/model/router_losses.h"
#include "worker/model/training_batch.h"
#include "worker/model/training_head.h"
#include "worker/model/training_layers.h"
#include "worker/model/weights.h"
#include "worker/moe/placement.h"
#include "worker/nn/gradient_sink.h"

namespace octet {

enum class LossReduction { kSlotMean, kTokenMean };

struct TrainingPassOptions {
  LossReduction reduction = LossReduction::kSlotMean;
  RouterLossOptions router_loss;
  // Keep only the layers' inputs of the forward pass and compute the rest
  // again: the same bits, less memory, a third more work.
  bool recompute = false;
  // The backward pass stops at this layer's input: no weight below it is
  // trained. -1: the embedding is. L: only the head or final norm.
  int lowest_layer = -1;
  uint64_t seed = 0;               // of dropout
  int64_t max_head_rows = 256;     // rows of logits that exist at a time
  int64_t max_expert_rows = 2048;  // MoeShape::max_expert_rows
  bool keep_routes = false;        // fill PassResult::routes
  bool keep_logprobs = false;      // fill PassResult::logprobs
  // For ActivationBytes only. Of the adapters that will be attached, r of one
  // module and whether they drop: there is room for them everywhere. And
  // whether the backend fuses products.
  int64_t adapter_rank = 0;
  bool adapters_drop = false;
  bool fused_products = false;
};

// Seconds on the host's clock of this rank.
struct PassSeconds {
  double total = 0;
  double attention = 0;
  double router = 0;
  double experts = 0;
  double dispatch = 0;
  double combine = 0;
  double waiting = 0;  // inside collectives, part of the others
  double head = 0;
};

// The same on every rank, but for `routes` and `seconds`.
struct PassResult {
  double loss = 0;      // as the reduction says; without loss_scale
  double aux_loss = 0;  // without coefficients and loss_scale
  double z_loss = 0;
  int64_t num_tokens = 0;
  int64_t num_labels = 0;
  std::vector<double> slot_losses;   // [S] mean over the slot's labels
  std::vector<int64_t> slot_labels;  // [S]
  // [S] each slot's own, with scope SLOT; else empty.
  std::vector<double> slot_aux_losses, slot_z_losses;
  std::vector<float> logprobs;           // of each label, by slot
  std::vector<int64_t> expert_tokens;    // [L, E] top-k choices
  std::vector<double> layer_aux_losses;  // [L] each layer's own
  // [L] of [T, K]: the experts of this rank's tokens.
  std::vector<std::vector<int32_t>> routes;
  PassSeconds seconds;
};

class TrainingPass {
 public:
  // UNIMPLEMENTED when the backend cannot train.
  static absl::StatusOr<std::unique_ptr<TrainingPass>> Create(
      Backend* backend, Communicator* communicator, const ModelConfig& config,
      const Placement* placement, const ModelWeights* weights,
      const TrainingPassOptions& options);

  // Losses only; adapters do not drop. `batch` must have passed
  // CheckTrainingBatch; its loss_scale is not used. Errors are the group's
  // (Communicator) or of memory (RESOURCE_EXHAUSTED).
  absl::StatusOr<PassResult> Forward(int64_t step_id,
                                     const TrainingBatch& batch);

  // Losses, and gradients into the sink. When it returns the stream is past
  // everything.
  absl::StatusOr<PassResult> ForwardBackward(int64_t step_id,
                                             const TrainingBatch& batch,
                                             GradientSink& sink);

  Stream& stream() { return *stream_; }
  // Device memory held.
  int64_t size_bytes() const;

  // Device memory of ForwardBackward with T tokens and N expert rows on a rank
  // (N = T K when routing is balanced), for the memory plan.
  static int64_t ActivationBytes(const ModelConfig& config, DType dtype,
                                 const TrainingPassOptions& options,
                                 int64_t num_tokens, int64_t num_expert_rows);

 private:
  TrainingPass(Backend* backend, Communicator* communicator,
               const ModelConfig& config, const Placement* placement,
               const ModelWeights* weights, const TrainingPassOptions& options);
  // sink: nullptr for losses only.
  absl::StatusOr<PassResult> Run(int64_t step_id, const TrainingBatch& batch,
                                 GradientSink* sink);
  // The weights of this rank's labels.
  std::vector<float> LabelScales(const TrainingLayout& layout,
                                 double loss_scale) const;
  // All ranks' label losses, of which this rank's are in place.
  absl::Status ShareLosses(int64_t step_id, const TrainingLayout& layout,
                           std::vector<float>& losses);
  void Summarize(const TrainingLayout& layout, std::vector<float> losses,
                 PassResult& result) const;
  double WaitedSeconds() const;

  Communicator* communicator_;
  const ModelConfig config_;
  const TrainingPassOptions options_;
  std::unique_ptr<Stream> stream_;
  RouterLosses router_losses_;
  TrainingLayers layers_;
  TrainingHead head_;
  Scratch dx_;  // [T, H] f32
};

}  // namespace octet

#endif  // OCTET_WORKER_MODEL_TRAINING_PASS_H_
