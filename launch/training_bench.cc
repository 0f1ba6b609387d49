#include "launch/training_bench.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "kernels/cpu/cpu_backend.h"
#include "launch/local_ranks.h"
#include "launch/random_weights.h"
#include "worker/checkpoint/hf_loader.h"
#include "worker/model/training_batch.h"
#include "worker/moe/placement.h"
#include "worker/service/host_memory.h"
#include "worker/train/run.h"

namespace octet {
namespace {

struct RankStep {
  double seconds = 0;
  v1::TrainingSeconds phases;
};

// What one rank did.
struct RankTimes {
  std::vector<RankStep> steps;
  double loss = 0;  // of the last step
  v1::Run run;
};

v1::ForwardBackwardRequest RandomSlots(const TrainingBenchOptions& options) {
  std::minstd_rand random(1);
  v1::ForwardBackwardRequest request;
  for (int slot = 0; slot < options.slots; ++slot) {
    v1::TrainingSequence* sequence = request.add_slots()->add_sequences();
    for (int i = 0; i < options.sequence_length; ++i) {
      sequence->add_token_ids(
          static_cast<int32_t>(random() % options.config.vocab_size));
    }
    *sequence->mutable_labels() = sequence->token_ids();
  }
  return request;
}

// Of the rank with most.
int64_t MaxRankTokens(const TrainingBenchOptions& options) {
  const std::vector<int64_t> tokens(options.slots, options.sequence_length);
  const std::vector<int64_t> begin = SplitSlots(tokens, options.ranks);
  int64_t most = 1;
  for (int rank = 0; rank < options.ranks; ++rank) {
    most = std::max(most, begin[rank + 1] - begin[rank]);
  }
  return most * options.sequence_length;
}

// Within collectives, since the group began.
double WaitedSeconds(const Communicator& communicator) {
  absl::Duration waited;
  for (const OpCounters& counters : communicator.counters()) {
    waited += counters.waited;
  }
  return absl::ToDoubleSeconds(waited);
}

absl::StatusOr<RankStep> Step(TrainingRun& run,
                              const Communicator& communicator,
                              const v1::ForwardBackwardRequest& slots,
                              const v1::AdamWConfig& adamw, int64_t step_id,
                              double* loss) {
  v1::OptimStepRequest optim;
  *optim.mutable_adamw() = adamw;
  const double waited_before = WaitedSeconds(communicator);
  const absl::Time begin = absl::Now();
  OCTET_ASSIGN_OR_RETURN(v1::ForwardResponse forward,
                         run.ForwardBackward(slots, step_id));
  OCTET_ASSIGN_OR_RETURN(const v1::OptimStepResponse update,
                         run.OptimStep(optim, step_id + 1));
  RankStep step;
  step.seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  step.phases = *std::move(forward.mutable_seconds());
  step.phases.set_optimizer(update.seconds().optimizer());
  step.phases.set_waiting(WaitedSeconds(communicator) - waited_before);
  step.phases.set_total(step.seconds);
  *loss = forward.loss();
  return step;
}

// Everything one rank's thread does.
absl::StatusOr<RankTimes> RunRank(const TrainingBenchOptions& options,
                                  const Placement& placement,
                                  Communicator& communicator,
                                  std::atomic<int64_t>& bytes_done) {
  OCTET_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend,
                         NewCpuBackend({.num_threads = options.threads_per_rank,
                                        .isa = options.isa}));
  OCTET_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream,
                         backend->NewStream());
  OCTET_ASSIGN_OR_RETURN(
      ModelWeights weights,
      MakeRandomWeights(*backend, *stream, options.config, options.dtype,
                        placement.LocalExperts(communicator.rank()),
                        bytes_done));
  const OpInfo barrier = {.operation = "barrier"};
  OCTET_RETURN_IF_ERROR(communicator.Barrier(barrier));
  TrainingEnvironment environment;
  environment.memory.available_bytes = AvailableHostBytes() / options.ranks;
  OCTET_RETURN_IF_ERROR(communicator.Barrier(barrier));
  v1::CreateRunRequest request = options.run;
  request.set_max_rank_tokens(MaxRankTokens(options));
  const RankModel model = {backend.get(), &communicator, &options.config,
                           &placement, &weights};
  OCTET_ASSIGN_OR_RETURN(const std::unique_ptr<TrainingRun> run,
                         TrainingRun::Create(model, environment, request, 0));
  RankTimes times;
  const v1::ForwardBackwardRequest slots = RandomSlots(options);
  for (int step = -1; step < options.steps; ++step) {  // -1 warms up
    OCTET_RETURN_IF_ERROR(communicator.Barrier(barrier));
    OCTET_ASSIGN_OR_RETURN(RankStep timed,
                           Step(*run, communicator, slots, options.adamw,
                                2 * step + 3, &times.loss));
    if (step >= 0) times.steps.push_back(std::move(timed));
  }
  times.run = run->Describe();
  return times;
}

// The one of median time.
RankStep MedianStep(std::vector<RankStep> steps) {
  const auto middle = steps.begin() + static_cast<int64_t>(steps.size()) / 2;
  std::nth_element(steps.begin(), middle, steps.end(),
                   [](const RankStep& a, const RankStep& b) {
                     return a.seconds < b.seconds;
                   });
  return *middle;
}

}  // namespace

absl::StatusOr<TrainingBenchResult> RunTrainingBench(
    const TrainingBenchOptions& options,
    const std::function<void(int64_t, int64_t)>& on_progress) {
  OCTET_ASSIGN_OR_RETURN(
      const Placement placement,
      Placement::Default(options.config.num_experts, options.ranks));
  int64_t total = 0;
  for (int rank = 0; rank < options.ranks; ++rank) {
    total += WeightBytes(options.config, placement.LocalExperts(rank).size(),
                         options.dtype);
  }
  std::atomic<int64_t> bytes_done{0};
  std::vector<RankTimes> ranks(options.ranks);
  OCTET_RETURN_IF_ERROR(RunLocalRanks(
      options.ranks,
      [&](Communicator& communicator) -> absl::Status {
        OCTET_ASSIGN_OR_RETURN(
            ranks[communicator.rank()],
            RunRank(options, placement, communicator, bytes_done));
        return absl::OkStatus();
      },
      [&] { on_progress(std::min<int64_t>(bytes_done, total), total); }));
  std::vector<RankStep> slowest = ranks[0].steps;
  for (const RankTimes& rank : ranks) {
    for (int i = 0; i < options.steps; ++i) {
      slowest[i].seconds = std::max(slowest[i].seconds, rank.steps[i].seconds);
    }
  }
  TrainingBenchResult result;
  result.tokens = int64_t{options.slots} * options.sequence_length;
  result.seconds = MedianStep(std::move(slowest)).seconds;
  result.phases = MedianStep(ranks[0].steps).phases;
  result.loss = ranks[0].loss;
  result.run = ranks[0].run;
  OCTET_ASSIGN_OR_RETURN(
      result.flops, CountTrainingFlops(options.config, result.run.config(),
                                       options.slots, options.sequence_length));
  return result;
}

}  // namespace octet
