// octet init: a checkpoint of any shape with seeded random weights, in Hugging
// Face's layout.
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "launch/command.h"
#include "launch/flags.h"
#include "launch/progress.h"
#include "text/tokenizer.h"
#include "worker/checkpoint/random_checkpoint.h"

namespace octet {
namespace {

// What changes a preset's shape.
struct ShapeFlags {
  std::optional<int> vocab_size, hidden_dim, ffn_dim, layers, heads, kv_heads,
      head_dim, experts, top_k, context, sliding_window;
  bool tied = false;

  void AddTo(Flags& flags) {
    const Range positive = {.min = 1};
    flags.Add("vocab-size", &vocab_size,
              "vocabulary (default: the tokenizer's, else the preset's)",
              positive);
    flags.Add("hidden", &hidden_dim, "hidden size", positive);
    flags.Add("ffn", &ffn_dim, "size of an expert's inner layer", positive);
    flags.Add("layers", &layers, "layers", positive);
    flags.Add("heads", &heads, "query heads", positive);
    flags.Add("kv-heads", &kv_heads, "key/value heads", positive);
    flags.Add("head-dim", &head_dim, "size of a head", positive);
    flags.Add("experts", &experts, "experts per layer", positive);
    flags.Add("top-k", &top_k, "experts per token", positive);
    flags.Add("context", &context, "longest sequence, tokens", positive);
    flags.Add("sliding-window", &sliding_window,
              "attention window, tokens; 0 = none", {.min = 0});
    flags.Add("tied", &tied, "the head shares the embedding");
  }

  void ApplyTo(ModelConfig& config) const {
    const auto set = [](const std::optional<int>& flag, auto* field) {
      if (flag) *field = *flag;
    };
    set(vocab_size, &config.vocab_size);
    set(hidden_dim, &config.hidden_dim);
    set(ffn_dim, &config.ffn_dim);
    set(layers, &config.num_layers);
    set(heads, &config.num_heads);
    set(kv_heads, &config.num_kv_heads);
    set(head_dim, &config.head_dim);
    set(experts, &config.num_experts);
    set(top_k, &config.top_k);
    set(context, &config.max_position);
    set(sliding_window, &config.sliding_window);
    if (tied) config.tie_word_embeddings = true;
  }
};

// The model must have a row for every id of its tokenizer, and agree on BOS and
// EOS.
absl::Status MatchTokenizer(const std::string& path, bool vocab_given,
                            ModelConfig& config) {
  OCTET_ASSIGN_OR_RETURN(const std::unique_ptr<Tokenizer> tokenizer,
                         Tokenizer::Load(path));
  if (!vocab_given) config.vocab_size = tokenizer->vocab_size();
  if (config.vocab_size < tokenizer->vocab_size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("octet init: --vocab-size is ", config.vocab_size,
                     ", expected at least the ", tokenizer->vocab_size(),
                     " pieces of ", path));
  }
  config.bos_token_id = tokenizer->bos_id();
  config.eos_token_ids.clear();
  if (tokenizer->eos_id() >= 0)
    config.eos_token_ids.push_back(tokenizer->eos_id());
  return absl::OkStatus();
}

std::string PresetHelp() {
  std::string help = "shape to start from:";
  for (const ModelPreset& preset : ModelPresets()) {
    absl::StrAppend(&help, " ", preset.name, " (", preset.description, ");");
  }
  help.pop_back();
  return help;
}

}  // namespace

absl::Status RunInit(const Args& args) {
  std::string output;
  std::string preset = "tiny";
  std::string dtype = "bf16";
  std::string tokenizer;
  int64_t shard_mib = 4768;  // 5 GB
  RandomCheckpointOptions options;
  ShapeFlags shape;
  Flags flags("octet init",
              "Writes a checkpoint of any shape with seeded random weights, in "
              "Hugging Face's layout.");
  flags.Add("output", &output, "directory to make");
  flags.Add("preset", &preset, PresetHelp());
  shape.AddTo(flags);
  flags.AddChoice("dtype", &dtype, {"bf16", "f32"}, "of the weights");
  flags.Add("seed", &options.seed, "of the weights");
  flags.Add("std", &options.std_dev,
            "standard deviation of the weights; 0 = 1/sqrt(inputs)",
            {.min = 0});
  flags.Add("shard-mib", &shard_mib, "largest file, MiB", {.min = 1});
  flags.Add("tokenizer", &tokenizer,
            "SentencePiece model to copy beside the weights");
  OCTET_ASSIGN_OR_RETURN(const bool go_on, flags.Parse(args));
  if (!go_on) return absl::OkStatus();
  if (output.empty())
    return absl::InvalidArgumentError(
        "octet init: --output is missing, expected a directory");

  OCTET_ASSIGN_OR_RETURN(ModelConfig config, FindModelPreset(preset));
  shape.ApplyTo(config);
  if (!tokenizer.empty())
    OCTET_RETURN_IF_ERROR(
        MatchTokenizer(tokenizer, shape.vocab_size.has_value(), config));
  options.dtype = dtype == "f32" ? DType::kF32 : DType::kBF16;
  config.checkpoint_dtype = options.dtype;
  OCTET_RETURN_IF_ERROR(ValidateModelConfig(config, "octet init"));
  options.shard_bytes = static_cast<uint64_t>(shard_mib) << 20;
  options.tokenizer_path = tokenizer;
  const int64_t bytes =
      config.num_parameters() * static_cast<int64_t>(SizeOf(options.dtype));
  Progress progress("writing", bytes, "bytes");
  options.progress = [&](int64_t done, int64_t) { progress.Update(done); };
  OCTET_RETURN_IF_ERROR(WriteRandomCheckpoint(output, config, options));
  progress.Finish();
  std::printf(
      "%s: %.1f M parameters, %.1f M of them active per token, %.1f MiB\n",
      output.c_str(), config.num_parameters() / 1e6,
      config.num_active_parameters() / 1e6, bytes / 1048576.0);
  return absl::OkStatus();
}

}  // namespace octet
