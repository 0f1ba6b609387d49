// Which tensors of a checkpoint make which weight of a Mixtral model.
//
// MixtralForCausalLM is on disk in two layouts. Per expert (transformers 4, and
// what 5 saves by default), below "model.layers.N.block_sparse_moe.":
//   gate.weight [E, H], experts.E.w1.weight [F, H], experts.E.w3.weight [F, H],
//   experts.E.w2.weight [H, F]
// Fused (how transformers 5 holds it in memory), below "model.layers.N.mlp.":
//   gate.weight [E, H], experts.gate_up_proj [E, 2F, H] (gate rows, then up),
//   experts.down_proj [E, H, F]
// Either form of the experts is taken below either prefix.
#ifndef OCTET_WORKER_CHECKPOINT_MIXTRAL_TENSORS_H_
#define OCTET_WORKER_CHECKPOINT_MIXTRAL_TENSORS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/checkpoint/hf_checkpoint.h"
#include "worker/checkpoint/safetensors_writer.h"
#include "worker/model/config.h"

namespace octet {

// Every tensor of the per-expert layout, in the order of the layers. The head
// is left out when it is tied to the embedding.
std::vector<TensorSpec> MixtralTensors(const ModelConfig& config, DType dtype);

// Rows [first_row, first_row + rows) of a tensor seen as a matrix with `cols`
// columns. The file must outlive it.
struct RowRange {
  const SafetensorsFile* file = nullptr;
  const SafetensorsEntry* entry = nullptr;
  DType dtype = DType::kF32;  // f32, bf16 or f16
  int64_t first_row = 0;
  int64_t rows = 0;
  int64_t cols = 0;

  int64_t num_bytes() const {
    return rows * cols * static_cast<int64_t>(SizeOf(dtype));
  }
};

// A weight matrix: its parts, from its first row on.
struct MatrixSource {
  std::vector<RowRange> parts;

  int64_t rows() const;
  int64_t cols() const { return parts.front().cols; }
  int64_t num_bytes() const;
};

struct ExpertSource {
  MatrixSource w13;  // [2F, H]
  MatrixSource w2;   // [H, F]
};

struct LayerSource {
  RowRange input_norm;  // [1, H]
  MatrixSource qkv;     // [(N_q + 2 N_kv) D, H]
  MatrixSource o;       // [H, N_q D]
  RowRange post_attention_norm;
  MatrixSource gate;                  // [E, H]
  std::vector<ExpertSource> experts;  // all E
};

struct MixtralSource {
  RowRange embedding;               // [V, H]
  std::vector<LayerSource> layers;  // L
  RowRange final_norm;              // [1, H]
  std::optional<RowRange> lm_head;  // [V, H]; nullopt when tied
};

// Finds and checks every tensor of the model, those of other ranks' experts
// too, so that all ranks agree on whether a checkpoint is good. Sentences name
// file and tensor. Tensors beyond the config (layer, expert, bias) are errors;
// others that Mixtral does not have are logged once and ignored.
absl::StatusOr<MixtralSource> MapMixtral(const HfCheckpoint& checkpoint,
                                         const ModelConfig& config);

// What the model can be computed in without losing bits: bf16 when every matrix
// of the checkpoint is bf16, f32 otherwise (f16 has three more fraction bits
// than bf16).
DType ExactComputeDType(const MixtralSource& source);

}  // namespace octet

#endif  // OCTET_WORKER_CHECKPOINT_MIXTRAL_TENSORS_H_
