// Who sends which rows where: the dispatch handle, computed from the top-k
// choices of every rank's tokens.
//
// Names: T_p tokens on rank p in this step, K top-k, R ranks, E_l experts on
// this rank. A (token, slot) pair is one of a token's K choices. A token
// travels once to each rank that computes at least one of its choices; what
// comes back is one output row per (token, slot).
#ifndef OCTET_WORKER_MOE_DISPATCH_PLAN_H_
#define OCTET_WORKER_MOE_DISPATCH_PLAN_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/moe/placement.h"

namespace octet {

// What Dispatch learned and Combine needs. All of it in host memory. Offsets
// are exclusive prefix sums with the total as last entry. Nothing in it is
// particular to the forward pass: the gradient of Combine dispatches along
// `pair_*` backwards, that of Dispatch combines along `send_*`/`recv_*`.
//
// Dispatch, this rank as source (rows = tokens):
struct DispatchHandle {
  int64_t num_tokens = 0;  // T of this rank
  int top_k = 0;           // K

  // Rows this rank sends: those of rank p are
  // [send_offsets[p], send_offsets[p + 1]), by rising token.
  std::vector<int64_t> send_offsets;  // [R + 1]
  std::vector<int32_t> send_tokens;  // [send rows] index of the token in [0, T)

  // Rows this rank receives: from rank p [recv_offsets[p], recv_offsets[p +
  // 1]), by rising token of p.
  std::vector<int64_t> recv_offsets;  // [R + 1]

  // Rows of the experts here, sorted by local expert, then source rank, then
  // token, then slot: local expert e has [expert_offsets[e],
  // expert_offsets[e + 1]).
  std::vector<int64_t> expert_offsets;    // [E_l + 1]
  std::vector<int32_t> expert_recv_rows;  // [expert rows] received row it reads
  // [expert rows] the (token, slot) it is: token K + slot, where tokens count
  // over all ranks, one after the other.
  std::vector<int32_t> expert_pairs;

  // Combine. Output rows this rank sends back: to rank p
  // [reply_offsets[p], reply_offsets[p + 1]), by rising token of p, then slot.
  std::vector<int64_t> reply_offsets;      // [R + 1]
  std::vector<int32_t> reply_expert_rows;  // [expert rows] expert row it is

  // Output rows that come back: from rank p
  // [pair_offsets[p], pair_offsets[p + 1]), by rising token, then slot.
  std::vector<int64_t> pair_offsets;  // [R + 1]
  std::vector<int32_t> slot_rows;  // [T, K] the returned row of (token, slot)

  int64_t send_rows() const { return send_offsets.back(); }
  int64_t recv_rows() const { return recv_offsets.back(); }
  int64_t expert_rows() const { return expert_offsets.back(); }
  int64_t pair_rows() const { return num_tokens * top_k; }
};

// rank_tokens [R]: T_p. topk_ids: the ranks' [T_p, K] tables one after the
// other, every entry in [0, E). INTERNAL names the rank, token and slot of an
// entry that is not; every rank of the group sees the same tables and so ends
// with the same answer. O(sum of T_p * K).
// The tokens of all ranks times K must fit into 31 bits.
absl::StatusOr<DispatchHandle> PlanDispatch(
    const Placement& placement, int rank, int top_k,
    absl::Span<const int64_t> rank_tokens, absl::Span<const int32_t> topk_ids);

// Chunk c of C holds the tokens [T c / C, T (c + 1) / C) of each rank.
struct TokenRange {
  int64_t begin = 0;
  int64_t end = 0;
};
TokenRange ChunkRange(int64_t num_tokens, int chunk, int num_chunks);

// A plan for each chunk, which is a dispatch of its own: its tokens count from
// 0. Arguments and errors as above; num_chunks >= 1.
absl::StatusOr<std::vector<DispatchHandle>> PlanChunks(
    const Placement& placement, int rank, int top_k,
    absl::Span<const int64_t> rank_tokens, absl::Span<const int32_t> topk_ids,
    int num_chunks);

}  // namespace octet

#endif  // OCTET_WORKER_MOE_DISPATCH_PLAN_H_
