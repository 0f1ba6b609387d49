// The weights one rank holds: everything dense, and of the experts only its
// own.
//
// Filled by the checkpoint loader, read by the transformer. Owned by one rank;
// the backend must outlive it.
#ifndef OCTET_WORKER_MODEL_WEIGHTS_H_
#define OCTET_WORKER_MODEL_WEIGHTS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/backend.h"
#include "worker/model/quantization.h"
#include "worker/nn/lora.h"

namespace octet {

// A tensor with its memory.
struct OwnedTensor {
  std::unique_ptr<Buffer> buffer;
  Tensor view;
};

struct ExpertWeights {
  int expert_id = -1;  // global, in [0, E)
  std::unique_ptr<PackedMatrix>
      w13;  // [2F, H]: w1 (gate) rows, then w3 (up) rows
  std::unique_ptr<PackedMatrix> w2;  // [H, F]
  // nullptr: not adapted.
  std::unique_ptr<LoraWeights> w13_lora, w2_lora;
};

struct LayerWeights {
  OwnedTensor input_norm;              // [H] f32
  std::unique_ptr<PackedMatrix> qkv;   // [(N_q + 2 N_kv) D, H]: q, k, v rows
  std::unique_ptr<PackedMatrix> o;     // [H, N_q D]
  OwnedTensor post_attention_norm;     // [H] f32
  std::unique_ptr<PackedMatrix> gate;  // [E, H]
  std::vector<ExpertWeights> experts;  // this rank's, by rising expert_id
  // nullptr: not adapted.
  std::unique_ptr<LoraWeights> qkv_lora, o_lora, gate_lora;
};

struct ModelWeights {
  DType dtype =
      DType::kBF16;  // compute dtype of every packed matrix: f32 or bf16
  Quantization quantization;  // which matrices are not in dtype but in NF4
  OwnedTensor embedding;      // [V, H] of dtype
  std::vector<LayerWeights> layers;  // L
  OwnedTensor final_norm;            // [H] f32
  std::unique_ptr<PackedMatrix>
      lm_head;  // [V, H]; packed from the embedding when the two are tied

  // Bytes of everything above.
  int64_t num_bytes() const;
};

}  // namespace octet

#endif  // OCTET_WORKER_MODEL_WEIGHTS_H_
