#include "coordinator/route_log.h"

#include <utility>

#include "base/logging.h"

namespace octet {

void RouteLog::Put(int32_t position, int32_t num_tokens,
                   const v1::SlotRoutes& chunk) {
  for (int l = 0; l < chunk.layers_size(); ++l) {
    if (l == routes_.layers_size()) routes_.add_layers();
    const auto& from = chunk.layers(l).expert_ids();
    auto& ids = *routes_.mutable_layers(l)->mutable_expert_ids();
    top_k_ = from.size() / num_tokens;
    OCTET_CHECK(position * top_k_ <= ids.size()) << "position " << position;
    ids.Truncate(position * top_k_);
    ids.MergeFrom(from);
  }
}

v1::SlotRoutes RouteLog::Take() {
  for (v1::LayerRoutes& layer : *routes_.mutable_layers()) {
    for (int32_t k = 0; k < top_k_; ++k) layer.add_expert_ids(-1);
  }
  return std::exchange(routes_, {});
}

}  // namespace octet
