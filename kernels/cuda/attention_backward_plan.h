// How an AttentionBackward call is cut into blocks, and its way to the device.
#ifndef OCTET_KERNELS_CUDA_ATTENTION_BACKWARD_PLAN_H_
#define OCTET_KERNELS_CUDA_ATTENTION_BACKWARD_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cuda/attention_backward.h"

namespace octet::cuda {

class AttentionBackwardPlan {
 public:
  // Sequences without rows are left out. num_rows * group < 2^31 each.
  AttentionBackwardPlan(absl::Span<const AttentionSequence> sequences,
                        int group, int block_tokens);

  bool empty() const { return sequences_.empty(); }
  // What the device needs, in one piece.
  std::vector<std::byte> Bytes() const;
  // Sets what of `args` points into a device copy of Bytes(), and the counts.
  void PointTo(const std::byte* base, AttentionBackwardArgs& args) const;

 private:
  std::vector<AttentionBackwardSequence> sequences_;
  std::vector<AttentionBackwardItem> query_items_;
  std::vector<AttentionBackwardItem> key_items_;
  std::vector<int32_t> blocks_;
};

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_ATTENTION_BACKWARD_PLAN_H_
