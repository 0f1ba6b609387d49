#include "worker/model/weights.h"

namespace octet {
namespace {

int64_t Bytes(const OwnedTensor& tensor) {
  return tensor.buffer == nullptr
             ? 0
             : static_cast<int64_t>(tensor.buffer->size_bytes());
}

int64_t Bytes(const std::unique_ptr<PackedMatrix>& matrix) {
  return matrix == nullptr ? 0 : static_cast<int64_t>(matrix->size_bytes());
}

int64_t Bytes(const std::unique_ptr<LoraWeights>& lora) {
  return lora == nullptr ? 0 : lora->num_bytes();
}

}  // namespace

int64_t ModelWeights::num_bytes() const {
  int64_t total = Bytes(embedding) + Bytes(final_norm) + Bytes(lm_head);
  for (const LayerWeights& layer : layers) {
    total += Bytes(layer.input_norm) + Bytes(layer.qkv) + Bytes(layer.o) +
             Bytes(layer.post_attention_norm) + Bytes(layer.gate) +
             Bytes(layer.qkv_lora) + Bytes(layer.o_lora) +
             Bytes(layer.gate_lora);
    for (const ExpertWeights& expert : layer.experts) {
      total += Bytes(expert.w13) + Bytes(expert.w2) + Bytes(expert.w13_lora) +
               Bytes(expert.w2_lora);
    }
  }
  return total;
}

}  // namespace octet
