#include "worker/moe/dispatch_plan.h"

#include <numeric>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/status_macros.h"

namespace octet {
namespace {

// Counts in [i + 1] to exclusive prefix sums.
void CountsToOffsets(std::vector<int64_t>& counts) {
  std::partial_sum(counts.begin(), counts.end(), counts.begin());
}

absl::Status CheckChoices(int num_experts, int top_k,
                          absl::Span<const int64_t> rank_tokens,
                          absl::Span<const int32_t> topk_ids) {
  size_t i = 0;
  for (size_t rank = 0; rank < rank_tokens.size(); ++rank) {
    for (int64_t pair = 0; pair < rank_tokens[rank] * top_k; ++pair, ++i) {
      if (topk_ids[i] >= 0 && topk_ids[i] < num_experts) continue;
      return absl::InternalError(absl::StrCat(
          "dispatch: rank ", rank, " chose expert ", topk_ids[i],
          " for its token ", pair / top_k, " in slot ", pair % top_k,
          ", expected one in [0, ", num_experts - 1, "]"));
    }
  }
  return absl::OkStatus();
}

// This rank as a source of tokens: send_*, pair_* and slot_rows.
void PlanSource(const Placement& placement, int rank, const int32_t* topk_ids,
                DispatchHandle& handle) {
  const int num_ranks = placement.num_ranks();
  const int64_t num_pairs = handle.pair_rows();
  handle.send_offsets.assign(num_ranks + 1, 0);
  handle.pair_offsets.assign(num_ranks + 1, 0);
  std::vector<int64_t> last_token(num_ranks, -1);  // the last one counted for a
                                                   // destination
  for (int64_t pair = 0; pair < num_pairs; ++pair) {
    const int destination = placement.RankFor(topk_ids[pair], rank);
    ++handle.pair_offsets[destination + 1];
    if (std::exchange(last_token[destination], pair / handle.top_k) !=
        pair / handle.top_k) {
      ++handle.send_offsets[destination + 1];
    }
  }
  CountsToOffsets(handle.send_offsets);
  CountsToOffsets(handle.pair_offsets);

  handle.send_tokens.resize(handle.send_rows());
  handle.slot_rows.resize(num_pairs);
  std::vector<int64_t> next_send = handle.send_offsets;
  std::vector<int64_t> next_pair = handle.pair_offsets;
  last_token.assign(num_ranks, -1);
  for (int64_t pair = 0; pair < num_pairs; ++pair) {
    const int64_t token = pair / handle.top_k;
    const int destination = placement.RankFor(topk_ids[pair], rank);
    handle.slot_rows[pair] = static_cast<int32_t>(next_pair[destination]++);
    if (std::exchange(last_token[destination], token) != token) {
      handle.send_tokens[next_send[destination]++] =
          static_cast<int32_t>(token);
    }
  }
}

// This rank as a home of experts: recv_*, expert_* and reply_*.
void PlanExperts(const Placement& placement, int rank,
                 absl::Span<const int64_t> rank_tokens,
                 absl::Span<const int32_t> topk_ids, DispatchHandle& handle) {
  struct Pair {
    int32_t local_expert;
    int32_t recv_row;
    int32_t pair;
  };
  std::vector<Pair> pairs;  // in reply order
  const int num_ranks = placement.num_ranks();
  handle.recv_offsets.assign(num_ranks + 1, 0);
  handle.reply_offsets.assign(num_ranks + 1, 0);
  handle.expert_offsets.assign(placement.LocalExperts(rank).size() + 1, 0);
  const int32_t* choice = topk_ids.data();
  int32_t recv_rows = 0;
  for (int source = 0; source < num_ranks; ++source) {
    for (int64_t token = 0; token < rank_tokens[source]; ++token) {
      bool wanted = false;
      for (int slot = 0; slot < handle.top_k; ++slot, ++choice) {
        if (placement.RankFor(*choice, source) != rank) continue;
        wanted = true;
        const int local = placement.LocalIndex(rank, *choice);
        pairs.push_back(
            {local, recv_rows, static_cast<int32_t>(choice - topk_ids.data())});
        ++handle.expert_offsets[local + 1];
      }
      recv_rows += wanted;
    }
    handle.recv_offsets[source + 1] = recv_rows;
    handle.reply_offsets[source + 1] = static_cast<int64_t>(pairs.size());
  }
  CountsToOffsets(handle.expert_offsets);

  handle.expert_recv_rows.resize(pairs.size());
  handle.expert_pairs.resize(pairs.size());
  handle.reply_expert_rows.resize(pairs.size());
  std::vector<int64_t> next = handle.expert_offsets;
  for (size_t i = 0; i < pairs.size(); ++i) {
    const int64_t expert_row = next[pairs[i].local_expert]++;
    handle.expert_recv_rows[expert_row] = pairs[i].recv_row;
    handle.expert_pairs[expert_row] = pairs[i].pair;
    handle.reply_expert_rows[i] = static_cast<int32_t>(expert_row);
  }
}

}  // namespace

absl::StatusOr<DispatchHandle> PlanDispatch(
    const Placement& placement, int rank, int top_k,
    absl::Span<const int64_t> rank_tokens, absl::Span<const int32_t> topk_ids) {
  OCTET_ASSIGN_OR_RETURN(
      std::vector<DispatchHandle> handles,
      PlanChunks(placement, rank, top_k, rank_tokens, topk_ids, 1));
  return std::move(handles[0]);
}

TokenRange ChunkRange(int64_t num_tokens, int chunk, int num_chunks) {
  return {num_tokens * chunk / num_chunks,
          num_tokens * (chunk + 1) / num_chunks};
}

absl::StatusOr<std::vector<DispatchHandle>> PlanChunks(
    const Placement& placement, int rank, int top_k,
    absl::Span<const int64_t> rank_tokens, absl::Span<const int32_t> topk_ids,
    int num_chunks) {
  OCTET_CHECK(static_cast<int>(rank_tokens.size()) == placement.num_ranks());
  const int64_t all_tokens =
      std::accumulate(rank_tokens.begin(), rank_tokens.end(), int64_t{0});
  OCTET_CHECK(static_cast<int64_t>(topk_ids.size()) == all_tokens * top_k);
  OCTET_RETURN_IF_ERROR(
      CheckChoices(placement.num_experts(), top_k, rank_tokens, topk_ids));
  std::vector<DispatchHandle> handles;
  for (int chunk = 0; chunk < num_chunks; ++chunk) {
    std::vector<int64_t> tokens;
    std::vector<int32_t> ids;
    int64_t own_begin = 0;
    int64_t rank_begin = 0;
    for (size_t p = 0; p < rank_tokens.size(); ++p) {
      const TokenRange range = ChunkRange(rank_tokens[p], chunk, num_chunks);
      if (static_cast<int>(p) == rank) {
        own_begin = static_cast<int64_t>(ids.size());
      }
      tokens.push_back(range.end - range.begin);
      const int32_t* table = topk_ids.data() + rank_begin * top_k;
      ids.insert(ids.end(), table + range.begin * top_k,
                 table + range.end * top_k);
      rank_begin += rank_tokens[p];
    }
    DispatchHandle& handle = handles.emplace_back();
    handle.num_tokens = tokens[rank];
    handle.top_k = top_k;
    PlanSource(placement, rank, ids.data() + own_begin, handle);
    PlanExperts(placement, rank, tokens, ids, handle);
  }
  return handles;
}

}  // namespace octet
