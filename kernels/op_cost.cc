#include "kernels/op_cost.h"

#include <algorithm>

namespace octet {
namespace {

constexpr double kF32Bytes = 4;
constexpr double kI32Bytes = 4;
constexpr double kI64Bytes = 8;

double Size(DType dtype) { return static_cast<double>(SizeOf(dtype)); }

// Sum of p + 1 over positions p in [begin, end): keys seen without a window.
double TriangleSum(double begin, double end) {
  return (end * (end + 1) - begin * (begin + 1)) / 2;
}

// Pairs of a row and a key that it sees.
double VisiblePairs(const AttentionRange& range, double window) {
  const double begin = static_cast<double>(range.first_position);
  const double end = begin + static_cast<double>(range.num_rows);
  if (window == 0) return TriangleSum(begin, end);
  const double full = std::clamp(window, begin, end);  // first to see `window`
  return TriangleSum(begin, full) + (end - full) * window;
}

}  // namespace

double FloorSeconds(const OpCost& cost, const DeviceLimits& limits) {
  const double peak = cost.unit == DType::kBF16 ? limits.bf16_flops_per_second
                                                : limits.f32_flops_per_second;
  return std::max(cost.bytes / limits.bytes_per_second, cost.flops / peak);
}

OpCost EmbeddingCost(int64_t tokens, int64_t hidden, DType table) {
  const double t = static_cast<double>(tokens), h = static_cast<double>(hidden);
  return {.bytes = t * (h * (Size(table) + kF32Bytes) + kI32Bytes)};
}

OpCost RmsNormCost(int64_t tokens, int64_t hidden, DType out) {
  const double t = static_cast<double>(tokens), h = static_cast<double>(hidden);
  if (tokens == 0) return {};
  return {.bytes = t * h * (kF32Bytes + Size(out)) + kF32Bytes * h,
          .flops = 4 * t * h};
}

OpCost GemmCost(int64_t rows, int64_t n, int64_t k, DType dtype, DType out,
                bool accumulate) {
  OpCost cost{.unit = dtype};
  if (rows == 0) return cost;
  const double outputs = static_cast<double>(rows) * n;
  const double inputs = static_cast<double>(n + rows) * k;
  cost.bytes = Size(dtype) * inputs +
               (Size(out) + (accumulate ? Size(out) : 0)) * outputs;
  cost.flops = 2 * outputs * k;
  return cost;
}

OpCost GroupedGemmCost(absl::Span<const int64_t> group_rows, int64_t n,
                       int64_t k, DType dtype, DType out) {
  OpCost cost{.unit = dtype};
  for (int64_t rows : group_rows) {
    const OpCost group = GemmCost(rows, n, k, dtype, out, false);
    cost.bytes += group.bytes;
    cost.flops += group.flops;
  }
  return cost;
}

OpCost GroupedGemmSwiGluCost(absl::Span<const int64_t> group_rows, int64_t ffn,
                             int64_t k, DType dtype) {
  OpCost cost = GroupedGemmCost(group_rows, 2 * ffn, k, dtype, dtype);
  for (int64_t rows : group_rows) {
    const double outputs = static_cast<double>(rows) * ffn;
    cost.bytes -= Size(dtype) * outputs;  // F columns are written, not 2F
    cost.flops += 5 * outputs;
  }
  return cost;
}

OpCost RopeAndCacheCost(int64_t tokens, const RopeParams& params, DType cache) {
  const double t = static_cast<double>(tokens);
  const double q = static_cast<double>(params.num_heads) * params.head_dim;
  const double kv = static_cast<double>(params.num_kv_heads) * params.head_dim;
  return {.bytes = t * (kF32Bytes * (q + 2 * kv) + kI32Bytes + kI64Bytes +
                        kF32Bytes * q + 2 * Size(cache) * kv),
          .flops = 3 * t * (q + kv)};
}

OpCost PagedAttentionCost(absl::Span<const AttentionRange> sequences,
                          const AttentionCostShape& shape) {
  OpCost cost{.unit = shape.cache};
  const double q = static_cast<double>(shape.num_heads) * shape.head_dim;
  const double kv = static_cast<double>(shape.num_kv_heads) * shape.head_dim;
  for (const AttentionRange& range : sequences) {
    if (range.num_rows == 0) continue;
    const int64_t first_key =
        shape.sliding_window == 0
            ? 0
            : std::max<int64_t>(
                  0, range.first_position - shape.sliding_window + 1);
    const double keys =
        static_cast<double>(range.first_position + range.num_rows - first_key);
    cost.bytes += range.num_rows * q * (kF32Bytes + Size(shape.out)) +
                  2 * Size(shape.cache) * kv * keys;
    cost.flops += 4 * q * VisiblePairs(range, shape.sliding_window);
  }
  return cost;
}

OpCost RouterCost(int64_t tokens, int64_t experts, int64_t top_k) {
  const double t = static_cast<double>(tokens);
  const double e = static_cast<double>(experts), k = static_cast<double>(top_k);
  return {.bytes = t * (kF32Bytes * e + (kI32Bytes + kF32Bytes) * k),
          .flops = t * (4 * e + k * e + 2 * k)};
}

OpCost GatherRowsCost(int64_t source_rows, int64_t rows, int64_t hidden,
                      DType dtype) {
  return {.bytes = Size(dtype) * hidden * (source_rows + rows) +
                   kI32Bytes * static_cast<double>(rows)};
}

OpCost CombineRowsCost(int64_t tokens, int64_t top_k, int64_t hidden,
                       DType rows) {
  const double t = static_cast<double>(tokens);
  const double k = static_cast<double>(top_k), h = static_cast<double>(hidden);
  return {.bytes = t * (k * h * Size(rows) + 2 * kF32Bytes * h +
                        (kI32Bytes + kF32Bytes) * k),
          .flops = 2 * t * k * h};
}

OpCost SampleCost(int64_t rows, int64_t vocab) {
  const double logits = static_cast<double>(rows) * vocab;
  return {.bytes = kF32Bytes * logits, .flops = 5 * logits};
}

OpCost ScoreTokensCost(int64_t rows, int64_t vocab) {
  const double logits = static_cast<double>(rows) * vocab;
  return {.bytes = kF32Bytes * logits, .flops = 4 * logits};
}

}  // namespace octet
