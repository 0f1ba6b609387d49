// The gradients that one rank's backward pass computes: a leaf per (weight,
// slot), leaves summed in the tree of slots (slot_tree.h) as far as this rank
// alone can.
//
// A rank computes a weight's gradient of the slots that it *covers*: of dense
// weights its own, of an expert those of the ranks whose rows come here
// (Placement::RankFor). Covered slots without rows are absent from the tree.
//
// Threads: one at a time. All calls of one Begin..Finish use one stream.
#ifndef OCTET_WORKER_TRAIN_GRADIENT_STORE_H_
#define OCTET_WORKER_TRAIN_GRADIENT_STORE_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/training_backend.h"
#include "worker/moe/placement.h"
#include "worker/nn/gradient_sink.h"
#include "worker/nn/scratch.h"
#include "worker/train/buffer_pool.h"
#include "worker/train/parameters.h"
#include "worker/train/slot_plan.h"
#include "worker/train/slot_tree.h"

namespace octet {

using GradientTree = SlotTree<PooledBuffer>;

class GradientStore final : public GradientSink {
 public:
  // All of it outlives the store.
  GradientStore(Backend* backend, const ParameterSet* parameters,
                const Placement* placement, int rank, BufferPool* pool);

  void Begin(const SlotPlan& plan);
  // After the last Add of the call: all that can be summed here is.
  absl::Status Finish(Stream& stream);
  // Nodes of a source: each GradientSource::num_elements f32.
  GradientTree& tree(int source) { return trees_[source]; }
  // Drops everything, also after an error.
  void Clear();

  bool Wants(const WeightId& id) const override;
  // Slots as the tree calls them, from SlotPlan::first_slot on. A slot's rows
  // come in one call, by rising slot; those of the head and of the final norm
  // may come in several, cut at places that depend on the slot alone.
  absl::Status AddProduct(const WeightId& id, ConstTensor x, ConstTensor dy,
                          float scale, absl::Span<const SlotRows> slots,
                          Stream& stream) override;
  absl::Status AddNorm(const WeightId& id, ConstTensor x, float eps,
                       ConstTensor dy, absl::Span<const SlotRows> slots,
                       Stream& stream) override;
  absl::Status AddEmbedding(ConstTensor dx, ConstTensor ids,
                            absl::Span<const SlotRows> slots,
                            Stream& stream) override;

 private:
  // Writes a leaf to `node`, or adds it.
  using Fill =
      std::function<absl::Status(const PooledBuffer& node, bool accumulate)>;
  absl::Status AddLeaf(int source, int64_t slot, const Fill& fill,
                       Stream& stream);
  absl::Status FillProduct(const GradientSource& source, ConstTensor x,
                           ConstTensor dy, float scale,
                           const PooledBuffer& node, bool accumulate,
                           Stream& stream);
  absl::Status Settle(int source, int64_t end_slot, Stream& stream);

  Backend* backend_;
  TrainingBackend* training_;
  const ParameterSet* parameters_;
  const Placement* placement_;
  const int rank_;
  BufferPool* pool_;
  SlotPlan plan_;
  SlotRanges dense_covered_;
  std::vector<SlotRanges> expert_covered_;  // [E]
  std::vector<GradientTree> trees_;         // by source
  Scratch product_;                         // of a weight trained in part
};

// left += right, for SlotTree.
absl::Status AddNode(TrainingBackend& training, const PooledBuffer& left,
                     const PooledBuffer& right, Stream& stream);

}  // namespace octet

#endif  // OCTET_WORKER_TRAIN_GRADIENT_STORE_H_
