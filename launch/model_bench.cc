#include "launch/model_bench.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <utility>

#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "kernels/cpu/cpu_backend.h"
#include "launch/local_ranks.h"
#include "launch/random_weights.h"
#include "worker/checkpoint/hf_loader.h"
#include "worker/model/kv_cache.h"
#include "worker/moe/placement.h"

namespace octet {
namespace {

constexpr int kBlockTokens = 16;
// One step's slices on a rank: `sequences` sequences of `tokens` tokens each
// from position `start`.
struct RankStep {
  RankStep(int sequences, int tokens, int64_t start,
           int64_t blocks_per_sequence, const ModelConfig& config, int salt) {
    std::minstd_rand random(salt + 1);
    ids.resize(static_cast<size_t>(sequences) * tokens);
    for (int32_t& id : ids)
      id = static_cast<int32_t>(random() % config.vocab_size);
    blocks.resize(sequences * blocks_per_sequence);
    std::iota(blocks.begin(), blocks.end(), 0);
    for (int s = 0; s < sequences; ++s) {
      SequenceSlice slice;
      slice.start_position = start;
      slice.token_ids = absl::MakeConstSpan(ids).subspan(
          static_cast<size_t>(s) * tokens, tokens);
      slice.block_ids = absl::MakeConstSpan(blocks).subspan(
          s * blocks_per_sequence, blocks_per_sequence);
      slices.push_back(slice);
      head_rows.push_back((s + 1) * tokens - 1);
    }
  }

  std::vector<int32_t> ids;
  std::vector<int32_t> blocks;
  std::vector<SequenceSlice> slices;
  std::vector<int32_t> head_rows;  // the last row of each sequence
};

struct Workload {
  bool decode = false;
  int size = 0;  // sequences over all ranks, or tokens on each rank
};

// What one rank did in one timed workload.
struct RankTimes {
  std::vector<double> seconds;
  std::vector<int64_t> expert_rows;  // [L, E] of one step
  ForwardSeconds phases;             // per step
  int64_t bytes_sent = 0;            // per step
};

class RankBench {
 public:
  RankBench(const ModelBenchOptions& options, const Placement& placement,
            Communicator& communicator)
      : options_(options), placement_(placement), communicator_(communicator) {}

  absl::Status Load(std::atomic<int64_t>& bytes_done) {
    OCTET_ASSIGN_OR_RETURN(
        backend_, NewCpuBackend({.num_threads = options_.threads_per_rank,
                                 .isa = options_.isa}));
    OCTET_ASSIGN_OR_RETURN(const std::unique_ptr<Stream> stream,
                           backend_->NewStream());
    OCTET_ASSIGN_OR_RETURN(
        weights_,
        MakeRandomWeights(*backend_, *stream, options_.config, options_.dtype,
                          placement_.LocalExperts(communicator_.rank()),
                          bytes_done));
    const int64_t longest = LongestSequence();
    const int sequences = std::max(1, MostSequences());
    blocks_per_sequence_ = (longest + kBlockTokens - 1) / kBlockTokens;
    OCTET_ASSIGN_OR_RETURN(
        KvCache cache,
        KvCache::Create(*backend_, options_.config, options_.dtype,
                        blocks_per_sequence_ * sequences, kBlockTokens));
    cache_ = std::make_unique<KvCache>(std::move(cache));
    TransformerLimits limits;
    limits.max_step_tokens =
        std::max<int64_t>(longest, int64_t{sequences} * options_.context);
    OCTET_ASSIGN_OR_RETURN(
        transformer_,
        Transformer::Create(backend_.get(), &communicator_, options_.config,
                            &placement_, &weights_, cache_.get(), limits));
    return absl::OkStatus();
  }

  absl::StatusOr<RankTimes> Run(const Workload& workload) {
    RankTimes times;
    if (workload.decode) {  // the context that decoding attends to
      OCTET_RETURN_IF_ERROR(Step(RankSequences(workload, communicator_.rank()),
                                 options_.context, 0, workload)
                                .status());
    }
    for (int repeat = -1; repeat < options_.repeats; ++repeat) {  // -1 warms up
      const std::vector<int64_t> rows_before(
          transformer_->expert_rows().begin(),
          transformer_->expert_rows().end());
      const int64_t sent_before = BytesSent();
      const ForwardSeconds phases_before = transformer_->seconds();
      OCTET_RETURN_IF_ERROR(communicator_.Barrier({.operation = "barrier"}));
      const int tokens = workload.decode ? 1 : workload.size;
      OCTET_ASSIGN_OR_RETURN(
          const double seconds,
          Step(RankSequences(workload, communicator_.rank()), tokens,
               workload.decode ? options_.context : 0, workload));
      if (repeat < 0) continue;
      times.seconds.push_back(seconds);
      times.expert_rows.assign(transformer_->expert_rows().begin(),
                               transformer_->expert_rows().end());
      for (size_t i = 0; i < rows_before.size(); ++i)
        times.expert_rows[i] -= rows_before[i];
      times.bytes_sent = BytesSent() - sent_before;
      times.phases = Difference(transformer_->seconds(), phases_before);
    }
    return times;
  }

 private:
  int RankSequences(const Workload& workload, int rank) const {
    if (!workload.decode) return 1;
    return workload.size * (rank + 1) / options_.ranks -
           workload.size * rank / options_.ranks;
  }
  int MostSequences() const {
    int most = 1;
    for (int batch : options_.decode_batches)
      most = std::max(most, (batch + options_.ranks - 1) / options_.ranks);
    return most;
  }
  int64_t LongestSequence() const {
    int longest = options_.context + 1;
    for (int length : options_.prefill_lengths)
      longest = std::max(longest, length);
    return longest;
  }
  int64_t BytesSent() const {
    int64_t bytes = 0;
    for (const OpCounters& counters : communicator_.counters())
      bytes += counters.bytes_sent;
    return bytes;
  }
  static ForwardSeconds Difference(ForwardSeconds a, const ForwardSeconds& b) {
    a.attention -= b.attention;
    a.moe.router -= b.moe.router;
    a.moe.dispatch -= b.moe.dispatch;
    a.moe.expert -= b.moe.expert;
    a.moe.combine -= b.moe.combine;
    a.head -= b.head;
    return a;
  }

  // Seconds of one step of `sequences` sequences with `tokens` tokens each on
  // this rank.
  absl::StatusOr<double> Step(int sequences, int tokens, int64_t start,
                              const Workload& workload) {
    const RankStep step(sequences, tokens, start, blocks_per_sequence_,
                        options_.config, communicator_.rank());
    std::vector<int64_t> rank_tokens;
    for (int rank = 0; rank < options_.ranks; ++rank)
      rank_tokens.push_back(RankSequences(workload, rank) * tokens);
    const absl::Time begin = absl::Now();
    OCTET_RETURN_IF_ERROR(transformer_->Forward(0, step.slices, rank_tokens));
    if (!step.head_rows.empty())
      OCTET_RETURN_IF_ERROR(transformer_->Logits(step.head_rows).status());
    OCTET_RETURN_IF_ERROR(backend_->Synchronize(transformer_->stream()));
    return absl::ToDoubleSeconds(absl::Now() - begin);
  }

  const ModelBenchOptions& options_;
  const Placement& placement_;
  Communicator& communicator_;
  std::unique_ptr<Backend> backend_;
  ModelWeights weights_;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Transformer> transformer_;
  int64_t blocks_per_sequence_ = 0;
};

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2,
                   values.end());
  return values[values.size() / 2];
}

ModelBenchResult Summarize(const ModelBenchOptions& options,
                           const Workload& workload,
                           const std::vector<RankTimes>& ranks) {
  const ModelConfig& config = options.config;
  ModelBenchResult result;
  result.decode = workload.decode;
  result.tokens =
      workload.decode ? workload.size : int64_t{workload.size} * options.ranks;
  std::vector<double> slowest(options.repeats, 0.0);
  for (const RankTimes& rank : ranks) {
    for (int i = 0; i < options.repeats; ++i)
      slowest[i] = std::max(slowest[i], rank.seconds[i]);
    result.bytes_sent += rank.bytes_sent;
  }
  result.seconds = Median(slowest);
  result.phases = ranks[0].phases;

  const double element = SizeOf(options.dtype);
  const double attention =
      (2.0 * config.q_dim() + 2.0 * config.kv_dim()) * config.hidden_dim;
  const double gate =
      static_cast<double>(config.num_experts) * config.hidden_dim;
  const double expert = 3.0 * config.ffn_dim * config.hidden_dim;
  const double head =
      static_cast<double>(config.vocab_size) * config.hidden_dim;
  double expert_visits = 0, expert_rows = 0;
  for (const RankTimes& rank : ranks) {
    for (int64_t rows : rank.expert_rows) {
      expert_visits += rows > 0;
      expert_rows += rows;
    }
  }
  const int busy_ranks =
      workload.decode ? std::min(options.ranks, workload.size) : options.ranks;
  const double dense = config.num_layers * (attention + gate) + head;
  result.weight_bytes = element * (busy_ranks * dense + expert_visits * expert);
  const double head_rows = workload.decode ? workload.size : options.ranks;
  result.flops = 2 * (result.tokens * config.num_layers * (attention + gate) +
                      expert_rows * expert + head_rows * head);
  return result;
}

// Everything one rank's thread does. The first error of any rank aborts the
// others.
absl::Status RunRank(
    const ModelBenchOptions& options, const Placement& placement,
    Communicator& communicator, const std::vector<Workload>& workloads,
    std::atomic<int64_t>& bytes_done,
    std::vector<std::vector<RankTimes>>& times,
    const std::function<void(const ModelBenchResult&)>& on_result) {
  RankBench bench(options, placement, communicator);
  OCTET_RETURN_IF_ERROR(bench.Load(bytes_done));
  for (size_t i = 0; i < workloads.size(); ++i) {
    OCTET_ASSIGN_OR_RETURN(times[i][communicator.rank()],
                           bench.Run(workloads[i]));
    OCTET_RETURN_IF_ERROR(communicator.Barrier({.operation = "barrier"}));
    if (communicator.rank() == 0)
      on_result(Summarize(options, workloads[i], times[i]));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RunModelBench(
    const ModelBenchOptions& options,
    const std::function<void(int64_t, int64_t)>& on_progress,
    const std::function<void(const ModelBenchResult&)>& on_result) {
  OCTET_ASSIGN_OR_RETURN(
      const Placement placement,
      Placement::Default(options.config.num_experts, options.ranks));
  std::vector<Workload> workloads;
  for (int batch : options.decode_batches)
    workloads.push_back({.decode = true, .size = batch});
  for (int length : options.prefill_lengths)
    workloads.push_back({.decode = false, .size = length});
  std::vector<std::vector<RankTimes>> times(
      workloads.size(), std::vector<RankTimes>(options.ranks));

  int64_t total = 0;
  for (int rank = 0; rank < options.ranks; ++rank) {
    total += WeightBytes(options.config, placement.LocalExperts(rank).size(),
                         options.dtype);
  }
  std::atomic<int64_t> bytes_done{0};
  return RunLocalRanks(
      options.ranks,
      [&](Communicator& communicator) {
        return RunRank(options, placement, communicator, workloads, bytes_done,
                       times, on_result);
      },
      [&] { on_progress(std::min<int64_t>(bytes_done, total), total); });
}

}  // namespace octet
