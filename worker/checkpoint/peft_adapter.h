// LoRA adapters in PEFT's layout: a directory with adapter_config.json and
// adapter_model.safetensors, whose tensors are named "base_model.model." + the
// Hugging Face name, with ".lora_A" or ".lora_B" before ".weight" for adapters
// and without for modules that are saved whole.
#ifndef OCTET_WORKER_CHECKPOINT_PEFT_ADAPTER_H_
#define OCTET_WORKER_CHECKPOINT_PEFT_ADAPTER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "worker/checkpoint/safetensors.h"

namespace octet {

struct AdapterConfig {
  int lora_rank = 8;
  float alpha = 8;  // scale = alpha / lora_rank
  float dropout = 0;
  std::vector<std::string> target_modules;   // never empty; "all": every linear
                                             // layer but the head
  std::vector<std::string> modules_to_save;  // trained and saved whole
  std::string base_model;                    // path or name; may be empty

  bool operator==(const AdapterConfig&) const = default;
};

// adapter_config.json's text. Keys that would change the mathematics (another
// peft_type, rslora, dora, rank patterns, biases, a regular expression as
// target...) are refused by name; others are ignored. `name` leads every
// sentence.
absl::StatusOr<AdapterConfig> ParseAdapterConfig(absl::string_view json,
                                                 absl::string_view name);
// As PEFT reads it; ParseAdapterConfig gives `config` back.
std::string AdapterConfigToJson(const AdapterConfig& config);

// "base_model.model." + name.
std::string PeftTensorName(absl::string_view parameter_name);

// An adapter on disk. Const methods are thread-safe.
class PeftAdapter {
 public:
  static constexpr char kConfigFile[] = "adapter_config.json";
  static constexpr char kTensorsFile[] = "adapter_model.safetensors";

  // NOT_FOUND when a file is missing, INVALID_ARGUMENT when it is not what it
  // should be.
  static absl::StatusOr<std::unique_ptr<PeftAdapter>> Open(
      const std::string& dir);

  const AdapterConfig& config() const { return config_; }
  // OK when the adapter has exactly these parameters, with these shapes and a
  // floating-point dtype; else INVALID_ARGUMENT names file and tensor.
  struct Expected {
    std::string name;  // "model.layers.0.self_attn.q_proj.lora_A.weight"
    std::vector<int64_t> shape;
  };
  absl::Status Check(absl::Span<const Expected> expected) const;
  // Elements [begin, begin + out.size()) of a parameter as f32.
  absl::Status Read(absl::string_view parameter_name, int64_t begin,
                    absl::Span<float> out) const;

 private:
  PeftAdapter() = default;
  AdapterConfig config_;
  std::unique_ptr<SafetensorsFile> file_;
};

}  // namespace octet

#endif  // OCTET_WORKER_CHECKPOINT_PEFT_ADAPTER_H_
