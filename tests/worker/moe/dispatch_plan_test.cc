// Moves labels instead of rows along the handles of all ranks at once, and
// checks where they came from.
#include "worker/moe/dispatch_plan.h"

#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/worker/moe/routing_cases.h"

namespace octet {
namespace {

using test::RoutingCase;
using ::testing::HasSubstr;

struct Label {
  int rank = -1;
  int64_t token = -1;
  int expert = -1;
  auto operator<=>(const Label&) const = default;
};

std::vector<int32_t> AllChoices(const RoutingCase& routing) {
  std::vector<int32_t> all;
  for (const auto& ids : routing.choices) {
    all.insert(all.end(), ids.begin(), ids.end());
  }
  return all;
}

std::vector<DispatchHandle> PlanAll(const RoutingCase& routing) {
  std::vector<DispatchHandle> handles;
  for (int rank = 0; rank < routing.placement.num_ranks(); ++rank) {
    handles.push_back(PlanDispatch(routing.placement, rank, routing.top_k,
                                   routing.rank_tokens, AllChoices(routing))
                          .value());
  }
  return handles;
}

// rows[p] of all ranks to the ranks in whose range they lie.
std::vector<std::vector<Label>> Exchange(
    const std::vector<std::vector<Label>>& rows,
    const std::vector<DispatchHandle>& handles,
    std::vector<int64_t> DispatchHandle::*send_offsets,
    std::vector<int64_t> DispatchHandle::*recv_offsets) {
  std::vector<std::vector<Label>> received(rows.size());
  for (size_t to = 0; to < rows.size(); ++to) {
    for (size_t from = 0; from < rows.size(); ++from) {
      const auto& offsets = handles[from].*send_offsets;
      const auto& expected = handles[to].*recv_offsets;
      EXPECT_EQ(offsets[to + 1] - offsets[to],
                expected[from + 1] - expected[from]);
      received[to].insert(received[to].end(), rows[from].begin() + offsets[to],
                          rows[from].begin() + offsets[to + 1]);
    }
  }
  return received;
}

void ExpectProvenance(const RoutingCase& routing) {
  SCOPED_TRACE(routing.name);
  const int num_ranks = routing.placement.num_ranks();
  const std::vector<DispatchHandle> handles = PlanAll(routing);

  std::vector<std::vector<Label>> sent(num_ranks);
  for (int rank = 0; rank < num_ranks; ++rank) {
    for (int32_t token : handles[rank].send_tokens) {
      sent[rank].push_back({rank, token, -1});
    }
    for (int p = 0; p < num_ranks; ++p) {  // once per destination, rising
      for (int64_t i = handles[rank].send_offsets[p] + 1;
           i < handles[rank].send_offsets[p + 1]; ++i) {
        EXPECT_LT(handles[rank].send_tokens[i - 1],
                  handles[rank].send_tokens[i]);
      }
    }
  }
  const auto received = Exchange(sent, handles, &DispatchHandle::send_offsets,
                                 &DispatchHandle::recv_offsets);

  const std::vector<int32_t> all_choices = AllChoices(routing);
  std::vector<int64_t> first_tokens = {0};  // of each rank, among all
  for (int64_t tokens : routing.rank_tokens) {
    first_tokens.push_back(first_tokens.back() + tokens);
  }
  std::vector<std::vector<Label>> replies(num_ranks);
  for (int rank = 0; rank < num_ranks; ++rank) {
    const DispatchHandle& handle = handles[rank];
    const auto local = routing.placement.LocalExperts(rank);
    std::vector<Label> outputs;
    for (size_t e = 0; e < local.size(); ++e) {
      for (int64_t i = handle.expert_offsets[e];
           i < handle.expert_offsets[e + 1]; ++i) {
        Label label = received[rank].at(handle.expert_recv_rows.at(i));
        const int64_t pair = handle.expert_pairs.at(i);
        EXPECT_EQ(pair / routing.top_k, first_tokens[label.rank] + label.token);
        EXPECT_EQ(all_choices.at(pair), local[e]);
        label.expert = local[e];
        outputs.push_back(label);
      }
      EXPECT_TRUE(std::is_sorted(outputs.begin() + handle.expert_offsets[e],
                                 outputs.end()));
    }
    for (int32_t row : handle.reply_expert_rows) {
      replies[rank].push_back(outputs.at(row));
    }
  }
  const auto returned =
      Exchange(replies, handles, &DispatchHandle::reply_offsets,
               &DispatchHandle::pair_offsets);
  for (int rank = 0; rank < num_ranks; ++rank) {
    ASSERT_EQ(handles[rank].slot_rows.size(), routing.choices[rank].size());
    for (size_t pair = 0; pair < routing.choices[rank].size(); ++pair) {
      const Label expected{rank, static_cast<int64_t>(pair) / routing.top_k,
                           routing.choices[rank][pair]};
      EXPECT_EQ(returned[rank].at(handles[rank].slot_rows[pair]), expected);
    }
  }
}

TEST(DispatchPlanTest, EveryPairReachesItsExpertAndComesHome) {
  for (const RoutingCase& routing : test::AllRoutingCases()) {
    ExpectProvenance(routing);
  }
}

TEST(DispatchPlanTest, ATokenTravelsOncePerDestination) {
  for (const RoutingCase& routing : test::AllRoutingCases()) {
    SCOPED_TRACE(routing.name);
    const std::vector<DispatchHandle> handles = PlanAll(routing);
    for (size_t rank = 0; rank < handles.size(); ++rank) {
      std::set<std::tuple<int, int64_t>> trips;
      for (size_t pair = 0; pair < routing.choices[rank].size(); ++pair) {
        trips.insert({routing.placement.RankFor(routing.choices[rank][pair],
                                                static_cast<int>(rank)),
                      static_cast<int64_t>(pair) / routing.top_k});
      }
      EXPECT_EQ(handles[rank].send_rows(), static_cast<int64_t>(trips.size()));
    }
  }
}

TEST(DispatchPlanTest, AnImpossibleChoiceNamesRankTokenAndSlot) {
  const Placement placement = Placement::Default(4, 2).value();
  for (int32_t bad : {-1, 4, 1 << 30}) {
    // Rank 0 has one token, rank 1 two; the bad one is rank 1's token 1, slot
    // 0.
    const auto handle =
        PlanDispatch(placement, 0, 2, {1, 2}, {0, 1, 2, 3, bad, 0});
    EXPECT_EQ(handle.status().code(), absl::StatusCode::kInternal);
    EXPECT_THAT(
        std::string(handle.status().message()),
        HasSubstr(absl::StrCat("rank 1 chose expert ", bad,
                               " for its token 1 in slot 0, expected one in "
                               "[0, 3]")));
  }
}

}  // namespace
}  // namespace octet
