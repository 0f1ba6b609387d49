// The router's losses over a training batch, and what they send back into each
// layer's logits. Formulas and scopes: worker/model/training_pass.h.
//
// Each rank sums its own slots' statistics, one slot at a time, in double; the
// slots of all ranks are then put together and summed in slot order on every
// rank, so the results do not depend on who has which slot.
//
// Threads: one at a time. The backend outlives it.
#ifndef OCTET_WORKER_MODEL_ROUTER_LOSSES_H_
#define OCTET_WORKER_MODEL_ROUTER_LOSSES_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "worker/comm/communicator.h"
#include "worker/model/config.h"
#include "worker/model/training_batch.h"
#include "worker/moe/moe_training.h"
#include "worker/nn/scratch.h"

namespace octet {

enum class RouterLossScope { kBatch, kSlot };

struct RouterLossOptions {
  float aux_coef = 0;
  float z_coef = 0;
  bool per_layer = false;
  RouterLossScope scope = RouterLossScope::kBatch;
};

struct RouterLossValues {
  double aux = 0;
  double z = 0;
  std::vector<double> layer_aux;  // [L]
  // [S] each slot's own, with scope kSlot; else empty.
  std::vector<double> slot_aux, slot_z;
  std::vector<int64_t> expert_tokens;  // [L, E]
};

class RouterLosses {
 public:
  RouterLosses(Backend* backend, const ModelConfig& config,
               const RouterLossOptions& options);

  // A new batch. `layout` must live until the batch is done.
  void Begin(const TrainingLayout* layout);
  // The layer's logits and choices of this rank's tokens. Waits for the stream.
  absl::Status Collect(int layer, const MoeTape& tape, Stream& stream);
  // Brings the statistics of all slots to every rank: a collective.
  absl::Status Gather(Communicator& communicator, int64_t step_id);

  // After Gather.
  RouterLossValues Values() const;
  // Of this rank's rows in a layer, times `scale`; valid until the next call.
  absl::StatusOr<RouterGradient> Gradient(int layer, double scale,
                                          Stream& stream);

  int64_t size_bytes() const;

 private:
  // Sums of one layer over some slots.
  struct Sums {
    std::vector<double> counts;         // [E] top-k choices
    std::vector<double> probabilities;  // [E]
    double squared_log_sums = 0;
  };
  struct SlotRange {
    int64_t begin = 0;
    int64_t end = 0;
  };
  double* SlotSums(int64_t slot, int layer);
  Sums SumOf(const SlotRange& slots, int layer) const;
  Sums SumOfLayers(const SlotRange& slots) const;
  // What statistics are taken over: everything, or each slot.
  std::vector<SlotRange> Groups() const;
  int64_t TokensOf(const SlotRange& slots) const;
  double Aux(const Sums& sums, double num_rows) const;

  Backend* backend_;
  const int num_layers_, num_experts_, top_k_;
  const RouterLossOptions options_;
  const TrainingLayout* layout_ = nullptr;
  // [S, L, 2 E + 1]: counts, sums of probabilities, sum of squared log sums.
  std::vector<double> sums_;
  std::vector<float> host_probabilities_, host_log_sums_, host_coefs_;
  Scratch probabilities_, log_sums_, coefs_;
};

}  // namespace octet

#endif  // OCTET_WORKER_MODEL_ROUTER_LOSSES_H_
