#include "kernels/cpu/attention_backward.h"

#include <algorithm>
#include <vector>

#include "base/status_macros.h"
#include "kernels/cpu/elements.h"

namespace octet::cpu {
namespace {

// Keys (or values) of one head of a sequence as f32 [PadRows(S), PadHeadDim(D)]
// with zeros around them.
void Widen(const VectorKernels& kernels, const KvCacheView& cache,
           const void* base, const AttentionSequence& sequence, int head,
           float* to) {
  const int64_t dim = cache.head_dim;
  const int64_t padded = PadHeadDim(cache.head_dim);
  for (int64_t p = 0; p < sequence.num_rows; ++p) {
    const int64_t block = sequence.block_table[p / cache.block_tokens];
    const int64_t at =
        ((block * cache.num_kv_heads + head) * cache.block_tokens +
         p % cache.block_tokens) *
        dim;
    if (cache.dtype == DType::kBF16) {
      kernels.from_bf16(static_cast<const uint16_t*>(base) + at, dim,
                        to + p * padded);
    } else {
      std::copy_n(static_cast<const float*>(base) + at, dim, to + p * padded);
    }
    std::fill_n(to + p * padded + dim, padded - dim, 0.0f);
  }
  std::fill(to + sequence.num_rows * padded,
            to + PadRows(sequence.num_rows) * padded, 0.0f);
}

// Longest first, so that the last pieces are small.
std::vector<const AttentionSequence*> ByLength(
    absl::Span<const AttentionSequence> sequences) {
  std::vector<const AttentionSequence*> sorted;
  for (const AttentionSequence& sequence : sequences) {
    if (sequence.num_rows > 0) sorted.push_back(&sequence);
  }
  std::stable_sort(
      sorted.begin(), sorted.end(),
      [](const auto* a, const auto* b) { return a->num_rows > b->num_rows; });
  return sorted;
}

}  // namespace

absl::Status AttentionBackward(CpuContext& context, ConstTensor q,
                               const KvCacheView& cache,
                               absl::Span<const AttentionSequence> sequences,
                               int sliding_window, ConstTensor out,
                               ConstTensor dout, Tensor dq, Tensor dk,
                               Tensor dv) {
  const std::vector<const AttentionSequence*> sorted = ByLength(sequences);
  if (sorted.empty()) return absl::OkStatus();
  const int64_t dim = cache.head_dim;
  const int64_t q_row = q.dim(1);
  const int64_t kv_row = dk.dim(1);
  const int group = static_cast<int>(q_row / kv_row);
  const int64_t longest = sorted[0]->num_rows;
  const int64_t matrix = PadRows(longest) * PadHeadDim(cache.head_dim);
  OCTET_RETURN_IF_ERROR(context.ReserveScratch(
      sizeof(float) * (2 * matrix + AttentionBackwardScratchFloats(
                                        longest, group, cache.head_dim))));
  const int64_t heads = cache.num_kv_heads;
  context.pool().ParallelFor(
      static_cast<int64_t>(sorted.size()) * heads,
      [&](int64_t item, int thread) {
        const AttentionSequence& sequence = *sorted[item / heads];
        const int head = static_cast<int>(item % heads);
        const int64_t q_at = sequence.row_begin * q_row + head * group * dim;
        const int64_t kv_at = sequence.row_begin * kv_row + head * dim;
        AttentionBackwardTask task;
        task.q = q.as<float>() + q_at;
        task.out = ElementsAt(out, q_at);
        task.dout = ElementsAt(dout, q_at);
        task.dq = dq.as<float>() + q_at;
        task.q_stride = q_row;
        task.dk = dk.as<float>() + kv_at;
        task.dv = dv.as<float>() + kv_at;
        task.kv_stride = kv_row;
        task.num_rows = sequence.num_rows;
        task.group = group;
        task.head_dim = cache.head_dim;
        task.window = sliding_window;
        task.keys = static_cast<float*>(context.scratch(thread));
        task.values = task.keys + matrix;
        task.scratch = task.values + matrix;
        Widen(context.kernels(), cache, cache.keys, sequence, head, task.keys);
        Widen(context.kernels(), cache, cache.values, sequence, head,
              task.values);
        context.training_kernels().attention_backward(task);
      });
  return absl::OkStatus();
}

}  // namespace octet::cpu
