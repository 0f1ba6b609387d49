// Carries token rows to the ranks of their experts and the outputs back, over a
// Communicator: the two verbs of expert parallelism.
//
//   handle   = Route(topk_ids, rank_tokens)     learns the choices of all ranks
//   received = Dispatch(handle, x)              [recv rows, H]
//              GatherExpertRows(...)            rows in expert order
//   combined = Combine(handle, expert_out)      one row per (token, slot)
//
// Rows have the compute dtype and are copied byte by byte, whether they stay or
// travel. Every rank of the group makes the same calls in the same order, with
// zero tokens too. Errors: those of the Communicator; INTERNAL for impossible
// choices of a peer, naming it; RESOURCE_EXHAUSTED when buffers cannot grow (in
// the worst case a rank receives the tokens of all ranks).
//
// Threads: one at a time. Backend, communicator and placement outlive it.
#ifndef OCTET_WORKER_MOE_DISPATCHER_H_
#define OCTET_WORKER_MOE_DISPATCHER_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "worker/comm/communicator.h"
#include "worker/moe/dispatch_plan.h"
#include "worker/moe/placement.h"
#include "worker/nn/scratch.h"

namespace octet {

// Where in the run a collective happens, and the device work it belongs to.
struct StepContext {
  int64_t step_id = -1;
  int layer = -1;
  Stream* stream = nullptr;
};

// The outputs of all (token, slot) pairs of this rank, as CombineRows reads
// them.
struct CombinedRows {
  ConstTensor rows;       // [T K, H] compute dtype
  ConstTensor slot_rows;  // [T, K] i32
};

class Dispatcher {
 public:
  Dispatcher(Backend* backend, Communicator* communicator,
             const Placement* placement);

  // topk_ids [T, K] i32, device. rank_tokens [R], host, the same on every rank;
  // rank_tokens[own rank] == T. Waits for the stream.
  absl::StatusOr<DispatchHandle> Route(ConstTensor topk_ids,
                                       absl::Span<const int64_t> rank_tokens,
                                       const StepContext& step);

  // The same in chunks (PlanChunks), each with a handle and a Dispatch of its
  // own; the ranks exchange their choices once.
  absl::StatusOr<std::vector<DispatchHandle>> RouteChunks(
      ConstTensor topk_ids, absl::Span<const int64_t> rank_tokens,
      int num_chunks, const StepContext& step);

  // x [T, H]. The result is valid until the next Dispatch, and x as long;
  // `handle` must live until the stream is past the call.
  absl::StatusOr<ConstTensor> Dispatch(const DispatchHandle& handle,
                                       ConstTensor x, const StepContext& step);

  // out [rows, H] = expert rows [row_begin, row_begin + rows) of `received`.
  absl::Status GatherExpertRows(const DispatchHandle& handle,
                                ConstTensor received, int64_t row_begin,
                                Tensor out, const StepContext& step);

  // expert_out [expert rows, H], in expert order. The result is valid until the
  // next Combine, and expert_out as long.
  absl::StatusOr<CombinedRows> Combine(const DispatchHandle& handle,
                                       ConstTensor expert_out,
                                       const StepContext& step);

  // The same with the returned rows in memory of the caller, where they stay;
  // alone in the group, they are expert_out.
  absl::StatusOr<CombinedRows> CombineInto(const DispatchHandle& handle,
                                           ConstTensor expert_out,
                                           Scratch& rows,
                                           const StepContext& step);

  // CombinedRows::slot_rows of a handle again, valid until the next call or
  // Combine.
  absl::StatusOr<ConstTensor> SlotRowsOf(const DispatchHandle& handle,
                                         const StepContext& step);

  // The router's weight of each expert row here, [expert rows] f32 on the
  // device, valid until the next call: the ranks exchange their tables, since
  // weights do not travel with the rows. topk_weights [T, K] f32. Waits for the
  // stream.
  absl::StatusOr<ConstTensor> ExpertRowWeights(
      const DispatchHandle& handle, ConstTensor topk_weights,
      absl::Span<const int64_t> rank_tokens, const StepContext& step);

  // [T, K] choices of this rank, as the last Route read them.
  absl::Span<const int32_t> own_choices() const { return own_choices_; }

  // Device memory held.
  int64_t size_bytes() const;

 private:
  // One row per index of `source` goes to the rank in whose range it lies;
  // returns what came, by source rank. Both offset lists have R + 1 entries.
  absl::StatusOr<Tensor> Exchange(ConstTensor source,
                                  absl::Span<const int32_t> source_rows,
                                  absl::Span<const int64_t> send_offsets,
                                  absl::Span<const int64_t> recv_offsets,
                                  absl::string_view operation, Scratch& out,
                                  const StepContext& step);
  // Every rank's table, one after the other, on every rank. `own` holds 4-byte
  // values, as many per token on every rank; host memory.
  template <typename T>
  absl::Status ShareTable(absl::Span<const T> own, int values_per_token,
                          absl::Span<const int64_t> rank_tokens,
                          absl::string_view operation, std::vector<T>& all,
                          const StepContext& step);
  absl::StatusOr<ConstTensor> Upload(absl::Span<const int32_t> values,
                                     Scratch& memory, const StepContext& step);

  Backend* backend_;
  Communicator* communicator_;
  const Placement* placement_;
  Scratch send_, received_, returned_;           // rows
  Scratch send_rows_, expert_rows_, slot_rows_;  // indices
  Scratch row_weights_;                          // f32
  std::vector<int32_t> own_choices_, all_choices_;
  std::vector<float> own_weights_, all_weights_, host_row_weights_;
};

}  // namespace octet

#endif  // OCTET_WORKER_MOE_DISPATCHER_H_
