// Times decode and prefill steps of a model of any shape with random weights,
// ranks as threads, against what the machine could do at best: a decode step
// must read every weight it uses once, a prefill step must do its products.
//
// Runs in this process; blocks until done. Memory: the whole model once,
// whatever the number of ranks (dense parts once per rank).
#ifndef OCTET_LAUNCH_MODEL_BENCH_H_
#define OCTET_LAUNCH_MODEL_BENCH_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cpu/isa.h"
#include "kernels/dtype.h"
#include "worker/model/config.h"
#include "worker/model/transformer.h"

namespace octet {

struct ModelBenchOptions {
  ModelConfig config;
  DType dtype = DType::kBF16;
  int ranks = 1;
  int threads_per_rank = 1;
  cpu::Isa isa = cpu::BestIsa();
  std::vector<int>
      decode_batches;  // sequences in a decode step, over all ranks
  std::vector<int> prefill_lengths;  // tokens of one prompt on each rank
  int context = 32;                  // tokens before the decoded one
  int repeats = 5;  // timed steps of a workload; the median is reported
};

struct ModelBenchResult {
  bool decode = false;
  int64_t tokens = 0;  // computed by one step over all ranks
  double seconds = 0;  // median of the repeats, of the slowest rank
  double weight_bytes =
      0;             // distinct weight bytes that the step reads, all ranks
  double flops = 0;  // of all products, 2 per multiply-add
  double bytes_sent = 0;  // by all ranks to other ranks
  ForwardSeconds phases;  // of rank 0, per step
};

// `on_result` is called as each workload ends, `on_progress` with bytes of
// weights made.
absl::Status RunModelBench(
    const ModelBenchOptions& options,
    const std::function<void(int64_t done, int64_t total)>& on_progress,
    const std::function<void(const ModelBenchResult&)>& on_result);

}  // namespace octet

#endif  // OCTET_LAUNCH_MODEL_BENCH_H_
