// Which ranks hold which experts: a table expert -> ranks, the same in every
// layer. Any number of ranks may hold an expert (replicas), a rank may hold
// none; every expert has at least one rank.
//
// Immutable after construction, so any thread may read it.
#ifndef OCTET_WORKER_MOE_PLACEMENT_H_
#define OCTET_WORKER_MOE_PLACEMENT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace octet {

class Placement {
 public:
  // E experts over R ranks. R <= E: rank r holds the contiguous experts
  // [floor(r E / R), floor((r + 1) E / R)), so sizes differ by at most one.
  // R > E: rank r holds expert r mod E, so every rank has work.
  static absl::StatusOr<Placement> Default(int num_experts, int num_ranks);

  // From text: entries "experts:ranks" joined by ';', each side a list of
  // numbers and ranges joined by ','. "0:0,1;1-3:2" puts expert 0 on ranks 0
  // and 1, experts 1 to 3 on rank 2. Every expert is named exactly once. Empty
  // text means Default. INVALID_ARGUMENT quotes the entry.
  static absl::StatusOr<Placement> Parse(absl::string_view text,
                                         int num_experts, int num_ranks);

  // ranks_of_expert [E]: non-empty, no rank twice, each in [0, num_ranks).
  static absl::StatusOr<Placement> FromTable(
      std::vector<std::vector<int>> ranks_of_expert, int num_ranks);

  int num_experts() const { return static_cast<int>(ranks_of_expert_.size()); }
  int num_ranks() const { return static_cast<int>(local_experts_.size()); }

  // In rising order.
  absl::Span<const int> RanksOf(int expert) const {
    return ranks_of_expert_[expert];
  }
  absl::Span<const int> LocalExperts(int rank) const {
    return local_experts_[rank];
  }
  // Position of `expert` in LocalExperts(rank); -1 when the rank lacks it.
  int LocalIndex(int rank, int expert) const {
    return local_index_[rank * num_experts() + expert];
  }

  // Where rows of `source_rank` for `expert` are computed: on the source itself
  // when it holds a copy, else on replica source_rank mod (number of replicas).
  // Replicas hold the same bits, so results do not depend on this choice.
  int RankFor(int expert, int source_rank) const {
    return rank_for_[source_rank * num_experts() + expert];
  }

  // Parse gives the same table back.
  std::string ToString() const;

  bool operator==(const Placement&) const = default;

 private:
  Placement() = default;

  std::vector<std::vector<int>> ranks_of_expert_;  // [E]
  std::vector<std::vector<int>> local_experts_;    // [R]
  std::vector<int> local_index_;                   // [R, E]
  std::vector<int> rank_for_;                      // [R, E]
};

}  // namespace octet

#endif  // OCTET_WORKER_MOE_PLACEMENT_H_
