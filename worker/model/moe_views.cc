#include "worker/model/moe_views.h"

#include <utility>

#include "base/logging.h"

namespace octet {

std::vector<MoeWeights> ViewMoe(const ModelWeights& weights,
                                absl::Span<const int> local_experts) {
  std::vector<MoeWeights> views;
  for (const LayerWeights& layer : weights.layers) {
    OCTET_CHECK(layer.experts.size() == local_experts.size())
        << layer.experts.size() << " experts loaded, the placement has "
        << local_experts.size();
    MoeWeights view;
    view.gate.w = layer.gate.get();
    for (size_t e = 0; e < local_experts.size(); ++e) {
      OCTET_CHECK(layer.experts[e].expert_id == local_experts[e]);
      view.w13.w.push_back(layer.experts[e].w13.get());
      view.w2.w.push_back(layer.experts[e].w2.get());
    }
    view.w13.lora.resize(local_experts.size());
    view.w2.lora.resize(local_experts.size());
    views.push_back(std::move(view));
  }
  ViewAdapters(weights, absl::MakeSpan(views));
  return views;
}

void ViewAdapters(const ModelWeights& weights, absl::Span<MoeWeights> views) {
  for (size_t i = 0; i < views.size(); ++i) {
    const LayerWeights& layer = weights.layers[i];
    views[i].gate.lora = layer.gate_lora.get();
    for (size_t e = 0; e < layer.experts.size(); ++e) {
      views[i].w13.lora[e] = layer.experts[e].w13_lora.get();
      views[i].w2.lora[e] = layer.experts[e].w2_lora.get();
    }
  }
}

}  // namespace octet
