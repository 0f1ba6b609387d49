// Moves the owners' values of parameters to the ranks that want them whole:
// after an optimizer step to all holders, for an adapter file to rank 0.
//
// Parameters travel in pieces of whole rows, several pieces in one all-to-all.
// A piece that a rank owns whole is not copied. Threads: one at a time; all
// work on one stream.
#ifndef OCTET_WORKER_TRAIN_PARAMETER_EXCHANGE_H_
#define OCTET_WORKER_TRAIN_PARAMETER_EXCHANGE_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/training_backend.h"
#include "worker/comm/communicator.h"
#include "worker/nn/scratch.h"
#include "worker/train/optimizer.h"
#include "worker/train/parameters.h"
#include "worker/train/shard_map.h"

namespace octet {

class ParameterExchange {
 public:
  // All of it outlives the object.
  ParameterExchange(Backend* backend, Communicator* communicator,
                    const ParameterSet* parameters, const ShardMap* shards,
                    int64_t bucket_elements = 8 << 20);

  // Does rank `rank` want parameter `parameter`? The same answers on every
  // rank.
  using Wants = std::function<bool(int rank, int parameter)>;
  // Rows [row, row + values.rows()) of a parameter, f32 [rows, cols] in device
  // memory, to be used in stream order; valid within the call.
  using Use = std::function<absl::Status(int parameter, int64_t row,
                                         ConstTensor values)>;
  // Collective. Calls `use` for all rows of every parameter that this rank
  // wants, by rising parameter and row.
  absl::Status ForEach(const Optimizer& optimizer, const Wants& wants,
                       const Use& use, int64_t step_id, Stream& stream);

 private:
  struct Piece {
    int parameter = 0;
    int64_t row = 0;
    int64_t num_rows = 0;
  };
  // A run of elements of a piece that one rank owns.
  struct Run {
    int rank = 0;
    int64_t offset = 0;  // in the piece
    int64_t num_elements = 0;
  };

  std::vector<Run> RunsOf(const Piece& piece) const;
  Tensor Owned(const Optimizer& optimizer, const Piece& piece,
               const Run& run) const;
  absl::Status Move(absl::Span<const Piece> pieces, const Optimizer& optimizer,
                    const Wants& wants, const Use& use, int64_t step_id,
                    Stream& stream);
  absl::Status Assemble(absl::Span<const Piece> pieces,
                        const Optimizer& optimizer, const Wants& wants,
                        const Use& use, absl::Span<const int64_t> received_at,
                        Tensor received, Stream& stream);

  TrainingBackend* training_;
  Communicator* communicator_;
  const ParameterSet* parameters_;
  const ShardMap* shards_;
  const int64_t bucket_elements_;
  Scratch send_, received_, whole_;
};

}  // namespace octet

#endif  // OCTET_WORKER_TRAIN_PARAMETER_EXCHANGE_H_
