#include "worker/model/training_batch.h"

#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/reference/host_tensor.h"

namespace octet {
namespace {

using ::testing::ElementsAre;

ModelConfig Config() {
  ModelConfig config;
  config.vocab_size = 10;
  config.num_layers = 1;
  config.num_experts = 4;
  config.top_k = 2;
  config.max_position = 6;
  return config;
}

struct Slot {
  std::vector<int32_t> ids = {1, 2, 3}, labels = {1, -100, 3};
  std::vector<int32_t> routes;
};

std::string Refusal(const std::function<void(std::vector<Slot>&)>& change) {
  std::vector<Slot> slots(2);
  change(slots);
  TrainingBatch batch;
  for (const Slot& slot : slots) {
    TrainingSlotInput& input = batch.slots.emplace_back();
    input.documents.push_back({slot.ids, slot.labels});
    if (!slot.routes.empty()) input.layer_routes.push_back(slot.routes);
  }
  return std::string(CheckTrainingBatch(batch, Config()).message());
}

TEST(TrainingBatchTest, BadInputGetsOneSentence) {
  EXPECT_EQ(Refusal([](auto&) {}), "");
  EXPECT_EQ(Refusal([](auto& slots) { slots.clear(); }),
            "slots: there are none, expected at least one");
  EXPECT_EQ(Refusal([](auto& slots) { slots[1].ids[2] = 10; }),
            "slot 1, document 0, position 2: token 10, expected 0 to 9");
  EXPECT_EQ(Refusal([](auto& slots) { slots[0].labels[1] = 4; }),
            "slot 0, document 0, position 1: label 4, expected the token 2 or "
            "-100");
  EXPECT_EQ(Refusal([](auto& slots) { slots[0].labels.pop_back(); }),
            "slot 0, document 0 has 2 labels, expected one for each of 3 "
            "tokens");
  EXPECT_EQ(Refusal([](auto& slots) {
              slots[1].ids.resize(7);
              slots[1].labels.resize(7);
            }),
            "slot 1, document 0 has 7 tokens, expected 1 to 6 "
            "(max_position_embeddings)");
  EXPECT_EQ(Refusal([](auto& slots) {
              slots[1].ids.clear();
              slots[1].labels.clear();
            }),
            "slot 1, document 0 has 0 tokens, expected 1 to 6 "
            "(max_position_embeddings)");
  const std::vector<int32_t> routes = {0, 1, 2, 3, 1, 0};
  EXPECT_EQ(
      Refusal([&](auto& slots) { slots[0].routes = slots[1].routes = routes; }),
      "");
  EXPECT_EQ(Refusal([&](auto& slots) { slots[1].routes = routes; }),
            "slot 1 has routes of 1 layers, expected 0 as the first slot");
  EXPECT_EQ(Refusal([&](auto& slots) {
              slots[0].routes = slots[1].routes = routes;
              slots[1].routes.pop_back();
            }),
            "slot 1, routes of layer 0 have 5 experts, expected 6 (2 for each "
            "token)");
  EXPECT_EQ(Refusal([&](auto& slots) {
              slots[0].routes = slots[1].routes = routes;
              slots[0].routes[3] = 4;
            }),
            "slot 0, routes of layer 0, token 1: expert 4, expected 0 to 3");
  EXPECT_EQ(Refusal([&](auto& slots) {
              slots[0].routes = slots[1].routes = routes;
              slots[0].routes[5] = 1;
            }),
            "slot 0, routes of layer 0, token 2: expert 1 twice, expected "
            "different ones");
  EXPECT_EQ(Refusal([&](auto& slots) {
              slots[0].routes = slots[1].routes = routes;
              slots[0].routes[2] = slots[0].routes[3] = kNoRoute;
            }),
            "");
  EXPECT_EQ(Refusal([&](auto& slots) {
              slots[0].routes = slots[1].routes = routes;
              slots[0].routes[2] = kNoRoute;
            }),
            "slot 0, routes of layer 0, token 1: expert 3 beside -1, expected "
            "2 times -1 where the router is to choose");
  EXPECT_EQ(Refusal([&](auto& slots) {
              slots[0].routes = slots[1].routes = routes;
              slots[0].routes[3] = kNoRoute;
            }),
            "slot 0, routes of layer 0, token 1: expert -1, expected 0 to 3");
}

TEST(TrainingBatchTest, TheTablesOfARank) {
  const std::vector<int32_t> a = {1, 2, 3}, a_labels = {1, -100, 3};
  const std::vector<int32_t> b = {4, 5}, b_labels = {4, 5};
  TrainingBatch batch;
  batch.slots = {{{{a, a_labels}}, {}},
                 {{{b, b_labels}, {a, a_labels}}, {}},
                 {{{b, b_labels}}, {}}};
  batch.rank_slots = {0, 1, 1, 3};
  batch.first_sink_slot = 10;
  batch.first_run_slot = 100;
  const TrainingLayout layout = LayOut(batch, 2);
  EXPECT_THAT(layout.rank_tokens, ElementsAre(3, 0, 7));
  EXPECT_THAT(layout.slot_map.token_begin, ElementsAre(0, 3, 8, 10));
  EXPECT_THAT(layout.label_begin, ElementsAre(0, 1, 3, 4));
  EXPECT_THAT(layout.token_ids, ElementsAre(4, 5, 1, 2, 3, 4, 5));
  EXPECT_THAT(layout.document_begin, ElementsAre(0, 2, 5, 7));
  EXPECT_THAT(layout.label_rows, ElementsAre(0, 3, 5));
  EXPECT_THAT(layout.label_ids, ElementsAre(5, 3, 5));
  ASSERT_EQ(layout.slot_rows.size(), 2u);
  EXPECT_EQ(layout.slot_rows[1].slot, 12);
  EXPECT_EQ(layout.slot_rows[1].begin, 5);
  EXPECT_EQ(layout.slot_rows[1].end, 7);
  EXPECT_EQ(layout.label_slots[0].end, 2);
  EXPECT_EQ(layout.row_keys[4], (int64_t{101} << 24) | 4);
  EXPECT_EQ(layout.row_keys[5], int64_t{102} << 24);
  EXPECT_EQ(LayOut(batch, 1).num_tokens(), 0);
}

// Every slot to one rank, in order; no rank further from its share than a slot.
TEST(TrainingBatchTest, SlotsAreSplitByTokens) {
  test::Random random(4);
  for (int round = 0; round < 200; ++round) {
    std::vector<int64_t> tokens(random.Integer(0, 20));
    for (int64_t& count : tokens) count = random.Integer(1, 100);
    const int num_ranks = static_cast<int>(random.Integer(1, 9));
    const std::vector<int64_t> ranges = SplitSlots(tokens, num_ranks);
    ASSERT_EQ(ranges.size(), num_ranks + 1u);
    EXPECT_EQ(ranges.front(), 0);
    EXPECT_EQ(ranges.back(), static_cast<int64_t>(tokens.size()));
    const int64_t all = std::accumulate(tokens.begin(), tokens.end(), 0l);
    for (int r = 0; r < num_ranks; ++r) {
      ASSERT_LE(ranges[r], ranges[r + 1]);
      const int64_t share = std::accumulate(tokens.begin() + ranges[r],
                                            tokens.begin() + ranges[r + 1], 0l);
      EXPECT_LE(share * num_ranks, all + 100 * num_ranks);
    }
  }
  EXPECT_THAT(SplitSlots(std::vector<int64_t>{5, 5, 5, 5}, 2),
              ElementsAre(0, 2, 4));
}

}  // namespace
}  // namespace octet
