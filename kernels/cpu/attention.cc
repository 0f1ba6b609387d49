#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/status_macros.h"

namespace octet::cpu {
namespace {

// Queries of one piece of work: enough to pay for widening and transposing a
// tile of keys, few enough for the second-level cache.
constexpr int kQueriesPerTask = 64;

struct Piece {
  const AttentionSequence* sequence;
  int kv_head;
  int64_t row;  // of the sequence
  int num_rows;
};

// Later rows see more keys: they come first, so that the last pieces are small.
std::vector<Piece> Split(absl::Span<const AttentionSequence> sequences,
                         int num_kv_heads, int rows_per_piece) {
  std::vector<Piece> pieces;
  for (const AttentionSequence& sequence : sequences) {
    for (int64_t end = sequence.num_rows; end > 0;) {
      const int64_t row = std::max<int64_t>(0, end - rows_per_piece);
      for (int head = 0; head < num_kv_heads; ++head) {
        pieces.push_back({&sequence, head, row, static_cast<int>(end - row)});
      }
      end = row;
    }
  }
  return pieces;
}

}  // namespace

absl::Status PagedAttention(CpuContext& context, ConstTensor q,
                            const KvCacheView& cache,
                            absl::Span<const AttentionSequence> sequences,
                            int sliding_window, Tensor out) {
  const int64_t row_elements = q.dim(1);
  const int64_t dim = cache.head_dim;
  const int group = static_cast<int>(row_elements / dim) / cache.num_kv_heads;
  const int rows_per_piece = std::max(1, kQueriesPerTask / group);
  const std::vector<Piece> pieces =
      Split(sequences, cache.num_kv_heads, rows_per_piece);
  OCTET_RETURN_IF_ERROR(context.ReserveScratch(
      sizeof(float) *
      AttentionScratchFloats(static_cast<int64_t>(rows_per_piece) * group,
                             cache.head_dim)));
  context.pool().ParallelFor(pieces.size(), [&](int64_t item, int thread) {
    const Piece& piece = pieces[item];
    const AttentionSequence& sequence = *piece.sequence;
    const int64_t at = (sequence.row_begin + piece.row) * row_elements +
                       piece.kv_head * group * dim;
    const size_t head_bytes = static_cast<size_t>(piece.kv_head) *
                              cache.block_tokens * dim * SizeOf(cache.dtype);
    AttentionTask task;
    task.q = q.as<float>() + at;
    task.q_stride = row_elements;
    task.out = static_cast<char*>(out.data()) + at * SizeOf(out.dtype());
    task.out_stride = row_elements;
    task.out_bf16 = out.dtype() == DType::kBF16;
    task.num_rows = piece.num_rows;
    task.group = group;
    task.head_dim = cache.head_dim;
    task.first_position = sequence.first_position + piece.row;
    task.window = sliding_window;
    task.keys = static_cast<const char*>(cache.keys) + head_bytes;
    task.values = static_cast<const char*>(cache.values) + head_bytes;
    task.cache_bf16 = cache.dtype == DType::kBF16;
    task.block_table = sequence.block_table.data();
    task.block_stride = dim * cache.block_tokens * cache.num_kv_heads;
    task.block_tokens = cache.block_tokens;
    task.scratch = static_cast<float*>(context.scratch(thread));
    context.kernels().attention(task);
  });
  return absl::OkStatus();
}

}  // namespace octet::cpu
