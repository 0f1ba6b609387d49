// The layers of the model in training: forward with what backward needs kept,
// and backward. One rank's part; every rank makes the same calls.
//
// What is kept of a layer (its tape): its input, or all of its activations; see
// TrainingPassOptions::recompute. Memory is used again by the next batch.
//
// Threads: one at a time. Everything handed in outlives it.
#ifndef OCTET_WORKER_MODEL_TRAINING_LAYERS_H_
#define OCTET_WORKER_MODEL_TRAINING_LAYERS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "worker/comm/communicator.h"
#include "worker/model/attention.h"
#include "worker/model/attention_gradient.h"
#include "worker/model/config.h"
#include "worker/model/router_losses.h"
#include "worker/model/training_batch.h"
#include "worker/model/transformer.h"
#include "worker/model/weights.h"
#include "worker/moe/moe_training.h"
#include "worker/moe/placement.h"
#include "worker/nn/gradient_sink.h"
#include "worker/nn/scratch.h"

namespace octet {

struct TrainingLayersOptions {
  bool recompute = false;
  int first_layer = 0;  // the first one that Backward runs
  int64_t max_expert_rows = 2048;
};

class TrainingLayers {
 public:
  TrainingLayers(Backend* backend, Communicator* communicator,
                 const ModelConfig& config, const Placement* placement,
                 const ModelWeights* weights,
                 const TrainingLayersOptions& options,
                 RouterLosses* router_losses);

  struct Step {
    int64_t step_id = -1;
    const TrainingLayout* layout = nullptr;
    bool keep = false;  // Backward follows
    bool drop = false;  // adapters drop
    uint64_t seed = 0;  // of dropout
    Stream* stream = nullptr;
  };
  // x_L [T, H] f32, the last layer's output; valid until the next Forward.
  // Router statistics of every layer go to the RouterLosses. `routes`, unless
  // nullptr, gets the choices [L] of [T, K].
  absl::StatusOr<ConstTensor> Forward(
      const Step& step, std::vector<std::vector<int32_t>>* routes);

  // dx [T, H] f32: the gradient of x_L, and after the call that of the first
  // layer's input. scale: of the router losses. After Forward with `keep`.
  absl::Status Backward(double scale, Tensor dx, GradientSink& sink);
  // And from there into the embedding.
  absl::Status EmbeddingBackward(ConstTensor dx, GradientSink& sink);

  const ForwardSeconds& seconds() const { return seconds_; }
  int64_t size_bytes() const;
  // Layers' tapes that exist at a time: of those that are kept, and one for all
  // others.
  static int64_t NumTapes(const ModelConfig& config,
                          const TrainingLayersOptions& options);
  // Device memory for T tokens and N expert rows.
  static int64_t Bytes(const ModelConfig& config, DType dtype,
                       const TrainingLayersOptions& options, int64_t num_tokens,
                       int64_t num_expert_rows);

 private:
  // One layer's activations. T tokens on this rank.
  struct Tape {
    explicit Tape(Backend* backend)
        : q(backend), out(backend), kv(backend), x_mid(backend), moe(backend) {}
    Scratch q;      // [T, N_q D] f32
    Scratch out;    // [T, N_q D] compute dtype
    Scratch kv;     // keys and values, a cache of this layer
    Scratch x_mid;  // [T, H] f32, between attention and experts
    MoeTape moe;
    int64_t size_bytes() const;
  };
  // A layer's tensors, in the memory of its tape.
  struct Views {
    Tensor x_in;   // [T, H] f32
    Tensor x_mid;  // [T, H] f32
    Attention::Kept attention;
    KvCacheView cache;
  };

  bool KeepsTape(int layer) const;
  Tape& TapeOf(int layer);
  absl::StatusOr<Tensor> InputOf(int layer);
  absl::StatusOr<Views> ViewsOf(int layer);
  absl::StatusOr<Tensor> Normed();
  absl::Status Prepare(const Step& step);
  absl::Status RunLayer(int layer);
  absl::Status RunAttention(int layer, const Views& views, Tensor normed);
  absl::Status LayerBackward(int layer, double scale, Tensor dx,
                             GradientSink& sink);
  absl::Status NormBackward(const WeightId& id, ConstTensor x,
                            ConstTensor weight, ConstTensor dy, Tensor dx,
                            GradientSink& sink);

  Backend* backend_;
  const ModelConfig config_;
  const ModelWeights* weights_;
  const TrainingLayersOptions options_;
  RouterLosses* router_losses_;
  Attention attention_;
  AttentionGradient attention_gradient_;
  MoeTraining moe_;
  std::vector<MoeWeights> moe_weights_;       // [L]
  std::vector<std::unique_ptr<Tape>> tapes_;  // [L], of those that are kept
  Tape shared_tape_;            // of the others, one after another
  int shared_tape_layer_ = -1;  // whose it is, whole
  std::vector<std::unique_ptr<Scratch>> inputs_;  // [L + 1] f32 [T, H] x_l
  Scratch shared_inputs_[2];                      // of layers that are not kept

  // Of the batch.
  Step step_;
  MoeBatch moe_batch_;
  std::vector<int32_t> blocks_;        // 0, 1, 2, ...
  std::vector<SequenceSlice> slices_;  // a document each
  int64_t num_blocks_ = 0;
  Tensor ids_;  // [T] i32
  Scratch ids_memory_, row_keys_;
  Scratch normed_;   // [T, H] compute dtype
  Scratch dnormed_;  // [T, H] f32
  ForwardSeconds seconds_;
};

}  // namespace octet

#endif  // OCTET_WORKER_MODEL_TRAINING_LAYERS_H_
