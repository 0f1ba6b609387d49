// Gradients from the ranks that computed them to the ranks that own them.
//
// At the end of every ForwardBackward each rank sends its nodes of the slot
// tree to the owners of their elements (ShardMap), who put them into trees of
// their own shards. So accumulation over calls keeps shards only, and what the
// optimizer sees is the same sum for any number of ranks and any split of the
// slots into calls.
//
// Memory beside the shards: one bucket of nodes to send and one received, of
// 32 MiB or the largest weight. Threads: one at a time; all work on one stream.
#ifndef OCTET_WORKER_TRAIN_REDUCER_H_
#define OCTET_WORKER_TRAIN_REDUCER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/training_backend.h"
#include "worker/comm/communicator.h"
#include "worker/nn/scratch.h"
#include "worker/train/buffer_pool.h"
#include "worker/train/gradient_store.h"
#include "worker/train/parameters.h"
#include "worker/train/shard_map.h"

namespace octet {

class GradientReducer {
 public:
  // All of it outlives the reducer. bucket_elements: nodes that travel at once.
  GradientReducer(Backend* backend, Communicator* communicator,
                  const ParameterSet* parameters, const ShardMap* shards,
                  BufferPool* pool, int64_t bucket_elements = 8 << 20);

  // Collective. Takes all nodes of the store, which has finished the slots of
  // `plan`. `step_id` is for messages.
  absl::Status Reduce(GradientStore& store, const SlotPlan& plan,
                      int64_t step_id, Stream& stream);

  // Sums what is pending. Element i: the gradient of the rank's owned range i
  // (ShardMap::OwnedBy), a vector without data where no slot had any. Valid
  // until the next Clear or Reduce.
  absl::StatusOr<std::vector<ConstTensor>> Sum(Stream& stream);
  // Drops what is pending.
  void Clear();

 private:
  // Elements of a node of the source that a rank owns, one piece after the
  // other.
  struct Piece {
    int64_t offset = 0;  // in the node
    int64_t num_elements = 0;
  };
  struct Share {
    std::vector<Piece> pieces;
    int64_t num_elements = 0;
  };
  // Node number `ordinal` of each rank's list for the source.
  struct Unit {
    int source = 0;
    size_t ordinal = 0;
    bool last = false;
  };
  // [R] of [sources]: the blocks of each rank's nodes.
  using BlockLists = std::vector<std::vector<std::vector<SlotBlock>>>;

  Share ShareOf(int source, int rank) const;
  bool Shared(int source) const;
  absl::StatusOr<BlockLists> ExchangeBlocks(GradientStore& store,
                                            int64_t step_id);
  absl::Status MoveBucket(absl::Span<const Unit> units,
                          const BlockLists& blocks, GradientStore& store,
                          int64_t step_id, Stream& stream);
  absl::Status Pack(absl::Span<const Unit> units, const BlockLists& blocks,
                    GradientStore& store, absl::Span<const int64_t> offsets,
                    Tensor send, Stream& stream);
  absl::Status Unpack(absl::Span<const Unit> units, const BlockLists& blocks,
                      absl::Span<const int64_t> offsets, Tensor received,
                      Stream& stream);
  absl::Status CopyShare(const Share& share, ConstTensor node, Tensor out,
                         Stream& stream);
  absl::Status Settle(int source, int64_t end_slot, Stream& stream);

  TrainingBackend* training_;
  Communicator* communicator_;
  const ParameterSet* parameters_;
  const ShardMap* shards_;
  BufferPool* pool_;
  const int64_t bucket_elements_;
  int64_t end_slot_ = 0;             // slots pending
  std::vector<GradientTree> trees_;  // by source, of this rank's share
  std::vector<PooledBuffer> sums_;   // by source, after Sum
  Scratch send_, received_;
};

}  // namespace octet

#endif  // OCTET_WORKER_TRAIN_REDUCER_H_
