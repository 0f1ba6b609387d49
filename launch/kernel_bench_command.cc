#include "launch/kernel_bench_command.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/machine_limits.h"
#include "kernels/cpu/thread_pool.h"
#include "launch/child_process.h"
#include "launch/flags.h"
#include "launch/gpu_peaks.h"
#include "launch/kernel_bench.h"
#include "launch/kernel_cases.h"
#include "worker/checkpoint/random_checkpoint.h"

namespace octet {
namespace {

constexpr size_t kBandwidthBytesPerThread = size_t{1} << 30;

struct Options {
  std::string device = "cpu";
  bool predict = false;
  std::string preset = "mixtral-8x7b";
  std::string dtype_name = "bf16";
  std::vector<int> decode = {1, 8, 64, 256};
  std::vector<int> prefill = {512, 4096};
  std::vector<int> train;
  int context = 1024;
  int threads = 0;
  float seconds = 0.2f;

  DType dtype() const {
    return dtype_name == "f32" ? DType::kF32 : DType::kBF16;
  }
  std::vector<KernelWorkload> workloads() const {
    std::vector<KernelWorkload> all;
    for (int tokens : decode) all.push_back({true, tokens, context});
    for (int tokens : prefill) all.push_back({false, tokens, 0});
    for (int tokens : train) all.push_back({false, tokens, 0, true});
    return all;
  }
};

// A column of floors.
struct Roof {
  std::string name;
  DeviceLimits limits;
};

// What is printed, and what is measured for it.
struct Report {
  ModelConfig config;
  std::vector<Roof> roofs;
  std::optional<size_t> own_roof;  // of the device that is measured
  KernelBench* bench = nullptr;    // null: nothing is measured
};

void PrintRow(const Report& report, const std::string& name,
              const std::string& shape, const OpCost& cost,
              const std::vector<double>& floors,
              std::optional<double> measured) {
  std::printf("%-22s %-38s %10.4f %11.4f", name.c_str(), shape.c_str(),
              cost.bytes / 1e6, cost.flops / 1e9);
  for (double floor : floors) std::printf(" %12.3f", floor * 1e6);
  if (measured) std::printf(" %12.3f", *measured * 1e6);
  if (measured && report.own_roof) {
    std::printf(" %8.1f %%", 100 * floors[*report.own_roof] / *measured);
  }
  std::printf("\n");
  std::fflush(stdout);
}

void PrintTableHead(const Report& report, const KernelWorkload& workload) {
  if (workload.decode) {
    std::printf("\ndecode: %lld sequences of one token after %lld\n",
                static_cast<long long>(workload.tokens),
                static_cast<long long>(workload.context));
  } else if (workload.training) {
    std::printf("\ntraining: one document of %lld tokens\n",
                static_cast<long long>(workload.tokens));
  } else {
    std::printf("\nprefill: one prompt of %lld tokens\n",
                static_cast<long long>(workload.tokens));
  }
  std::printf("%-22s %-38s %10s %11s", "operation", "shape", "MB", "GFLOP");
  for (const Roof& roof : report.roofs) {
    std::printf(" %12s", (roof.name + " us").c_str());
  }
  if (report.bench != nullptr) std::printf(" %12s", "measured us");
  if (report.bench != nullptr && report.own_roof)
    std::printf(" %10s", "floor/time");
  std::printf("\n");
}

absl::Status PrintWorkload(const Report& report, const Options& options,
                           const KernelWorkload& workload) {
  if (report.bench != nullptr) {
    OCTET_RETURN_IF_ERROR(report.bench->Prepare(workload));
  }
  PrintTableHead(report, workload);
  OpCost layer;
  std::vector<double> layer_floors(report.roofs.size(), 0.0);
  double layer_measured = 0;
  for (const KernelCase& c :
       KernelCases(report.config, options.dtype(), workload)) {
    std::vector<double> floors;
    for (const Roof& roof : report.roofs) {
      floors.push_back(FloorSeconds(c.cost, roof.limits));
    }
    std::optional<double> measured;
    if (report.bench != nullptr) {
      OCTET_ASSIGN_OR_RETURN(measured,
                             report.bench->Time(c.op, options.seconds));
      layer_measured += c.per_layer * *measured;
    }
    PrintRow(report, c.name, c.shape, c.cost, floors, measured);
    layer.bytes += c.per_layer * c.cost.bytes;
    layer.flops += c.per_layer * c.cost.flops;
    for (size_t i = 0; i < floors.size(); ++i) {
      layer_floors[i] += c.per_layer * floors[i];
    }
  }
  PrintRow(report, "sum of a layer", "without embedding and head", layer,
           layer_floors,
           report.bench != nullptr ? std::optional<double>(layer_measured)
                                   : std::nullopt);
  return absl::OkStatus();
}

void PrintModel(const Options& options, const ModelConfig& config) {
  std::printf(
      "model      %s, %s: H %lld, F %lld, %d experts, top %d, %d/%d heads of "
      "%d, V %lld; all experts on one rank, routing balanced\n",
      options.preset.c_str(), options.dtype_name.c_str(),
      static_cast<long long>(config.hidden_dim),
      static_cast<long long>(config.ffn_dim), config.num_experts, config.top_k,
      config.num_heads, config.num_kv_heads, config.head_dim,
      static_cast<long long>(config.vocab_size));
  std::printf(
      "floor      the larger of bytes / bandwidth and flops / peak, every byte "
      "from memory: what stays in a cache between calls can be faster\n");
}

absl::Status PrintTables(const Report& report, const Options& options) {
  for (const KernelWorkload& workload : options.workloads()) {
    OCTET_RETURN_IF_ERROR(PrintWorkload(report, options, workload));
  }
  return absl::OkStatus();
}

absl::Status RunOnCpu(Report report, const Options& options) {
  const int threads =
      options.threads > 0
          ? options.threads
          : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const cpu::Isa isa = cpu::BestIsa();
  Roof roof;
  roof.name = "floor";
  {
    cpu::ThreadPool pool(threads);
    OCTET_ASSIGN_OR_RETURN(
        roof.limits.bytes_per_second,
        cpu::MeasureReadBandwidth(isa, pool, kBandwidthBytesPerThread));
    roof.limits.bf16_flops_per_second =
        cpu::MeasureMatrixPeak(isa, DType::kBF16, pool);
    roof.limits.f32_flops_per_second =
        cpu::MeasureMatrixPeak(isa, DType::kF32, pool);
  }
  OCTET_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend,
                         NewCpuBackend({.num_threads = threads, .isa = isa}));
  OCTET_ASSIGN_OR_RETURN(
      const std::unique_ptr<KernelBench> bench,
      KernelBench::Create(backend.get(), report.config, options.dtype()));
  std::printf("machine    %s\n", cpu::DescribeMachine().c_str());
  std::printf("device     %s\n", backend->Description().c_str());
  std::printf(
      "limits     %.1f GB/s read from memory, %.0f GFLOP/s bf16, %.0f GFLOP/s "
      "f32 (measured now, same threads)\n",
      roof.limits.bytes_per_second / 1e9,
      roof.limits.bf16_flops_per_second / 1e9,
      roof.limits.f32_flops_per_second / 1e9);
  PrintModel(options, report.config);
  report.roofs = {roof};
  report.own_roof = 0;
  report.bench = bench.get();
  return PrintTables(report, options);
}

void AddPublicPeaks(Report& report) {
  for (const GpuPeak& peak : GpuPeaks()) {
    std::printf("           %s\n", std::string(peak.source).c_str());
    report.roofs.push_back({std::string(peak.name), peak.limits});
  }
}

absl::Status Predict(Report report, const Options& options) {
  std::printf("predicted  from public peaks; nothing here was measured:\n");
  AddPublicPeaks(report);
  PrintModel(options, report.config);
  return PrintTables(report, options);
}

absl::Status RunOnCuda(Report report, const Options& options,
                       const NewBackend& new_cuda_backend) {
  OCTET_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend,
                         new_cuda_backend());
  const std::string description = backend->Description();
  OCTET_ASSIGN_OR_RETURN(
      const std::unique_ptr<KernelBench> bench,
      KernelBench::Create(backend.get(), report.config, options.dtype()));
  const GpuPeak* own = FindGpuPeak(description);
  std::printf("device     %s\n", description.c_str());
  std::printf("limits     public peaks, not measured; %s:\n",
              own != nullptr
                  ? absl::StrCat("floor/time is the ", own->name, "'s").c_str()
                  : "this GPU is none of them");
  AddPublicPeaks(report);
  std::printf(
      "measured   host's clock around calls put on one stream; launches and, "
      "for Sample and ScoreTokens, waiting count\n");
  PrintModel(options, report.config);
  if (own != nullptr) report.own_roof = own - GpuPeaks().data();
  report.bench = bench.get();
  return PrintTables(report, options);
}

}  // namespace

absl::Status RunKernelBench(const Args& args,
                            const NewBackend& new_cuda_backend) {
  Options options;
  Flags flags("octet bench kernels",
              "Every operation of a step: bytes, flops, the shortest time for "
              "them, and the time measured on this machine. --device cuda "
              "--predict measures nothing and needs no GPU.");
  flags.AddChoice("device", &options.device, {"cpu", "cuda"}, "what runs them");
  flags.Add("predict", &options.predict,
            "floors on A100, H100, H200 and B200 only (with --device cuda)");
  flags.Add("preset", &options.preset, "shape, see octet init");
  flags.AddChoice("dtype", &options.dtype_name, {"bf16", "f32"},
                  "of weights and cache");
  flags.Add("decode", &options.decode, "sequences in a decode step",
            {.min = 1, .max = 65536});
  flags.Add("prefill", &options.prefill, "tokens of a prompt",
            {.min = 1, .max = 65536});
  flags.Add("train", &options.train,
            "tokens of a training step: its own operations",
            {.min = 1, .max = 65536});
  flags.Add("context", &options.context, "tokens before a decoded one",
            {.min = 1, .max = 1 << 20});
  flags.Add("threads", &options.threads, "of the CPU backend; 0 = processors",
            {.min = 0});
  flags.Add("seconds", &options.seconds, "measured for each line",
            {.min = 0, .max = 3600});
  OCTET_ASSIGN_OR_RETURN(const bool go_on, flags.Parse(args));
  if (!go_on) return absl::OkStatus();
  if (options.predict && options.device != "cuda") {
    return absl::InvalidArgumentError(
        "octet bench kernels: --predict is for --device cuda, found --device "
        "cpu, whose limits are measured");
  }
  Report report;
  OCTET_ASSIGN_OR_RETURN(report.config, FindModelPreset(options.preset));
  if (options.predict) return Predict(report, options);
  if (options.device == "cpu") return RunOnCpu(report, options);
  if (new_cuda_backend) return RunOnCuda(report, options, new_cuda_backend);
  return BecomeSibling("octet-cuda-bench", args, "octet bench kernels: ",
                       "it is built where nvcc is installed, and --predict "
                       "does without it");
}

}  // namespace octet
