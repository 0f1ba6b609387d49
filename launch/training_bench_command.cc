#include "launch/training_bench_command.h"

#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "base/status_macros.h"
#include "kernels/cpu/machine_limits.h"
#include "kernels/cpu/thread_pool.h"
#include "launch/flags.h"
#include "launch/progress.h"
#include "launch/training_bench.h"

namespace octet {
namespace {

constexpr double kMiB = 1 << 20;

// The model that is timed when no flag says otherwise: 0.8 G parameters.
ModelConfig DefaultShape() {
  ModelConfig config;
  config.hidden_dim = 1024;
  config.ffn_dim = 3584;
  config.num_layers = 8;
  config.num_heads = 16;
  config.num_kv_heads = 8;
  config.head_dim = 64;
  return config;
}

void AddShape(ModelConfig& config, Flags& flags) {
  const Range positive = {.min = 1};
  flags.Add("vocab-size", &config.vocab_size, "vocabulary", positive);
  flags.Add("hidden", &config.hidden_dim, "hidden size", positive);
  flags.Add("ffn", &config.ffn_dim, "size of an expert's inner layer",
            positive);
  flags.Add("layers", &config.num_layers, "layers", positive);
  flags.Add("heads", &config.num_heads, "query heads", positive);
  flags.Add("kv-heads", &config.num_kv_heads, "key/value heads", positive);
  flags.Add("head-dim", &config.head_dim, "size of a head", positive);
  flags.Add("experts", &config.num_experts, "experts per layer", positive);
  flags.Add("top-k", &config.top_k, "experts per token", positive);
}

struct BenchFlags {
  std::string method = "lora", dtype = "bf16";
  std::string isa{cpu::Name(cpu::BestIsa())};
  int lora_rank = 8;

  void AddTo(Flags& flags, TrainingBenchOptions& options) {
    AddShape(options.config, flags);
    flags.AddChoice("method", &method, {"lora", "full"},
                    "adapters on all linear modules, or every weight");
    flags.Add("lora-rank", &lora_rank, "r of an adapter", {.min = 1});
    flags.AddChoice("dtype", &dtype, {"bf16", "f32"}, "of the weights");
    flags.Add("workers", &options.ranks, "ranks, as threads",
              {.min = 1, .max = 1024});
    flags.Add("threads", &options.threads_per_rank,
              "compute threads per rank; 0 = processors / ranks", {.min = 0});
    flags.Add("isa", &isa, "avx2, avx512, avx512_bf16 or amx");
    flags.Add("slots", &options.slots, "sequences of a step, over all ranks",
              {.min = 1, .max = 65536});
    flags.Add("length", &options.sequence_length, "tokens of a sequence",
              {.min = 2, .max = 65536});
    flags.Add("steps", &options.steps,
              "timed steps, after one that is not; the median is printed",
              {.min = 1});
  }

  absl::Status ApplyTo(TrainingBenchOptions& options) const {
    options.dtype = dtype == "f32" ? DType::kF32 : DType::kBF16;
    OCTET_ASSIGN_OR_RETURN(options.isa, cpu::ParseIsa(isa));
    if (options.threads_per_rank == 0) {
      options.threads_per_rank =
          std::max(1, static_cast<int>(std::thread::hardware_concurrency()) /
                          options.ranks);
    }
    v1::CreateRunRequest& run = options.run;
    run.set_run_id("bench");
    run.set_method(v1::TRAINING_METHOD_FULL);
    if (method == "lora") {
      run.set_method(v1::TRAINING_METHOD_LORA);
      run.mutable_lora()->set_rank(lora_rank);
      run.mutable_lora()->add_target_modules("all");
    }
    options.adamw.set_learning_rate(1e-4);
    options.adamw.set_max_grad_norm(1);
    return ValidateModelConfig(options.config, "octet bench train");
  }
};

void PrintHeader(const TrainingBenchOptions& options, const std::string& method,
                 double matrix_peak) {
  const ModelConfig& config = options.config;
  const std::string dtype(Name(options.dtype));
  std::printf("machine    %s\n", cpu::DescribeMachine().c_str());
  std::printf(
      "workload   %d layers, H %lld, F %lld, %d experts, top %d, %d/%d heads "
      "of %d, V %lld, %s; random weights, so routing is close to balanced\n",
      config.num_layers, static_cast<long long>(config.hidden_dim),
      static_cast<long long>(config.ffn_dim), config.num_experts, config.top_k,
      config.num_heads, config.num_kv_heads, config.head_dim,
      static_cast<long long>(config.vocab_size), dtype.c_str());
  std::printf(
      "training   %s%s, %d sequence(s) of %d tokens a step, AdamW, %d step(s) "
      "after one that is not timed\n",
      method.c_str(), options.run.recompute() ? ", layers recomputed" : "",
      options.slots, options.sequence_length, options.steps);
  std::printf("ranks      %d as threads, %d compute thread(s) each, %s\n",
              options.ranks, options.threads_per_rank,
              std::string(cpu::Name(options.isa)).c_str());
  std::printf(
      "limit      %.0f GFLOP/s %s products (measured now, same threads)\n\n",
      matrix_peak / 1e9, dtype.c_str());
  std::fflush(stdout);
}

void PrintSpeed(const TrainingBenchResult& result, double matrix_peak) {
  const TrainingFlops& flops = result.flops;
  const double reached = flops.total() / result.seconds;
  std::printf("trained    %.2f M of %.1f M parameters, loss %.3f at the end\n",
              result.run.trainable_parameters() / 1e6,
              result.run.total_parameters() / 1e6, result.loss);
  std::printf("step       %.3f s, %.1f tokens/s\n", result.seconds,
              result.tokens / result.seconds);
  std::printf(
      "products   %.4g GFLOP: forward %.4g, gradients of inputs %.4g, of "
      "weights %.4g, recomputed %.4g\n",
      flops.total() / 1e9, flops.forward / 1e9, flops.backward_inputs / 1e9,
      flops.backward_weights / 1e9, flops.recompute / 1e9);
  std::printf("reached    %.0f GFLOP/s, %.1f %% of the limit\n", reached / 1e9,
              100 * reached / matrix_peak);
}

void PrintPhases(const v1::TrainingSeconds& s) {
  const double phases = s.attention() + s.router() + s.experts() +
                        s.dispatch() + s.combine() + s.head() + s.reduction() +
                        s.optimizer();
  std::printf(
      "seconds    of rank 0: attention %.3f, router %.3f, experts %.3f, "
      "dispatch %.3f, combine %.3f, head %.3f, reduction %.3f, optimizer %.3f, "
      "the rest %.3f; in these waiting for other ranks %.3f\n",
      s.attention(), s.router(), s.experts(), s.dispatch(), s.combine(),
      s.head(), s.reduction(), s.optimizer(), std::max(0.0, s.total() - phases),
      s.waiting());
}

void PrintMemory(const v1::Run& run) {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);  // ru_maxrss in KiB
  std::printf("memory     %.0f MiB resident at the most\n",
              usage.ru_maxrss / 1024.0);
  for (const v1::RankMemoryPlan& plan : run.memory()) {
    std::printf(
        "plan       rank %d, MiB: weights %.0f, adapters %.0f, gradients %.0f, "
        "optimizer %.0f, activations %.0f\n",
        plan.rank(), plan.weight_bytes() / kMiB, plan.adapter_bytes() / kMiB,
        plan.gradient_bytes() / kMiB, plan.optimizer_bytes() / kMiB,
        plan.activation_bytes() / kMiB);
  }
}

}  // namespace

absl::Status RunTrainingBenchCommand(const Args& args) {
  TrainingBenchOptions options;
  options.config = DefaultShape();
  options.threads_per_rank = 0;
  BenchFlags bench;
  bool recompute = false;
  Flags flags("octet bench train",
              "Measures training steps of a model with random weights: tokens "
              "per second, memory, the share of this machine's matrix peak and "
              "where the time goes. The default takes 3 GiB.");
  bench.AddTo(flags, options);
  flags.Add("recompute", &recompute,
            "keep only the layers' inputs of the forward pass");
  OCTET_ASSIGN_OR_RETURN(const bool go_on, flags.Parse(args));
  if (!go_on) return absl::OkStatus();
  options.run.set_recompute(recompute);
  OCTET_RETURN_IF_ERROR(bench.ApplyTo(options));

  double matrix_peak = 0;
  {
    cpu::ThreadPool pool(options.ranks * options.threads_per_rank);
    matrix_peak = cpu::MeasureMatrixPeak(options.isa, options.dtype, pool);
  }
  PrintHeader(options, bench.method, matrix_peak);
  std::optional<Progress> progress;
  OCTET_ASSIGN_OR_RETURN(
      const TrainingBenchResult result,
      RunTrainingBench(options, [&](int64_t done, int64_t total) {
        if (!progress) progress.emplace("making weights", total, "bytes");
        if (done < total) progress->Update(done);
      }));
  PrintSpeed(result, matrix_peak);
  PrintPhases(result.phases);
  PrintMemory(result.run);
  return absl::OkStatus();
}

}  // namespace octet
