#include "worker/moe/placement.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"

namespace octet {
namespace {

absl::Status CheckSizes(int num_experts, int num_ranks) {
  if (num_experts < 1 || num_ranks < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("placement: ", num_experts, " experts over ", num_ranks,
                     " ranks, expected at least one of each"));
  }
  return absl::OkStatus();
}

// "1-3,5" -> 1, 2, 3, 5; each in [0, limit).
absl::StatusOr<std::vector<int>> ParseNumbers(absl::string_view list,
                                              absl::string_view entry,
                                              absl::string_view what,
                                              int limit) {
  std::vector<int> numbers;
  for (absl::string_view item : absl::StrSplit(list, ',')) {
    const std::vector<absl::string_view> ends = absl::StrSplit(item, '-');
    int first = 0, last = 0;
    if (ends.size() > 2 || !absl::SimpleAtoi(ends.front(), &first) ||
        !absl::SimpleAtoi(ends.back(), &last)) {
      return absl::InvalidArgumentError(
          absl::StrCat("placement: entry '", entry, "' has ", what, " '", item,
                       "', expected a number or a range such as 0-3"));
    }
    if (first < 0 || last >= limit || first > last) {
      return absl::InvalidArgumentError(
          absl::StrCat("placement: entry '", entry, "' has ", what, " '", item,
                       "', expected numbers in [0, ", limit - 1, "]"));
    }
    for (int number = first; number <= last; ++number) {
      numbers.push_back(number);
    }
  }
  return numbers;
}

}  // namespace

absl::StatusOr<Placement> Placement::Default(int num_experts, int num_ranks) {
  OCTET_RETURN_IF_ERROR(CheckSizes(num_experts, num_ranks));
  std::vector<std::vector<int>> table(num_experts);
  for (int rank = 0; rank < num_ranks; ++rank) {
    if (num_ranks > num_experts) {
      table[rank % num_experts].push_back(rank);
      continue;
    }
    const int end = (rank + 1) * num_experts / num_ranks;
    for (int e = rank * num_experts / num_ranks; e < end; ++e) {
      table[e].push_back(rank);
    }
  }
  return FromTable(std::move(table), num_ranks);
}

absl::StatusOr<Placement> Placement::Parse(absl::string_view text,
                                           int num_experts, int num_ranks) {
  if (text.empty()) return Default(num_experts, num_ranks);
  OCTET_RETURN_IF_ERROR(CheckSizes(num_experts, num_ranks));
  std::vector<std::vector<int>> table(num_experts);
  for (absl::string_view entry : absl::StrSplit(text, ';')) {
    const std::vector<absl::string_view> sides = absl::StrSplit(entry, ':');
    if (sides.size() != 2) {
      return absl::InvalidArgumentError(absl::StrCat(
          "placement: entry '", entry, "', expected experts:ranks"));
    }
    OCTET_ASSIGN_OR_RETURN(
        const std::vector<int> experts,
        ParseNumbers(sides[0], entry, "expert", num_experts));
    OCTET_ASSIGN_OR_RETURN(const std::vector<int> ranks,
                           ParseNumbers(sides[1], entry, "rank", num_ranks));
    for (int expert : experts) {
      if (!table[expert].empty()) {
        return absl::InvalidArgumentError(
            absl::StrCat("placement: entry '", entry, "' names expert ", expert,
                         " again, expected each expert once"));
      }
      table[expert] = ranks;
    }
  }
  return FromTable(std::move(table), num_ranks);
}

absl::StatusOr<Placement> Placement::FromTable(
    std::vector<std::vector<int>> ranks_of_expert, int num_ranks) {
  const int num_experts = static_cast<int>(ranks_of_expert.size());
  OCTET_RETURN_IF_ERROR(CheckSizes(num_experts, num_ranks));
  Placement out;
  out.ranks_of_expert_ = std::move(ranks_of_expert);
  out.local_experts_.resize(num_ranks);
  out.local_index_.assign(size_t{1} * num_ranks * num_experts, -1);
  out.rank_for_.resize(size_t{1} * num_ranks * num_experts);
  for (int e = 0; e < num_experts; ++e) {
    std::vector<int>& ranks = out.ranks_of_expert_[e];
    std::sort(ranks.begin(), ranks.end());
    if (ranks.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "placement: expert ", e, " has no rank, expected at least one"));
    }
    if (ranks.front() < 0 || ranks.back() >= num_ranks) {
      return absl::InvalidArgumentError(absl::StrCat(
          "placement: expert ", e, " is on ranks ", absl::StrJoin(ranks, ","),
          ", expected numbers in [0, ", num_ranks - 1, "]"));
    }
    if (std::adjacent_find(ranks.begin(), ranks.end()) != ranks.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("placement: expert ", e, " is on ranks ",
                       absl::StrJoin(ranks, ","), ", expected no rank twice"));
    }
    for (int rank : ranks) {
      out.local_index_[rank * num_experts + e] =
          static_cast<int>(out.local_experts_[rank].size());
      out.local_experts_[rank].push_back(e);
    }
    for (int source = 0; source < num_ranks; ++source) {
      const bool own = out.local_index_[source * num_experts + e] >= 0;
      out.rank_for_[source * num_experts + e] =
          own ? source : ranks[source % ranks.size()];
    }
  }
  return out;
}

std::string Placement::ToString() const {
  std::string out;
  for (int e = 0; e < num_experts(); ++e) {
    absl::StrAppend(&out, e ? ";" : "", e, ":",
                    absl::StrJoin(ranks_of_expert_[e], ","));
  }
  return out;
}

}  // namespace octet
