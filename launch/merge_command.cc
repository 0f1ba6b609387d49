// octet merge: an adapter folded into its base model.
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "launch/command.h"
#include "launch/flags.h"
#include "launch/progress.h"
#include "worker/checkpoint/merge.h"

namespace octet {
namespace {

void PrintReport(const MergeReport& report, bool nf4) {
  std::printf(
      "module        tensors  change of base  lost by rounding%s\n"
      "                        (rms, relative to the base's weights)\n",
      nf4 ? "  NF4's difference" : "");
  for (const MergedModule& module : report.modules) {
    std::printf("%-12s %8lld  %14.3e  %16.3e", module.name.c_str(),
                static_cast<long long>(module.tensors), module.change,
                module.rounding);
    if (nf4) std::printf("  %16.3e", module.quantized);
    std::printf("\n");
  }
  int64_t adapted = 0;
  for (const MergedModule& module : report.modules) adapted += module.tensors;
  std::printf(
      "%lld tensors adapted, %lld replaced whole, %lld as they were, "
      "%.1f MiB written\n",
      static_cast<long long>(adapted), static_cast<long long>(report.replaced),
      static_cast<long long>(report.copied),
      static_cast<double>(report.num_bytes) / (1 << 20));
}

}  // namespace

absl::Status RunMerge(const Args& args) {
  MergeOptions options;
  std::string onto = "16bit";
  bool verbose = false;
  Flags flags("octet merge",
              "Folds a LoRA adapter (PEFT's layout) into its base model, shard "
              "by shard, in the base's dtype and layout.");
  flags.Add("base-model", &options.base_dir, "checkpoint that was adapted");
  flags.Add("lora-model", &options.adapter_dir, "directory of the adapter");
  flags.Add("output-dir", &options.output_dir, "directory to make");
  flags.AddChoice("onto", &onto, {"16bit", "nf4"},
                  "the base's own weights, or those weights after NF4, which a "
                  "QLoRA adapter was trained on");
  flags.Add("quantize-gate", &options.quantization.gate,
            "nf4: the gates were quantised too");
  flags.Add("threads", &options.num_threads, "0: all processors", {.min = 0});
  flags.Add("verbose", &verbose, "accepted for the seeds' sake");
  OCTET_ASSIGN_OR_RETURN(const bool go_on, flags.Parse(args));
  if (!go_on) return absl::OkStatus();
  const struct {
    const char* name;
    const std::string& value;
  } required[] = {{"base-model", options.base_dir},
                  {"lora-model", options.adapter_dir},
                  {"output-dir", options.output_dir}};
  for (const auto& flag : required) {
    if (!flag.value.empty()) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "octet merge: --", flag.name, " is not given, expected a directory"));
  }
  options.quantization.nf4 = onto == "nf4";
  std::unique_ptr<Progress> progress;
  options.progress = [&](int64_t done, int64_t total) {
    if (progress == nullptr) {
      progress = std::make_unique<Progress>("merging", total, "bytes");
    }
    progress->Update(done);
  };
  OCTET_ASSIGN_OR_RETURN(const MergeReport report, MergeAdapter(options));
  if (progress != nullptr) progress->Finish();
  PrintReport(report, options.quantization.nf4);
  return absl::OkStatus();
}

}  // namespace octet
