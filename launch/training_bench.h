// Times training steps of a model of any shape with random weights, ranks as
// threads: what a step takes, where its time goes, what memory it needs.
//
// Runs in this process on worker/train's TrainingRun, without a coordinator and
// without files; blocks until done.
#ifndef OCTET_LAUNCH_TRAINING_BENCH_H_
#define OCTET_LAUNCH_TRAINING_BENCH_H_

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "kernels/cpu/isa.h"
#include "kernels/dtype.h"
#include "launch/training_flops.h"
#include "proto/training.pb.h"
#include "worker/model/config.h"

namespace octet {

struct TrainingBenchOptions {
  ModelConfig config;
  DType dtype = DType::kBF16;
  int ranks = 1;
  int threads_per_rank = 1;
  cpu::Isa isa = cpu::BestIsa();
  // What the run trains; max_rank_tokens is filled in.
  v1::CreateRunRequest run;
  v1::AdamWConfig adamw;
  int slots = 2;              // of a step, over all ranks
  int sequence_length = 512;  // tokens of a slot, one sequence
  int steps = 3;              // timed, after one that is not
};

struct TrainingBenchResult {
  int64_t tokens = 0;  // of a step, over all ranks
  double seconds = 0;  // median of the steps, of the slowest rank
  // Of the step that took rank 0 the median time, on rank 0.
  v1::TrainingSeconds phases;
  double loss = 0;  // of the last step
  TrainingFlops flops;
  v1::Run run;  // with the memory plans of all ranks
};

// A step is one ForwardBackward over all slots and one OptimStep.
// `on_progress` is called with bytes of weights made.
absl::StatusOr<TrainingBenchResult> RunTrainingBench(
    const TrainingBenchOptions& options,
    const std::function<void(int64_t done, int64_t total)>& on_progress);

}  // namespace octet

#endif  // OCTET_LAUNCH_TRAINING_BENCH_H_
