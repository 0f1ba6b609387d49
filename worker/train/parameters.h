// The logical parameters of a training run: what Hugging Face and PEFT call
// them, which of them the run trains, and where each lies in ModelWeights.
//
// Two views of the same elements. A Parameter is a named matrix (or a norm's
// vector); optimizer, checkpoints and adapters know only these. A
// GradientSource is what the backward pass gives the gradient of: one WeightId
// (fused as in ModelWeights, worker/nn/gradient_sink.h) with the trained
// parameters in it. With a tied head the embedding has two sources.
//
// The same on every rank, experts of other ranks included. Immutable, so any
// thread may read it.
#ifndef OCTET_WORKER_TRAIN_PARAMETERS_H_
#define OCTET_WORKER_TRAIN_PARAMETERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "proto/training.pb.h"
#include "worker/model/config.h"
#include "worker/moe/placement.h"
#include "worker/nn/gradient_sink.h"

namespace octet {

struct Parameter {
  // "model.layers.0.self_attn.q_proj.weight", "...q_proj.lora_A.weight".
  std::string name;
  WeightId weight;   // the tensor it is part of
  int64_t rows = 0;  // [rows, cols] row-major; a vector [n]: 1 row
  int64_t cols = 0;
  int64_t row_begin = 0;  // its place in the weight
  int64_t col_begin = 0;  // of B in its block diagonal
  bool vector = false;    // a norm's weight: no weight decay

  int64_t num_elements() const { return rows * cols; }
  // As in a file: [rows, cols], or [n].
  std::vector<int64_t> shape() const;
};

struct GradientSource {
  // A parameter's elements in a node of the source (all trained elements of the
  // weight, one parameter after the other).
  struct Part {
    int parameter = 0;   // index in ParameterSet::parameters
    int64_t offset = 0;  // elements
  };

  WeightId weight;
  int64_t rows = 0;  // of the weight's gradient: [rows, cols]
  int64_t cols = 0;
  std::vector<Part> parts;
  int64_t num_elements = 0;  // of all parts
  // The parts are the whole weight in its own order.
  bool whole = false;
};

// The adapted modules of one weight.
struct LoraTarget {
  WeightId weight;  // part kBase
  int64_t n = 0;    // of the weight [n, k]
  int64_t k = 0;
  int64_t lora_rank = 0;  // r of one module
  std::vector<int> a, b;  // parameters, one each per module, by rising row

  int64_t stacked_rank() const {
    return lora_rank * static_cast<int64_t>(a.size());
  }
};

class ParameterSet {
 public:
  // What `request` trains of a model of this shape. INVALID_ARGUMENT names the
  // field.
  static absl::StatusOr<ParameterSet> Create(
      const ModelConfig& config, const v1::CreateRunRequest& request);

  // In the order of the model: embedding, layers, norm, head; beside a module
  // its lora_A and lora_B.
  absl::Span<const Parameter> parameters() const { return parameters_; }
  absl::Span<const GradientSource> sources() const { return sources_; }
  absl::Span<const LoraTarget> lora_targets() const { return lora_targets_; }

  // Index; -1: there is none.
  int FindSource(const WeightId& weight) const;
  int FindParameter(absl::string_view name) const;

  int64_t num_trainable() const { return num_trainable_; }
  // Of model and adapters.
  int64_t num_total() const { return num_total_; }

 private:
  ParameterSet() = default;
  void MakeSources(const ModelConfig& config);

  std::vector<Parameter> parameters_;
  std::vector<GradientSource> sources_;
  std::vector<LoraTarget> lora_targets_;
  absl::flat_hash_map<WeightId, int> source_of_weight_;
  absl::flat_hash_map<std::string, int> parameter_of_name_;
  int64_t num_trainable_ = 0;
  int64_t num_total_ = 0;
};

// Every parameter of the model without adapters, trained or not, in order.
std::vector<Parameter> ModelParameters(const ModelConfig& config);

// The ranks that hold a weight, rising: all, or those of its expert.
std::vector<int> HoldersOf(const WeightId& weight, const Placement& placement);

// A module's name: that of its parameter without ".weight", ".lora_A.weight" or
// ".lora_B.weight".
absl::string_view ModuleOf(absl::string_view parameter_name);

// True when `text` is `pattern`, in which `*` stands for any characters.
bool MatchesPattern(absl::string_view text, absl::string_view pattern);

// s = alpha / r, with the default alpha = 2 r.
float LoraScale(const v1::LoraConfig& lora);

}  // namespace octet

#endif  // OCTET_WORKER_TRAIN_PARAMETERS_H_
