// octet train: a training run against a service, or one that it starts.
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "client/client.h"
#include "client/data/data_pipeline.h"
#include "client/train/train_job.h"
#include "client/training_client.h"
#include "launch/command.h"
#include "launch/flags.h"
#include "launch/local_service.h"
#include "launch/shutdown_signal.h"
#include "launch/train_flags.h"
#include "text/tokenizer.h"

namespace octet {
namespace {

namespace fs = std::filesystem;

constexpr char kProgram[] = "octet train";
constexpr double kMiB = 1 << 20;

absl::Status UsageError(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(kProgram, ": ", what));
}

// One line, redrawn in place on a terminal; elsewhere a line now and then.
class StepLine {
 public:
  void Show(const TrainProgress& now) {
    const absl::Time time = absl::Now();
    const bool last = now.step == now.total_steps;
    if (time < next_ && !last) return;
    next_ = time + (terminal_ ? absl::Milliseconds(100) : absl::Seconds(10));
    const double share =
        static_cast<double>(now.step) / static_cast<double>(now.total_steps);
    const int filled = static_cast<int>(share * kBar);
    std::string bar(filled, '#');
    bar.resize(kBar, '.');
    std::fprintf(
        stderr, "%s[%s] step %lld/%lld, loss %.4f, %.0f tokens/s, %s < %s%s",
        terminal_ ? "\r\033[K" : "", bar.c_str(),
        static_cast<long long>(now.step),
        static_cast<long long>(now.total_steps), now.loss,
        now.tokens_per_second, FormatHours(now.elapsed).c_str(),
        FormatHours(now.remaining).c_str(), terminal_ && !last ? "" : "\n");
    open_ = terminal_ && !last;
  }
  // A line of its own.
  void Note(const std::string& text) {
    std::fprintf(stderr, "%s%s\n", open_ ? "\n" : "", text.c_str());
    open_ = false;
  }

 private:
  static constexpr int kBar = 24;
  const bool terminal_ = isatty(STDERR_FILENO);
  absl::Time next_ = absl::InfinitePast();
  bool open_ = false;
};

void PrintMemoryPlan(const v1::Run& run) {
  std::printf(
      "run %s: %lld of %lld parameters are trained\n"
      "memory plan, MiB      weights  adapters  gradients  optimizer  "
      "activations  save copy  kv cache  available\n",
      run.run_id().c_str(), static_cast<long long>(run.trainable_parameters()),
      static_cast<long long>(run.total_parameters()));
  for (const v1::RankMemoryPlan& rank : run.memory()) {
    std::printf(
        "  rank %-4d           %9.1f %9.1f  %9.1f  %9.1f  %11.1f  %9.1f "
        "%9.1f  %9.0f\n",
        rank.rank(), rank.weight_bytes() / kMiB, rank.adapter_bytes() / kMiB,
        rank.gradient_bytes() / kMiB, rank.optimizer_bytes() / kMiB,
        rank.activation_bytes() / kMiB, rank.snapshot_bytes() / kMiB,
        rank.kv_cache_bytes() / kMiB, rank.available_bytes() / kMiB);
  }
  std::fflush(stdout);
}

// What the output directory holds decides where the run begins.
absl::Status PrepareOutput(const TrainFlags& flags, TrainJobOptions* job) {
  std::error_code error;
  fs::create_directories(job->output_dir, error);
  if (error) {
    return absl::UnavailableError(
        absl::StrCat(job->output_dir, ": cannot be made: ", error.message()));
  }
  if (flags.overwrite_output_dir) {
    job->overwrite = true;
    return absl::OkStatus();
  }
  job->resume_from = flags.resume_from_checkpoint.empty()
                         ? NewestCheckpoint(job->output_dir)
                         : fs::absolute(flags.resume_from_checkpoint).string();
  if (!job->resume_from.empty() || HasNothingToLose(job->output_dir)) {
    return absl::OkStatus();
  }
  return absl::AlreadyExistsError(absl::StrCat(
      kProgram, ": --output-dir ", job->output_dir,
      " is not empty and has no checkpoint, expected an empty directory or "
      "--overwrite-output-dir"));
}

// The service that trains: a running one, or one of our own.
class Service {
 public:
  static absl::StatusOr<Service> Start(const std::string& server,
                                       const LocalServiceFlags& flags,
                                       const ShutdownWatch& watch) {
    Service service;
    service.address_ = server;
    if (server.empty()) {
      OCTET_ASSIGN_OR_RETURN(service.local_,
                             LocalService::Start(kProgram, flags));
      service.address_ = service.local_->address();
    }
    Client client(service.address_);
    const absl::Time deadline = absl::Now() + flags.worker.load_timeout;
    absl::Status ready = client.WaitUntilReady(absl::Milliseconds(200));
    while (!ready.ok() && absl::Now() < deadline) {
      if (service.local_ != nullptr && service.local_->Ended().has_value()) {
        const absl::Status end = *service.local_->Ended();
        return end.ok() ? absl::UnavailableError("the workers have ended")
                        : end;
      }
      if (watch.Asked()) return absl::CancelledError("interrupted");
      if (service.local_ == nullptr &&
          absl::Now() >
              deadline - flags.worker.load_timeout + absl::Seconds(10)) {
        return ready;
      }
      ready = client.WaitUntilReady(absl::Milliseconds(200));
    }
    OCTET_RETURN_IF_ERROR(ready);
    OCTET_ASSIGN_OR_RETURN(service.info_, client.GetInfo());
    OCTET_ASSIGN_OR_RETURN(const v1::Topology topology, client.GetTopology());
    service.num_ranks_ = topology.ranks_size();
    return service;
  }

  const std::string& address() const { return address_; }
  const v1::ModelConfig& model() const { return info_.model(); }
  int num_ranks() const { return num_ranks_; }

 private:
  std::string address_;
  std::unique_ptr<LocalService> local_;
  v1::GetInfoResponse info_;
  int num_ranks_ = 0;
};

struct Settings {
  std::string server;
  TrainFlags train;
  LocalServiceFlags service;
};

// The model's directory has the tokenizer when none is named.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(
    const Settings& settings) {
  std::string path = settings.service.coordinator.tokenizer;
  if (path.empty()) {
    if (settings.service.worker.model.empty()) {
      return UsageError(
          "--tokenizer is not given, expected a tokenizer.model with --server");
    }
    path = absl::StrCat(settings.service.worker.model, "/tokenizer.model");
  } else if (fs::is_directory(path)) {
    path = absl::StrCat(path, "/tokenizer.model");
  }
  return Tokenizer::Load(path);
}

// What a running service has chosen already. Its model directory may still
// name the tokenizer.
absl::Status CheckAgainstServer(const LocalServiceFlags& flags) {
  const WorkerFlags defaults;
  if (flags.worker.quantization != defaults.quantization ||
      flags.worker.dtype != defaults.dtype) {
    return UsageError(
        absl::StrCat("--quantization is '", flags.worker.quantization,
                     "' and --dtype '", flags.worker.dtype,
                     "' with --server, expected them where the service "
                     "is started"));
  }
  if (flags.workers != LocalServiceFlags().workers || flags.mpi ||
      flags.worker.device != defaults.device) {
    std::fprintf(stderr,
                 "%s: --workers, --mpi and --device have no effect with "
                 "--server\n",
                 kProgram);
  }
  return absl::OkStatus();
}

absl::Status Train(const Settings& settings) {
  const ShutdownWatch watch(kProgram);
  OCTET_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                         LoadTokenizer(settings));
  OCTET_ASSIGN_OR_RETURN(const DataOptions data_options,
                         settings.train.ToDataOptions());
  OCTET_ASSIGN_OR_RETURN(const std::unique_ptr<DataPipeline> data,
                         DataPipeline::Open(data_options, tokenizer.get()));
  std::printf("%s", data->report().Text().c_str());
  OCTET_ASSIGN_OR_RETURN(const std::string first, data->FirstExampleText());
  std::printf("%s\n", first.c_str());
  std::fflush(stdout);

  OCTET_ASSIGN_OR_RETURN(
      const Service service,
      Service::Start(settings.server, settings.service, watch));
  OCTET_ASSIGN_OR_RETURN(TrainJobOptions job, settings.train.ToJobOptions(
                                                  service.model().num_layers(),
                                                  service.num_ranks()));
  if (settings.train.router_aux_loss_counts_padding) {
    job.padding_id =
        tokenizer->pad_id() >= 0 ? tokenizer->pad_id() : tokenizer->eos_id();
  }
  OCTET_RETURN_IF_ERROR(PrepareOutput(settings.train, &job));
  const std::string output_dir = job.output_dir;
  StepLine line;
  TrainObserver observer;
  observer.on_run = PrintMemoryPlan;
  observer.on_step = [&](const TrainProgress& now) { line.Show(now); };
  observer.on_note = [&](const std::string& text) { line.Note(text); };
  observer.stop = [&watch] { return watch.Asked(); };
  TrainingClient client(service.address());
  OCTET_ASSIGN_OR_RETURN(
      const TrainOutcome outcome,
      TrainJob(std::move(job), *data, client, std::move(observer)).Run());
  if (outcome.stopped) {
    std::printf(
        "stopped after step %lld; the same command goes on from there\n",
        static_cast<long long>(outcome.steps));
    return absl::OkStatus();
  }
  std::printf("done: %lld steps", static_cast<long long>(outcome.steps));
  if (outcome.train_loss.has_value()) {
    std::printf(", train_loss %.4f", *outcome.train_loss);
  } else {
    std::printf(", none left to train");
  }
  if (std::isfinite(outcome.eval_loss)) {
    std::printf(", eval_loss %.4f, perplexity %.3f", outcome.eval_loss,
                std::exp(outcome.eval_loss));
  }
  std::printf("; weights, logs and plots are in %s\n", output_dir.c_str());
  return absl::OkStatus();
}

}  // namespace

absl::Status RunTrain(const Args& args) {
  Settings settings;
  settings.service.coordinator.listen = "127.0.0.1:0";
  Flags flags(
      kProgram,
      "Trains a model: pre-training or instruction tuning, all weights, "
      "some layers, or adapters. Flags have the names of the seeds' "
      "scripts; one file.yaml or file.json may stand for them.");
  std::optional<int> quantization_bit;
  flags.Add("quantization-bit", &quantization_bit,
            "4: --quantization nf4; 16: none");
  flags.AddAlias("load-in-kbits", "quantization-bit");
  flags.Add("server", &settings.server,
            "HOST:PORT of a running service; without it one is started");
  settings.service.AddTo(flags);
  settings.train.AddTo(flags);
  flags.AddAlias("model-name-or-path", "model");
  flags.AddAlias("tokenizer-name-or-path", "tokenizer");
  flags.AddAlias("torch-dtype", "dtype");
  Args all = args;
  if (!all.empty() && !absl::StartsWith(all[0], "-") &&
      (absl::EndsWith(all[0], ".yaml") || absl::EndsWith(all[0], ".yml") ||
       absl::EndsWith(all[0], ".json"))) {
    all[0] = absl::StrCat("--config=", all[0]);
  }
  OCTET_ASSIGN_OR_RETURN(const bool go_on, flags.Parse(all));
  if (!go_on) return absl::OkStatus();
  for (const std::string& name : flags.ignored()) {
    std::fprintf(stderr, "%s: --%s has no effect here\n", kProgram,
                 name.c_str());
  }
  if (quantization_bit.has_value()) {
    if (*quantization_bit != 4 && *quantization_bit != 16) {
      return UsageError(absl::StrCat("--quantization-bit is ",
                                     *quantization_bit, ", expected 4 or 16"));
    }
    settings.service.worker.quantization =
        *quantization_bit == 4 ? "nf4" : "none";
  }
  if (settings.train.output_dir.empty()) {
    return UsageError("--output-dir is not given, expected a directory");
  }
  if (settings.train.overwrite_output_dir &&
      !settings.train.resume_from_checkpoint.empty()) {
    return UsageError(
        "--overwrite-output-dir and --resume-from-checkpoint are both given, "
        "expected one");
  }
  if (settings.server.empty() && settings.service.worker.model.empty()) {
    return UsageError(
        "neither --model nor --server is given, expected a checkpoint's "
        "directory or a running service");
  }
  if (!settings.server.empty()) {
    OCTET_RETURN_IF_ERROR(CheckAgainstServer(settings.service));
  }
  if (settings.train.val_size == 0 &&
      (settings.train.evaluation_strategy != "no" ||
       settings.train.eval_on_start)) {
    std::fprintf(stderr,
                 "%s: --evaluation-strategy and --eval-on-start have no effect "
                 "without --val-size\n",
                 kProgram);
  }
  return Train(settings);
}

}  // namespace octet
