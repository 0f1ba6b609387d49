// Routing situations that dispatch has to get right, made from a seed.
#ifndef OCTET_TESTS_WORKER_MOE_ROUTING_CASES_H_
#define OCTET_TESTS_WORKER_MOE_ROUTING_CASES_H_

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "worker/moe/placement.h"

namespace octet::test {

struct RoutingCase {
  std::string name;
  Placement placement;
  int top_k;
  std::vector<int64_t> rank_tokens;           // [R] T_p
  std::vector<std::vector<int32_t>> choices;  // [R] of [T_p, K]
};

enum class Skew { kRandom, kOneExpert, kOneRankHasAll, kNobodyHasTokens };

inline RoutingCase MakeRoutingCase(const Placement& placement, int top_k,
                                   Skew skew, uint32_t seed) {
  std::mt19937 random(seed);
  const int num_ranks = placement.num_ranks();
  RoutingCase out{"", placement, top_k, {}, {}};
  std::vector<int32_t> experts(placement.num_experts());
  std::iota(experts.begin(), experts.end(), 0);
  for (int rank = 0; rank < num_ranks; ++rank) {
    int64_t tokens = random() % 12;  // sometimes zero
    if (skew == Skew::kNobodyHasTokens) tokens = 0;
    if (skew == Skew::kOneRankHasAll) tokens = rank == num_ranks - 1 ? 37 : 0;
    out.rank_tokens.push_back(tokens);
    std::vector<int32_t> ids;
    for (int64_t t = 0; t < tokens; ++t) {
      std::shuffle(experts.begin(), experts.end(), random);
      if (skew == Skew::kOneExpert) {
        std::swap(experts[0], *std::find(experts.begin(), experts.end(), 0));
      }
      ids.insert(ids.end(), experts.begin(), experts.begin() + top_k);
    }
    out.choices.push_back(ids);
  }
  out.name = absl::StrCat("placement ", placement.ToString(), ", K ", top_k,
                          ", skew ", static_cast<int>(skew));
  return out;
}

// Every width, placements with and without replicas and idle ranks, K 1 to 3.
inline std::vector<RoutingCase> AllRoutingCases() {
  std::vector<RoutingCase> cases;
  uint32_t seed = 1;
  for (int num_ranks : {1, 2, 3, 4, 7, 8, 12}) {
    std::vector<Placement> placements = {
        Placement::Default(8, num_ranks).value(),
        // Everything on the last rank.
        Placement::Parse(absl::StrCat("0-7:", num_ranks - 1), 8, num_ranks)
            .value()};
    if (num_ranks >= 3) {  // expert 0 everywhere, rank 1 nothing else
      placements.push_back(Placement::Parse(absl::StrCat("0:0-", num_ranks - 1,
                                                         ";1-4:0,2;5-7:0"),
                                            8, num_ranks)
                               .value());
      placements.push_back(
          Placement::Parse("0-3:0;4-7:2,1", 8, num_ranks).value());
    }
    for (const Placement& placement : placements) {
      for (int top_k : {1, 2, 3}) {
        for (Skew skew : {Skew::kRandom, Skew::kOneExpert, Skew::kOneRankHasAll,
                          Skew::kNobodyHasTokens}) {
          cases.push_back(MakeRoutingCase(placement, top_k, skew, seed++));
        }
      }
    }
  }
  return cases;
}

}  // namespace octet::test

#endif  // OCTET_TESTS_WORKER_MOE_ROUTING_CASES_H_
