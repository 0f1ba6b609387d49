// Backend::RopeAndCache on the CPU.
#ifndef OCTET_KERNELS_CPU_ROPE_H_
#define OCTET_KERNELS_CPU_ROPE_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "kernels/cpu/context.h"
#include "kernels/tensor.h"

namespace octet::cpu {

// cos and sin of position * theta^(-2i/D), i in [0, D/2), computed in double
// and rounded to f32, for positions [0, num_positions()); grown on demand.
class RopeTable {
 public:
  // Positions from here on are computed when they are used.
  static constexpr int64_t kMaxPositions = 1 << 18;

  // Holds at least `num_positions` (or kMaxPositions) for these parameters
  // afterwards; the old table is dropped when they differ from the last ones.
  void Prepare(float theta, int head_dim, int64_t num_positions,
               CpuContext& context);

  int64_t num_positions() const { return num_positions_; }
  // [D/2] cosines, then [D/2] sines. REQUIRES: position < num_positions().
  const float* row(int64_t position) const {
    return rows_.data() + position * head_dim_;
  }
  // The same row for any position, written to out [D].
  void Compute(int64_t position, float* out) const;

 private:
  float theta_ = 0.0f;
  int head_dim_ = 0;
  int64_t num_positions_ = 0;
  std::vector<double> frequencies_;  // [D/2]
  std::vector<float> rows_;          // [num_positions, D]
};

// INVALID_ARGUMENT names a negative position or a slot outside the cache;
// nothing is written then.
absl::Status RopeAndCache(CpuContext& context, RopeTable& table,
                          ConstTensor qkv, ConstTensor positions,
                          ConstTensor slots, const RopeParams& params,
                          const KvCacheView& cache, Tensor q_out);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_ROPE_H_
