// How one attention call is cut into blocks of work (attention.h), on the host.
//
// A sequence's queries make pieces of 64; what is left of up to 16, and so
// every decode, is a piece of one warp. When the pieces alone make fewer blocks
// than the GPU should have, they are split along their keys, in whole spans, as
// long as the partial results fit kMaxPartialBytes: prefill chunks of many
// queries are then left whole. How they are split changes no bits.
#ifndef OCTET_KERNELS_CUDA_ATTENTION_PLAN_H_
#define OCTET_KERNELS_CUDA_ATTENTION_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cuda/attention.h"

namespace octet::cuda {

struct AttentionPlanShape {
  int group = 1;           // N_q / N_kv
  int num_kv_heads = 1;    // N_kv
  int head_dim = 0;        // D
  int window = 0;          // 0: none
  int64_t min_blocks = 0;  // split when there are fewer
};

// Whether rows of keys and values can be loaded 16 bytes at a time.
bool AttentionIsVectorised(const KvCacheView& cache);

class AttentionPlan {
 public:
  static constexpr int64_t kMaxPartialBytes = int64_t{64} << 20;

  AttentionPlan(absl::Span<const AttentionSequence> sequences,
                const AttentionPlanShape& shape);

  int32_t num_pieces() const { return static_cast<int32_t>(pieces_.size()); }
  // Items of pieces of up to 16 queries, and of more.
  int32_t num_small() const { return static_cast<int32_t>(small_.size()); }
  int32_t num_large() const { return static_cast<int32_t>(large_.size()); }
  // (Query, span, key/value head) results that the split pieces leave.
  int64_t num_partials() const { return num_partials_; }

  // Pieces, small items, large items and block tables as one array of bytes.
  std::vector<std::byte> Bytes() const;
  // Points `args` at them in a copy at `base` (device memory).
  void PointTo(const std::byte* base, AttentionArgs& args) const;
  const AttentionItem* small_items(const std::byte* base) const;
  const AttentionItem* large_items(const std::byte* base) const;

  absl::Span<const AttentionPiece> pieces() const { return pieces_; }

 private:
  void AddPieces(const AttentionSequence& sequence,
                 const AttentionPlanShape& shape);
  void AddItems(const AttentionPlanShape& shape);

  std::vector<AttentionPiece> pieces_;
  std::vector<AttentionItem> small_;
  std::vector<AttentionItem> large_;
  std::vector<int32_t> blocks_;
  int64_t num_partials_ = 0;
};

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_ATTENTION_PLAN_H_
