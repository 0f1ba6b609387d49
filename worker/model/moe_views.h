// The experts' side of ModelWeights as worker/moe sees it.
#ifndef OCTET_WORKER_MODEL_MOE_VIEWS_H_
#define OCTET_WORKER_MODEL_MOE_VIEWS_H_

#include <vector>

#include "absl/types/span.h"
#include "worker/model/weights.h"
#include "worker/moe/experts.h"

namespace octet {

// [L] views of all layers, in the order of `local_experts`, which must be those
// that the weights hold.
std::vector<MoeWeights> ViewMoe(const ModelWeights& weights,
                                absl::Span<const int> local_experts);

// Adapters come and go while the model lives: makes the views show those that
// are attached now. Allocates nothing.
void ViewAdapters(const ModelWeights& weights, absl::Span<MoeWeights> views);

}  // namespace octet

#endif  // OCTET_WORKER_MODEL_MOE_VIEWS_H_
