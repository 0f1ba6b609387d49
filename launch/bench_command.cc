// octet bench: this machine's limits, and decode and prefill of a Mixtral layer
// stack as shares of them.
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cpu/machine_limits.h"
#include "kernels/cpu/thread_pool.h"
#include "launch/command.h"
#include "launch/flags.h"
#include "launch/kernel_bench_command.h"
#include "launch/model_bench.h"
#include "launch/progress.h"
#include "launch/training_bench_command.h"
#include "worker/checkpoint/random_checkpoint.h"

namespace octet {
namespace {

constexpr size_t kBandwidthBytesPerThread = size_t{1} << 30;

struct Limits {
  double read_bandwidth = 0;  // bytes/s
  double matrix_peak = 0;     // flop/s
};

absl::StatusOr<Limits> MeasureLimits(const ModelBenchOptions& options) {
  cpu::ThreadPool pool(options.ranks * options.threads_per_rank);
  Limits limits;
  OCTET_ASSIGN_OR_RETURN(
      limits.read_bandwidth,
      cpu::MeasureReadBandwidth(options.isa, pool, kBandwidthBytesPerThread));
  limits.matrix_peak = cpu::MeasureMatrixPeak(options.isa, options.dtype, pool);
  return limits;
}

void PrintHeader(const ModelBenchOptions& options, const Limits& limits) {
  const ModelConfig& config = options.config;
  std::printf("machine    %s\n", cpu::DescribeMachine().c_str());
  std::printf(
      "workload   %d layers, H %lld, F %lld, %d experts, top %d, %d/%d heads "
      "of %d, V %lld, %s; random weights, "
      "so routing is close to balanced\n",
      config.num_layers, static_cast<long long>(config.hidden_dim),
      static_cast<long long>(config.ffn_dim), config.num_experts, config.top_k,
      config.num_heads, config.num_kv_heads, config.head_dim,
      static_cast<long long>(config.vocab_size),
      std::string(Name(options.dtype)).c_str());
  std::printf("ranks      %d as threads, %d compute thread(s) each, %s\n",
              options.ranks, options.threads_per_rank,
              std::string(cpu::Name(options.isa)).c_str());
  std::printf(
      "limits     %.1f GB/s read from memory, %.0f GFLOP/s %s products "
      "(measured now, same threads)\n\n",
      limits.read_bandwidth / 1e9, limits.matrix_peak / 1e9,
      std::string(Name(options.dtype)).c_str());
  std::printf("%-9s %7s %10s %10s %12s %12s   %s\n", "step", "tokens", "ms",
              "tokens/s", "reached", "of limit",
              "ms in attention / router / dispatch / experts / combine / head; "
              "MiB sent");
}

void PrintResult(const ModelBenchResult& result, const Limits& limits) {
  const double bytes_per_second = result.weight_bytes / result.seconds;
  const double flops = result.flops / result.seconds;
  // A step is bound by what takes longer at the limit: reading its weights, or
  // multiplying.
  const bool memory_bound = result.weight_bytes / limits.read_bandwidth >
                            result.flops / limits.matrix_peak;
  const std::string reached =
      memory_bound
          ? absl::StrCat(static_cast<int>(bytes_per_second / 1e8) / 10.0,
                         " GB/s")
          : absl::StrCat(static_cast<int>(flops / 1e9), " GFLOP/s");
  const double share = memory_bound ? bytes_per_second / limits.read_bandwidth
                                    : flops / limits.matrix_peak;
  const ForwardSeconds& phases = result.phases;
  std::printf(
      "%-9s %7lld %10.2f %10.1f %12s %10.1f %%   %.2f / %.2f / %.2f / %.2f / "
      "%.2f / %.2f; %.2f\n",
      result.decode ? "decode" : "prefill",
      static_cast<long long>(result.tokens), result.seconds * 1e3,
      result.tokens / result.seconds, reached.c_str(), 100 * share,
      phases.attention * 1e3, phases.moe.router * 1e3,
      phases.moe.dispatch * 1e3, phases.moe.expert * 1e3,
      phases.moe.combine * 1e3, phases.head * 1e3, result.bytes_sent / 1048576);
  std::fflush(stdout);
}

}  // namespace

absl::Status RunBench(const Args& args) {
  if (!args.empty() && args[0] == "kernels") {
    return RunKernelBench(Args(args.begin() + 1, args.end()), nullptr);
  }
  if (!args.empty() && args[0] == "train") {
    return RunTrainingBenchCommand(Args(args.begin() + 1, args.end()));
  }
  std::string preset = "mixtral-8x7b";
  std::string dtype = "bf16";
  std::string isa(cpu::Name(cpu::BestIsa()));
  std::optional<int> layers;
  ModelBenchOptions options;
  options.threads_per_rank = 0;
  options.decode_batches = {1, 2, 4, 8, 16};
  options.prefill_lengths = {512};
  Flags flags(
      "octet bench",
      "Measures this machine's limits, and decode and prefill steps of a model "
      "with random weights as shares "
      "of them. The default is 2 layers of Mixtral 8x7B, which takes 6 GiB. "
      "octet bench kernels: single operations. octet bench train: training "
      "steps.");
  flags.Add("preset", &preset, "shape, see octet init");
  flags.Add("layers", &layers,
            "layers (default 2 for a preset larger than that)", {.min = 1});
  flags.AddChoice("dtype", &dtype, {"bf16", "f32"}, "of the weights");
  flags.Add("ranks", &options.ranks, "ranks, as threads",
            {.min = 1, .max = 1024});
  flags.Add("threads", &options.threads_per_rank,
            "compute threads per rank; 0 = processors / ranks", {.min = 0});
  flags.Add("isa", &isa, "avx2, avx512, avx512_bf16 or amx");
  flags.Add("decode", &options.decode_batches,
            "sequences in a decode step, over all ranks",
            {.min = 1, .max = 65536});
  flags.Add("prefill", &options.prefill_lengths,
            "prompt lengths, tokens on each rank", {.min = 1, .max = 65536});
  flags.Add("context", &options.context, "tokens before a decoded one",
            {.min = 1});
  flags.Add("repeats", &options.repeats,
            "timed steps per line; the median is printed", {.min = 1});
  OCTET_ASSIGN_OR_RETURN(const bool go_on, flags.Parse(args));
  if (!go_on) return absl::OkStatus();

  OCTET_ASSIGN_OR_RETURN(options.config, FindModelPreset(preset));
  options.config.num_layers =
      layers.value_or(std::min(options.config.num_layers, 2));
  options.dtype = dtype == "f32" ? DType::kF32 : DType::kBF16;
  OCTET_ASSIGN_OR_RETURN(options.isa, cpu::ParseIsa(isa));
  if (options.threads_per_rank == 0) {
    options.threads_per_rank =
        std::max(1, static_cast<int>(std::thread::hardware_concurrency()) /
                        options.ranks);
  }
  OCTET_RETURN_IF_ERROR(ValidateModelConfig(options.config, "octet bench"));
  OCTET_ASSIGN_OR_RETURN(const Limits limits, MeasureLimits(options));
  PrintHeader(options, limits);
  std::optional<Progress> progress;
  return RunModelBench(
      options,
      [&](int64_t done, int64_t total) {
        if (!progress) progress.emplace("making weights", total, "bytes");
        if (done < total) progress->Update(done);
      },
      [&](const ModelBenchResult& result) { PrintResult(result, limits); });
}

}  // namespace octet
