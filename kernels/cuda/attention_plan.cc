#include "kernels/cuda/attention_plan.h"

#include <algorithm>
#include <cstring>

namespace octet::cuda {
namespace {

constexpr int64_t kLargeQueries = kAttentionWarps * kAttentionWarpQueries;

template <typename T>
void Append(const std::vector<T>& values, std::vector<std::byte>& bytes) {
  const auto* from = reinterpret_cast<const std::byte*>(values.data());
  bytes.insert(bytes.end(), from, from + values.size() * sizeof(T));
}

}  // namespace

bool AttentionIsVectorised(const KvCacheView& cache) {
  const auto address = reinterpret_cast<uintptr_t>(cache.keys) |
                       reinterpret_cast<uintptr_t>(cache.values) |
                       (cache.head_dim * SizeOf(cache.dtype));
  return address % 16 == 0;
}

AttentionPlan::AttentionPlan(absl::Span<const AttentionSequence> sequences,
                             const AttentionPlanShape& shape) {
  for (const AttentionSequence& sequence : sequences) {
    if (sequence.num_rows > 0) AddPieces(sequence, shape);
  }
  AddItems(shape);
}

void AttentionPlan::AddPieces(const AttentionSequence& sequence,
                              const AttentionPlanShape& shape) {
  const int64_t table_begin = static_cast<int64_t>(blocks_.size());
  blocks_.insert(blocks_.end(), sequence.block_table.begin(),
                 sequence.block_table.end());
  const int64_t num_queries = sequence.num_rows * shape.group;
  // Later queries see more keys: they come first, so that the last blocks are
  // small.
  for (int64_t end = num_queries; end > 0;) {
    const int64_t begin = (end - 1) / kLargeQueries * kLargeQueries;
    AttentionPiece piece;
    piece.row_begin = sequence.row_begin;
    piece.table_begin = table_begin;
    piece.first_position = static_cast<int32_t>(sequence.first_position);
    piece.query_begin = static_cast<int32_t>(begin);
    piece.num_queries = static_cast<int32_t>(end - begin);
    const int64_t first = sequence.first_position + begin / shape.group;
    const int64_t last = sequence.first_position + (end - 1) / shape.group;
    const int64_t first_key =
        shape.window > 0 ? std::max<int64_t>(0, first - shape.window + 1) : 0;
    piece.span_begin = static_cast<int32_t>(first_key / kAttentionSpan);
    piece.num_spans =
        static_cast<int32_t>(last / kAttentionSpan) + 1 - piece.span_begin;
    pieces_.push_back(piece);
    end = begin;
  }
}

void AttentionPlan::AddItems(const AttentionPlanShape& shape) {
  int64_t num_spans = 0;
  for (const AttentionPiece& piece : pieces_) num_spans += piece.num_spans;
  const int64_t whole =
      static_cast<int64_t>(pieces_.size()) * shape.num_kv_heads;
  const int64_t spans_per_item =
      std::max<int64_t>(1, num_spans * shape.num_kv_heads /
                               std::max<int64_t>(1, shape.min_blocks));
  const int64_t max_partials =
      kMaxPartialBytes /
      static_cast<int64_t>((shape.head_dim + 2) * sizeof(float));
  for (int32_t i = 0; i < num_pieces(); ++i) {
    AttentionPiece& piece = pieces_[i];
    const int64_t partials =
        int64_t{piece.num_queries} * piece.num_spans * shape.num_kv_heads;
    const bool split = whole < shape.min_blocks &&
                       piece.num_spans > spans_per_item &&
                       num_partials_ + partials <= max_partials;
    if (split) {
      piece.partial_begin = num_partials_;
      num_partials_ += partials;
    }
    auto& items = piece.num_queries <= kAttentionWarpQueries ? small_ : large_;
    const int32_t end = piece.span_begin + piece.num_spans;
    const int64_t step = split ? spans_per_item : piece.num_spans;
    for (int64_t span = piece.span_begin; span < end; span += step) {
      items.push_back(
          {i, static_cast<int32_t>(span),
           static_cast<int32_t>(std::min<int64_t>(end, span + step))});
    }
  }
}

std::vector<std::byte> AttentionPlan::Bytes() const {
  std::vector<std::byte> bytes;
  Append(pieces_, bytes);
  Append(small_, bytes);
  Append(large_, bytes);
  Append(blocks_, bytes);
  return bytes;
}

const AttentionItem* AttentionPlan::small_items(const std::byte* base) const {
  return reinterpret_cast<const AttentionItem*>(
      base + pieces_.size() * sizeof(AttentionPiece));
}

const AttentionItem* AttentionPlan::large_items(const std::byte* base) const {
  return small_items(base) + small_.size();
}

void AttentionPlan::PointTo(const std::byte* base, AttentionArgs& args) const {
  args.pieces = reinterpret_cast<const AttentionPiece*>(base);
  args.blocks =
      reinterpret_cast<const int32_t*>(large_items(base) + large_.size());
}

}  // namespace octet::cuda
