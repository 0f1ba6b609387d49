#include "worker/moe/experts.h"

#include <algorithm>

#include "base/status_macros.h"

namespace octet {

std::vector<int64_t> OffsetsWithin(absl::Span<const int64_t> offsets,
                                   int64_t begin, int64_t count) {
  std::vector<int64_t> within;
  for (int64_t offset : offsets) {
    within.push_back(std::clamp<int64_t>(offset - begin, 0, count));
  }
  return within;
}

absl::Status Experts::Run(const MoeWeights& weights,
                          const DispatchHandle& handle, Dispatcher& dispatcher,
                          ConstTensor received, Tensor out,
                          const StepContext& step) {
  Stream& stream = *step.stream;
  const int64_t num_rows = handle.expert_rows();
  for (int64_t begin = 0; begin < num_rows; begin += shape_.max_expert_rows) {
    const int64_t count = std::min(shape_.max_expert_rows, num_rows - begin);
    const std::vector<int64_t> offsets =
        OffsetsWithin(handle.expert_offsets, begin, count);
    OCTET_ASSIGN_OR_RETURN(
        const Tensor in,
        in_.Get(shape_.dtype, {count, shape_.hidden_dim}, stream));
    OCTET_ASSIGN_OR_RETURN(
        const Tensor mid,
        mid_.Get(shape_.dtype, {count, shape_.ffn_dim}, stream));
    OCTET_RETURN_IF_ERROR(
        dispatcher.GatherExpertRows(handle, received, begin, in, step));
    OCTET_RETURN_IF_ERROR(linear_.ForwardSwiGlu(weights.w13, {}, in, offsets,
                                                {}, {}, {}, mid, stream));
    OCTET_RETURN_IF_ERROR(linear_.Forward(weights.w2, mid, offsets,
                                          out.Rows(begin, count), stream));
  }
  return absl::OkStatus();
}

}  // namespace octet
