#include "kernels/training_cost.h"

#include <vector>

namespace octet {
namespace {

double Size(DType dtype) { return static_cast<double>(SizeOf(dtype)); }

double Product(int64_t a, int64_t b) {
  return static_cast<double>(a) * static_cast<double>(b);
}

}  // namespace

OpCost GemmBackwardWeightCost(int64_t tokens, int64_t n, int64_t k, DType dtype,
                              bool accumulate) {
  const double outputs = Product(n, k);
  return {.bytes = Size(dtype) * Product(tokens, n + k) +
                   (accumulate ? 8 : 4) * outputs,
          .flops = 2 * static_cast<double>(tokens) * outputs,
          .unit = dtype};
}

OpCost SwiGluCost(int64_t tokens, int64_t ffn, DType h, DType out) {
  const double outputs = Product(tokens, ffn);
  return {.bytes = outputs * (2 * Size(h) + Size(out)), .flops = 5 * outputs};
}

OpCost SwiGluBackwardCost(int64_t tokens, int64_t ffn, DType h, DType dout,
                          DType dh) {
  const double outputs = Product(tokens, ffn);
  return {.bytes = outputs * (2 * Size(h) + Size(dout) + 2 * Size(dh)),
          .flops = 12 * outputs};
}

OpCost RmsNormBackwardCost(int64_t tokens, int64_t hidden) {
  if (tokens == 0) return {};
  const double elements = Product(tokens, hidden);
  return {.bytes = 16 * elements + 4 * static_cast<double>(hidden),
          .flops = 9 * elements};
}

OpCost RmsNormBackwardWeightCost(int64_t tokens, int64_t hidden) {
  const double elements = Product(tokens, hidden);
  return {.bytes = 8 * elements + 4 * static_cast<double>(hidden),
          .flops = 5 * elements};
}

OpCost AttentionBackwardCost(absl::Span<const int64_t> lengths,
                             const AttentionCostShape& shape) {
  const double q = Product(shape.num_heads, shape.head_dim);
  const double kv = Product(shape.num_kv_heads, shape.head_dim);
  std::vector<AttentionRange> ranges;
  double rows = 0;
  for (const int64_t length : lengths) {
    ranges.push_back({.num_rows = length, .first_position = 0});
    rows += static_cast<double>(length);
  }
  // Five products instead of two.
  const OpCost forward = PagedAttentionCost(ranges, shape);
  return {.bytes = rows * (q * (8 + 2 * Size(shape.out)) +
                           kv * (2 * Size(shape.cache) + 8)),
          .flops = forward.flops / 2 * 5,
          .unit = forward.unit};
}

OpCost RopeBackwardCost(int64_t tokens, const RopeParams& params, DType out) {
  const double t = static_cast<double>(tokens);
  const double q = Product(params.num_heads, params.head_dim);
  const double kv = Product(params.num_kv_heads, params.head_dim);
  return {.bytes = t * ((q + 2 * kv) * (4 + Size(out)) + 4),
          .flops = 3 * t * (q + kv)};
}

OpCost RouterBackwardCost(int64_t tokens, int64_t experts, int64_t top_k) {
  return {.bytes = 12 * Product(tokens, top_k) + 4 * Product(tokens, experts),
          .flops = 4 * Product(tokens, top_k)};
}

OpCost RouterProbabilitiesCost(int64_t tokens, int64_t experts) {
  const double logits = Product(tokens, experts);
  return {.bytes = 8 * logits + 4 * static_cast<double>(tokens),
          .flops = 5 * logits};
}

OpCost RouterLossBackwardCost(int64_t tokens, int64_t experts) {
  if (tokens == 0) return {};
  const double logits = Product(tokens, experts);
  return {.bytes = 12 * logits + 4 * static_cast<double>(experts),
          .flops = 10 * logits};
}

OpCost SlotDotsCost(int64_t tokens, int64_t top_k, int64_t hidden, DType rows) {
  const double slots = Product(tokens, top_k);
  const double h = static_cast<double>(hidden);
  return {.bytes = 4 * Product(tokens, hidden) + slots * (Size(rows) * h + 8),
          .flops = 2 * slots * h};
}

OpCost ScaleRowsCost(int64_t rows, int64_t hidden, DType x, DType out) {
  const double elements = Product(rows, hidden);
  return {
      .bytes = elements * (Size(x) + Size(out)) + 4 * static_cast<double>(rows),
      .flops = elements};
}

OpCost CrossEntropyCost(int64_t rows, int64_t vocab, DType dlogits) {
  const double logits = Product(rows, vocab);
  return {
      .bytes = logits * (4 + Size(dlogits)) + 12 * static_cast<double>(rows),
      .flops = 8 * logits};
}

OpCost EmbeddingBackwardCost(int64_t tokens, int64_t hidden) {
  const double elements = Product(tokens, hidden);
  return {.bytes = 12 * elements + 4 * static_cast<double>(tokens),
          .flops = elements};
}

OpCost CastCost(int64_t elements, DType x, DType out) {
  return {.bytes = static_cast<double>(elements) * (Size(x) + Size(out))};
}

OpCost AddScaledCost(int64_t elements) {
  const double n = static_cast<double>(elements);
  return {.bytes = 12 * n, .flops = 2 * n};
}

OpCost DropoutCost(int64_t tokens, int64_t k, DType x, DType out) {
  const double elements = Product(tokens, k);
  return {.bytes = elements * (Size(x) + Size(out)) +
                   8 * static_cast<double>(tokens),
          .flops = elements};
}

OpCost SumOfSquaresCost(int64_t elements) {
  const double n = static_cast<double>(elements);
  return {.bytes = 4 * n, .flops = 2 * n};
}

OpCost AdamWCost(int64_t elements) {
  const double n = static_cast<double>(elements);
  return {.bytes = 28 * n, .flops = 14 * n};
}

OpCost RepackCost(int64_t elements, DType dtype) {
  return {.bytes = static_cast<double>(elements) * (4 + Size(dtype))};
}

}  // namespace octet
