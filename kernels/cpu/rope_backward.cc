#include "kernels/cpu/rope_backward.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "base/status_macros.h"

namespace octet::cpu {
namespace {

// The rotation by -angle: cos as it is, sin negated.
class BackRotation {
 public:
  BackRotation(const RopeTable& table, int64_t dim)
      : table_(table), half_(dim / 2), cos_sin_(dim) {}

  void SetPosition(int64_t position) {
    if (position < table_.num_positions()) {
      std::copy_n(table_.row(position), 2 * half_, cos_sin_.begin());
    } else {
      table_.Compute(position, cos_sin_.data());
    }
    for (int64_t i = half_; i < 2 * half_; ++i) cos_sin_[i] = -cos_sin_[i];
  }

  // Heads side by side: n of from, to.
  void Apply(const VectorKernels& kernels, const float* from, int64_t n,
             float* to) const {
    for (int64_t at = 0; at < n; at += 2 * half_) {
      kernels.rotate_f32(from + at, cos_sin_.data(), cos_sin_.data() + half_,
                         half_, to + at);
    }
  }

 private:
  const RopeTable& table_;
  const int64_t half_;
  std::vector<float> cos_sin_;  // [D/2] each
};

}  // namespace

absl::Status RopeBackward(CpuContext& context, RopeTable& table, ConstTensor dq,
                          ConstTensor dk, ConstTensor dv, ConstTensor positions,
                          const RopeParams& params, Tensor dqkv) {
  OCTET_RETURN_IF_ERROR(CheckIndices("RopeBackward", "positions", positions,
                                     std::numeric_limits<int32_t>::max()));
  const int64_t num_rows = dq.dim(0);
  const int64_t q_row = dq.dim(1);
  const int64_t kv_row = dk.dim(1);
  const int64_t row = dqkv.dim(1);
  const int32_t* position = positions.as<int32_t>();
  table.Prepare(params.theta, params.head_dim,
                int64_t{*std::max_element(position, position + num_rows)} + 1,
                context);
  const VectorKernels& kernels = context.kernels();
  context.ForRows(
      num_rows, 2 * row * sizeof(float), [&](int64_t begin, int64_t end) {
        BackRotation rotation(table, params.head_dim);
        std::vector<float> rounded(dqkv.dtype() == DType::kBF16 ? row : 0);
        for (int64_t t = begin; t < end; ++t) {
          float* y =
              rounded.empty() ? dqkv.as<float>() + t * row : rounded.data();
          rotation.SetPosition(position[t]);
          rotation.Apply(kernels, dq.as<float>() + t * q_row, q_row, y);
          rotation.Apply(kernels, dk.as<float>() + t * kv_row, kv_row,
                         y + q_row);
          std::copy_n(dv.as<float>() + t * kv_row, kv_row, y + q_row + kv_row);
          if (!rounded.empty()) {
            kernels.to_bf16(y, row, dqkv.as<uint16_t>() + t * row);
          }
        }
      });
  return absl::OkStatus();
}

}  // namespace octet::cpu
