#include "launch/worker_flags.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/isa.h"

namespace octet {
namespace {

std::string ToText(const std::string& value) { return value; }
std::string ToText(int64_t value) { return absl::StrCat(value); }
std::string ToText(absl::Duration value) { return absl::FormatDuration(value); }

void AddFlag(Flags& flags, const char* name, int* field, const char* help,
             Range range) {
  flags.Add(name, field, help, range);
}
void AddFlag(Flags& flags, const char* name, int64_t* field, const char* help,
             Range range) {
  flags.Add(name, field, help, range);
}
template <typename T>
void AddFlag(Flags& flags, const char* name, T* field, const char* help,
             Range) {
  flags.Add(name, field, help);
}

}  // namespace

template <typename Self, typename Visit>
void WorkerFlags::ForEach(Self& self, Visit visit) {
  visit("model", &self.model,
        "directory of a Mixtral checkpoint (config.json, *.safetensors)",
        Range{});
  visit("device", &self.device,
        "cpu, or cuda: the GPU with the rank's number on its host", Range{});
  visit("dtype", &self.dtype,
        "of weights in memory: auto (no bit of the checkpoint is lost), f32, "
        "bf16",
        Range{});
  visit("quantization", &self.quantization,
        "of weights while loading: none; nf4 (4 bits, experts and attention); "
        "nf4-gate (the gates too)",
        Range{});
  visit("placement", &self.placement,
        "experts:ranks entries such as 0-3:0;4-7:1; empty = spread evenly",
        Range{});
  visit("moe-chunks", &self.moe_chunks,
        "parts of a step that travel while others compute; 0 = 2 on GPUs, else "
        "1 (off)",
        Range{.min = 0, .max = 64});
  visit("threads", &self.threads,
        "compute threads per rank; 0 = processors / ranks of the host",
        Range{.min = 0, .max = kMaxCpuThreads});
  visit("isa", &self.isa, "auto, avx2, avx512, avx512_bf16 or amx", Range{});
  visit("kv-cache-mib", &self.kv_cache_mib,
        "KV cache of a rank, MiB; 0 = a quarter of the free memory, shared",
        Range{.min = 0, .max = 1 << 30});
  visit("kv-blocks", &self.kv_blocks,
        "KV cache of a rank in blocks, instead of MiB",
        Range{.min = 0, .max = kMaxKvBlocks});
  visit("kv-block-tokens", &self.kv_block_tokens, "tokens of a KV block",
        Range{.min = 1, .max = 1024});
  visit("max-step-tokens", &self.max_step_tokens,
        "tokens that a rank computes in one step at most",
        Range{.min = 1, .max = 1 << 20});
  visit("save-kib-per-second", &self.save_kib_per_second,
        "how fast a rank writes a training state in the background, to leave "
        "the disk to others; 0 = no limit",
        Range{.min = 0, .max = 1 << 30});
  visit("connect-timeout", &self.connect_timeout,
        "how long to look for the coordinator", Range{});
  visit("load-timeout", &self.load_timeout,
        "how long to wait for the slowest rank to load", Range{});
  visit("collective-timeout", &self.collective_timeout,
        "how long a step waits for a rank before the group fails", Range{});
}

void WorkerFlags::AddTo(Flags& flags) {
  ForEach(*this,
          [&](const char* name, auto* field, const char* help, Range range) {
            AddFlag(flags, name, field, help, range);
          });
}

std::vector<std::string> WorkerFlags::ToArguments() const {
  std::vector<std::string> arguments;
  ForEach(*this, [&](const char* name, const auto* field, const char*, Range) {
    const std::string text = ToText(*field);
    if (!text.empty()) arguments.push_back(absl::StrCat("--", name, "=", text));
  });
  return arguments;
}

absl::StatusOr<WorkerOptions> WorkerFlags::ToOptions(
    const std::string& program, const std::string& coordinator) const {
  const auto bad = [&](absl::string_view sentence) {
    return absl::InvalidArgumentError(absl::StrCat(program, ": ", sentence));
  };
  if (model.empty())
    return bad("--model is missing, expected the directory of a checkpoint");
  if (device != "cpu" && device != "cuda")
    return bad(
        absl::StrCat("--device is '", device, "', expected cpu or cuda"));
  if (kv_cache_mib > 0 && kv_blocks > 0)
    return bad("--kv-cache-mib and --kv-blocks are both given, expected one");
  WorkerOptions options;
  options.model_dir = model;
  options.coordinator_address = coordinator;
  if (dtype == "f32") {
    options.dtype = DType::kF32;
  } else if (dtype == "bf16") {
    options.dtype = DType::kBF16;
  } else if (dtype != "auto") {
    return bad(
        absl::StrCat("--dtype is '", dtype, "', expected auto, f32 or bf16"));
  }
  if (quantization != "none" && quantization != "nf4" &&
      quantization != "nf4-gate")
    return bad(absl::StrCat("--quantization is '", quantization,
                            "', expected none, nf4 or nf4-gate"));
  options.quantization.nf4 = quantization != "none";
  options.quantization.gate = quantization == "nf4-gate";
  if (isa != "auto") {
    const absl::StatusOr<cpu::Isa> parsed = cpu::ParseIsa(isa);
    if (!parsed.ok())
      return bad(absl::StrCat("--isa: ", parsed.status().message()));
    options.isa = *parsed;
  }
  options.placement = placement;
  options.moe_chunks = moe_chunks > 0 ? moe_chunks : device == "cuda" ? 2 : 1;
  options.num_threads = threads;
  options.kv_cache_bytes = kv_cache_mib << 20;
  options.kv_blocks = kv_blocks;
  options.kv_block_tokens = kv_block_tokens;
  options.max_step_tokens = max_step_tokens;
  options.save_bytes_per_second = save_kib_per_second << 10;
  options.connect_timeout = connect_timeout;
  options.load_timeout = load_timeout;
  return options;
}

}  // namespace octet
