// Runs forward plans on one rank: its own chunks through the transformer, then
// sampling and scoring.
//
// Every rank of the group runs the same plans in the same order. A plan that
// the group cannot run is INVALID_ARGUMENT on every rank, before anything
// happened. Threads: one at a time.
#ifndef OCTET_WORKER_SERVE_ENGINE_H_
#define OCTET_WORKER_SERVE_ENGINE_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "proto/worker.pb.h"
#include "worker/model/transformer.h"
#include "worker/serve/plan_check.h"

namespace octet {

class Engine {
 public:
  // Backend and transformer outlive it.
  Engine(Backend* backend, Transformer* transformer, int rank,
         PlanLimits limits);

  // Results of the chunks whose home is this rank, in plan order: those that
  // asked to sample, to score or for their routes. The profile is this rank's.
  absl::StatusOr<v1::StepResult> Run(int64_t step_id,
                                     const v1::ForwardPlan& plan);

  // [L, E] rows this rank computed for each expert since construction.
  absl::Span<const int64_t> expert_rows() const {
    return transformer_->expert_rows();
  }

 private:
  // A row of the step whose logits somebody wants.
  struct HeadRow {
    int32_t row = 0;  // of the step on this rank
    const v1::SequenceChunk* chunk = nullptr;
    int target = -1;  // score: index of the target in the chunk
    v1::SequenceResult* result = nullptr;
  };

  absl::Status SampleRows(absl::Span<const HeadRow> rows);
  absl::Status ScoreRows(absl::Span<const HeadRow> rows);

  Backend* backend_;
  Transformer* transformer_;
  const int rank_;
  const PlanLimits limits_;
};

}  // namespace octet

#endif  // OCTET_WORKER_SERVE_ENGINE_H_
