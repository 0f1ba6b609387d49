#include "kernels/cpu/rope.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/status_macros.h"

namespace octet::cpu {
namespace {

// Where token `slot` of key/value head `head` begins, in elements.
int64_t CacheOffset(const KvCacheView& cache, int64_t slot, int head) {
  const int64_t block = slot / cache.block_tokens;
  return ((block * cache.num_kv_heads + head) * cache.block_tokens +
          slot % cache.block_tokens) *
         cache.head_dim;
}

void StoreToken(const VectorKernels& kernels, const float* keys,
                const float* values, const float* cos_sin, int64_t slot,
                const KvCacheView& cache) {
  const int64_t dim = cache.head_dim;
  const int64_t half = dim / 2;
  for (int head = 0; head < cache.num_kv_heads; ++head) {
    const int64_t to = CacheOffset(cache, slot, head);
    const float* key = keys + head * dim;
    const float* value = values + head * dim;
    if (cache.dtype == DType::kF32) {
      kernels.rotate_f32(key, cos_sin, cos_sin + half, half,
                         static_cast<float*>(cache.keys) + to);
      std::copy_n(value, dim, static_cast<float*>(cache.values) + to);
    } else {
      kernels.rotate_bf16(key, cos_sin, cos_sin + half, half,
                          static_cast<uint16_t*>(cache.keys) + to);
      kernels.to_bf16(value, dim, static_cast<uint16_t*>(cache.values) + to);
    }
  }
}

}  // namespace

void RopeTable::Compute(int64_t position, float* out) const {
  const int64_t half = head_dim_ / 2;
  for (int64_t i = 0; i < half; ++i) {
    const double angle = static_cast<double>(position) * frequencies_[i];
    out[i] = static_cast<float>(std::cos(angle));
    out[half + i] = static_cast<float>(std::sin(angle));
  }
}

void RopeTable::Prepare(float theta, int head_dim, int64_t num_positions,
                        CpuContext& context) {
  if (theta != theta_ || head_dim != head_dim_) {
    theta_ = theta;
    head_dim_ = head_dim;
    num_positions_ = 0;
    rows_.clear();
    frequencies_.resize(head_dim / 2);
    for (int i = 0; i < head_dim / 2; ++i) {
      frequencies_[i] =
          std::pow(static_cast<double>(theta), -2.0 * i / head_dim);
    }
  }
  num_positions = std::min(num_positions, kMaxPositions);
  if (num_positions <= num_positions_) return;
  const int64_t old = num_positions_;
  num_positions_ = 256;
  while (num_positions_ < num_positions) num_positions_ *= 2;
  rows_.resize(num_positions_ * head_dim);
  context.ForRows(num_positions_ - old, head_dim * sizeof(float),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t p = old + begin; p < old + end; ++p) {
                      Compute(p, rows_.data() + p * head_dim_);
                    }
                  });
}

absl::Status RopeAndCache(CpuContext& context, RopeTable& table,
                          ConstTensor qkv, ConstTensor positions,
                          ConstTensor slots, const RopeParams& params,
                          const KvCacheView& cache, Tensor q_out) {
  OCTET_RETURN_IF_ERROR(CheckIndices("RopeAndCache", "positions", positions,
                                     std::numeric_limits<int32_t>::max()));
  OCTET_RETURN_IF_ERROR(CheckIndices("RopeAndCache", "slots", slots,
                                     cache.num_blocks * cache.block_tokens));
  const int64_t num_rows = qkv.dim(0);
  const int32_t* position = positions.as<int32_t>();
  const int64_t* slot = slots.as<int64_t>();
  table.Prepare(params.theta, params.head_dim,
                int64_t{*std::max_element(position, position + num_rows)} + 1,
                context);
  const int64_t dim = params.head_dim;
  const VectorKernels& kernels = context.kernels();
  context.ForRows(
      num_rows, qkv.dim(1) * sizeof(float), [&](int64_t begin, int64_t end) {
        std::vector<float> computed(dim);
        for (int64_t t = begin; t < end; ++t) {
          const float* cos_sin = computed.data();
          if (position[t] < table.num_positions()) {
            cos_sin = table.row(position[t]);
          } else {
            table.Compute(position[t], computed.data());
          }
          const float* row = qkv.as<float>() + t * qkv.dim(1);
          float* q = q_out.as<float>() + t * q_out.dim(1);
          for (int head = 0; head < params.num_heads; ++head) {
            kernels.rotate_f32(row + head * dim, cos_sin, cos_sin + dim / 2,
                               dim / 2, q + head * dim);
          }
          const float* keys = row + params.num_heads * dim;
          StoreToken(kernels, keys, keys + params.num_kv_heads * dim, cos_sin,
                     slot[t], cache);
        }
      });
  return absl::OkStatus();
}

}  // namespace octet::cpu
