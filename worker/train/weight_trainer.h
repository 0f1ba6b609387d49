// Everything about a run's trained weights on one rank: where gradients go,
// what happens to them, and the live weights that come out. Knows slots, not
// tokens: the forward and backward pass is worker/model's.
//
//   GradientSink& sink = trainer.Begin(plan);  // the pass fills it
//   trainer.Finish(step_id);                   // gradients to their owners
//   trainer.Step(adamw, step_id);              // live weights change
//
// Every rank makes the same calls; those with a step_id are collective.
// Threads: one at a time.
#ifndef OCTET_WORKER_TRAIN_WEIGHT_TRAINER_H_
#define OCTET_WORKER_TRAIN_WEIGHT_TRAINER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "proto/training.pb.h"
#include "worker/checkpoint/peft_adapter.h"
#include "worker/comm/communicator.h"
#include "worker/model/config.h"
#include "worker/model/weights.h"
#include "worker/moe/placement.h"
#include "worker/train/buffer_pool.h"
#include "worker/train/gradient_store.h"
#include "worker/train/live_weights.h"
#include "worker/train/optimizer.h"
#include "worker/train/parameter_exchange.h"
#include "worker/train/parameters.h"
#include "worker/train/reducer.h"
#include "worker/train/shard_map.h"

namespace octet {

// One rank and the model it holds; all of it outlives whoever uses it.
struct RankModel {
  Backend* backend = nullptr;  // that can train
  Communicator* communicator = nullptr;
  const ModelConfig* config = nullptr;
  const Placement* placement = nullptr;
  ModelWeights* weights = nullptr;
};

class WeightTrainer {
 public:
  // Collective. `request` has been resolved: ParameterSet::Create(request) gave
  // `parameters`. adapter: what a LoRA run continues, checked; or nullptr. On
  // an error that is not the communicator's every rank has the same, and the
  // model is as it was.
  static absl::StatusOr<std::unique_ptr<WeightTrainer>> Create(
      const RankModel& model, ParameterSet parameters,
      const v1::CreateRunRequest& request, const PeftAdapter* adapter,
      int64_t step_id);

  // Begins a ForwardBackward whose slots are numbered from plan.first_slot,
  // which is pending_slots(). Gradients of an earlier call that did not finish
  // are dropped.
  GradientSink& Begin(const SlotPlan& plan);
  absl::Status Finish(int64_t step_id);

  // One optimizer step with all that is pending; nothing is pending then. A
  // step without any slots has gradients of zero.
  absl::StatusOr<StepOutcome> Step(const v1::AdamWConfig& config,
                                   int64_t step_id);
  void ZeroGrad();

  // Makes the owners' weights the live ones on every rank that holds them.
  absl::Status Publish(int64_t step_id);

  const ParameterSet& parameters() const { return parameters_; }
  const ShardMap& shards() const { return shards_; }
  Optimizer& optimizer() { return *optimizer_; }
  ParameterExchange& exchange() { return exchange_; }
  LiveWeights& live() { return live_; }
  const RankModel& model() const { return model_; }
  Stream& stream() { return *stream_; }
  int64_t pending_slots() const { return pending_slots_; }

 private:
  WeightTrainer(const RankModel& model, ParameterSet parameters,
                std::unique_ptr<Stream> stream);
  absl::Status FillWeights(const v1::CreateRunRequest& request,
                           const PeftAdapter* adapter);

  const RankModel model_;
  const ParameterSet parameters_;
  const std::unique_ptr<Stream> stream_;
  const ShardMap shards_;
  BufferPool pool_;  // before those that hold its buffers
  GradientStore store_;
  GradientReducer reducer_;
  ParameterExchange exchange_;
  LiveWeights live_;
  std::unique_ptr<Optimizer> optimizer_;
  SlotPlan plan_;
  int64_t pending_slots_ = 0;
};

}  // namespace octet

#endif  // OCTET_WORKER_TRAIN_WEIGHT_TRAINER_H_
