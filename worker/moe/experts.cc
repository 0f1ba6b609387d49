#include "worker/moe/experts.h"

#include <algorithm>

#include "base/status_macros.h"
#include "kernels/ops.h"

namespace octet {

absl::Status Experts::Run(const MoeWeights& weights,
                          const DispatchHandle& handle, Dispatcher& dispatcher,
                          ConstTensor received, Tensor out,
                          const StepContext& step) {
  Stream& stream = *step.stream;
  const int64_t num_rows = handle.expert_rows();
  std::vector<int64_t> offsets(handle.expert_offsets.size());
  for (int64_t begin = 0; begin < num_rows; begin += shape_.max_expert_rows) {
    const int64_t count = std::min(shape_.max_expert_rows, num_rows - begin);
    for (size_t e = 0; e < offsets.size(); ++e) {
      offsets[e] =
          std::clamp<int64_t>(handle.expert_offsets[e] - begin, 0, count);
    }
    OCTET_ASSIGN_OR_RETURN(
        const Tensor in,
        in_.Get(shape_.dtype, {count, shape_.hidden_dim}, stream));
    OCTET_ASSIGN_OR_RETURN(
        const Tensor mid,
        mid_.Get(shape_.dtype, {count, shape_.ffn_dim}, stream));
    OCTET_RETURN_IF_ERROR(
        dispatcher.GatherExpertRows(handle, received, begin, in, step));
    OCTET_RETURN_IF_ERROR(ops::GroupedGemmSwiGlu(*backend_, in, weights.w13,
                                                 offsets, mid, stream));
    OCTET_RETURN_IF_ERROR(ops::GroupedGemm(*backend_, mid, weights.w2, offsets,
                                           out.Rows(begin, count), stream));
  }
  return absl::OkStatus();
}

}  // namespace octet
