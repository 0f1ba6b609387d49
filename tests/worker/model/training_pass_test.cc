// Promise 1 in training: losses and every slot's gradients to the last bit, for
// every number of ranks, placement and split. That they are right ones is
// training_golden_test's business.
#include "worker/model/training_pass.h"

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/cpu/isa.h"
#include "tests/worker/model/training_job.h"

namespace octet {
namespace {

using test::ExpectSameBits;
using test::Routing;
using test::RunTraining;
using test::TinyModel;
using test::TrainingJob;
using test::TrainingOutcome;

struct BitsCase {
  DType dtype;
  Routing routing;
  bool adapted;
  RouterLossScope scope;
};

TrainingJob JobOf(const TinyModel& model, const test::Slots& slots) {
  TrainingJob job;
  job.model = &model;
  job.options.router_loss = {0.02f, 0.001f, false, RouterLossScope::kBatch};
  job.options.seed = 77;
  job.options.max_head_rows = 8;  // long slots are cut, short ones share
  job.options.keep_logprobs = true;
  job.batch.slots = InputsOf(slots);
  job.batch.first_sink_slot = 3;
  job.batch.first_run_slot = 1000;
  return job;
}

class SameBitsTest : public ::testing::TestWithParam<BitsCase> {};

TEST_P(SameBitsTest, AtEveryWidth) {
  const BitsCase& bits = GetParam();
  const TinyModel model =
      test::MakeTinyModel(test::TinyConfig(), bits.routing, 31);
  const test::Slots slots = test::MakeSlots(model.config.vocab_size);
  TrainingJob job = JobOf(model, slots);
  job.dtype = bits.dtype;
  job.options.router_loss.scope = bits.scope;
  if (bits.adapted) job.adapter_dropout = 0.3f;
  const TrainingOutcome expected = RunTraining(job);
  EXPECT_FALSE(expected.gradients.empty());
  EXPECT_TRUE(std::isfinite(expected.result.loss));
  int kind = 0;
  for (const int num_ranks : {1, 2, 3, 4, 7, 8, 12}) {
    for (const bool recompute : {false, true}) {
      job.num_ranks = num_ranks;
      job.options.recompute = recompute;
      job.backend.num_threads = 1 + kind % 2;
      job.options.max_expert_rows = kind % 3 == 0 ? 5 : 2048;
      // All slots on the last rank, now and then.
      job.batch.rank_slots.clear();
      if (kind++ % 4 == 3) {
        job.batch.rank_slots.assign(num_ranks, 0);
        job.batch.rank_slots.push_back(static_cast<int64_t>(slots.size()));
      }
      ExpectSameBits(RunTraining(job), expected,
                     absl::StrCat(num_ranks, " ranks, recompute ", recompute));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, SameBitsTest,
    ::testing::Values(
        BitsCase{DType::kF32, Routing::kRandom, false, RouterLossScope::kBatch},
        BitsCase{DType::kBF16, Routing::kRandom, true, RouterLossScope::kSlot},
        // Every token to the same experts; six experts without tokens.
        BitsCase{DType::kBF16, Routing::kSkewed, false,
                 RouterLossScope::kBatch},
        BitsCase{DType::kF32, Routing::kSkewed, true, RouterLossScope::kSlot}));

TEST(TrainingPassTest, PlacementDoesNotShow) {
  const TinyModel model =
      test::MakeTinyModel(test::TinyConfig(), Routing::kRandom, 32);
  const test::Slots slots = test::MakeSlots(model.config.vocab_size);
  TrainingJob job = JobOf(model, slots);
  job.dtype = DType::kBF16;
  job.adapter_dropout = 0.1f;
  const TrainingOutcome expected = RunTraining(job);
  job.num_ranks = 3;
  for (const char* placement :
       {"0-7:0", "0-7:0-2", "0:0,1;1-4:2;5-7:0,2", "0-3:2;4-7:1"}) {
    job.placement = placement;
    ExpectSameBits(RunTraining(job), expected, placement);
  }
}

TEST(TrainingPassTest, EveryInstructionSetKeepsItsOwnBits) {
  const TinyModel model =
      test::MakeTinyModel(test::TinyConfig(), Routing::kRandom, 33);
  const test::Slots slots = test::MakeSlots(model.config.vocab_size);
  for (const cpu::Isa isa : cpu::SupportedIsas()) {
    TrainingJob job = JobOf(model, slots);
    job.dtype = DType::kBF16;
    job.backend.isa = isa;
    const TrainingOutcome expected = RunTraining(job);
    job.num_ranks = 4;
    job.backend.num_threads = 2;
    ExpectSameBits(RunTraining(job), expected, std::string(cpu::Name(isa)));
  }
}

// Two calls of half the slots are one call of all, with statistics by slot.
TEST(TrainingPassTest, AnySplitIntoCallsGivesTheSameGradients) {
  const TinyModel model =
      test::MakeTinyModel(test::TinyConfig(), Routing::kRandom, 34);
  test::Slots slots = test::MakeSlots(model.config.vocab_size);
  slots.pop_back();
  TrainingJob job = JobOf(model, slots);
  job.adapter_dropout = 0.3f;
  job.options.router_loss.scope = RouterLossScope::kSlot;
  const TrainingOutcome whole = RunTraining(job);
  const auto inputs = job.batch.slots;
  TrainingOutcome parts;
  for (const int64_t begin : {0, 2}) {
    job.batch.slots.assign(inputs.begin() + begin, inputs.begin() + begin + 2);
    job.batch.first_sink_slot = 3 + begin;
    job.batch.first_run_slot = 1000 + begin;
    job.batch.loss_scale = 0.5;
    job.num_ranks = begin == 0 ? 2 : 3;
    const TrainingOutcome part = RunTraining(job);
    parts.gradients.insert(part.gradients.begin(), part.gradients.end());
    for (int64_t i = 0; i < 2; ++i) {
      EXPECT_EQ(part.result.slot_losses[i],
                whole.result.slot_losses[begin + i]);
    }
  }
  parts.result = whole.result;
  ExpectSameBits(parts, whole, "two calls");
}

TEST(TrainingPassTest, PackedDocumentsDoNotSeeEachOther) {
  const TinyModel model =
      test::MakeTinyModel(test::TinyConfig(), Routing::kRandom, 35);
  const test::Slots slots = test::MakeSlots(model.config.vocab_size);
  TrainingJob job = JobOf(model, slots);
  const std::vector<float> packed = RunTraining(job).result.logprobs;
  test::Slots alone;
  for (const auto& slot : slots) {
    for (const auto& document : slot) alone.push_back({document});
  }
  job.batch.slots = InputsOf(alone);
  EXPECT_EQ(RunTraining(job).result.logprobs, packed);
}

TEST(TrainingPassTest, EvaluationGivesTheLossesOfTraining) {
  const TinyModel model =
      test::MakeTinyModel(test::TinyConfig(), Routing::kRandom, 36);
  const test::Slots slots = test::MakeSlots(model.config.vocab_size);
  TrainingJob job = JobOf(model, slots);
  job.adapter_dropout = 0.0f;
  TrainingOutcome training = RunTraining(job);
  training.gradients.clear();
  for (const int num_ranks : {1, 4}) {
    job.num_ranks = num_ranks;
    job.backward = false;
    ExpectSameBits(RunTraining(job), training, absl::StrCat(num_ranks));
  }
  // With dropout only training differs.
  job.adapter_dropout = 0.5f;
  ExpectSameBits(RunTraining(job), training, "evaluation with dropout");
  job.backward = true;
  EXPECT_NE(RunTraining(job).result.loss, training.result.loss);
}

TEST(TrainingPassTest, DropoutIsAFunctionOfSeedAndPlaceInTheRun) {
  const TinyModel model =
      test::MakeTinyModel(test::TinyConfig(), Routing::kRandom, 37);
  const test::Slots slots = test::MakeSlots(model.config.vocab_size);
  TrainingJob job = JobOf(model, slots);
  job.adapter_dropout = 0.5f;
  const double loss = RunTraining(job).result.loss;
  EXPECT_EQ(RunTraining(job).result.loss, loss);
  job.batch.first_sink_slot += 1;
  EXPECT_EQ(RunTraining(job).result.loss, loss);
  job.batch.first_run_slot += 1;
  EXPECT_NE(RunTraining(job).result.loss, loss);
  job.batch.first_run_slot -= 1;
  job.options.seed += 1;
  EXPECT_NE(RunTraining(job).result.loss, loss);
}

TEST(TrainingPassTest, ReplayedRoutesAreTakenAndTheRoutersOwnGiveItsBits) {
  const TinyModel model =
      test::MakeTinyModel(test::TinyConfig(), Routing::kRandom, 38);
  const test::Slots slots = test::MakeSlots(model.config.vocab_size);
  TrainingJob job = JobOf(model, slots);
  job.options.keep_routes = true;
  job.num_ranks = 3;
  const TrainingOutcome own = RunTraining(job);
  const int k = model.config.top_k;
  const auto replay = [&](const std::vector<std::vector<int32_t>>& routes) {
    int64_t begin = 0;
    for (TrainingSlotInput& slot : job.batch.slots) {
      slot.layer_routes.clear();
      for (const auto& layer : routes) {
        slot.layer_routes.push_back(absl::MakeConstSpan(layer).subspan(
            begin * k, slot.num_tokens() * k));
      }
      begin += slot.num_tokens();
    }
    return RunTraining(job);
  };
  for (const int num_ranks : {1, 3, 8}) {
    job.num_ranks = num_ranks;
    ExpectSameBits(replay(own.routes), own, absl::StrCat(num_ranks, " ranks"));
  }
  // Where no route is given, the router chooses.
  std::vector<std::vector<int32_t>> partial = own.routes;
  for (auto& layer : partial) {
    for (size_t i = 0; i < layer.size(); ++i) {
      if (i / k % 3 == 1) layer[i] = kNoRoute;
    }
  }
  ExpectSameBits(replay(partial), own, "some routes");
  // Every token to experts 6 and 7.
  std::vector<std::vector<int32_t>> forced = own.routes;
  for (auto& layer : forced) {
    for (size_t i = 0; i < layer.size(); ++i) {
      layer[i] = static_cast<int32_t>(7 - i % 2);
    }
  }
  const TrainingOutcome outcome = replay(forced);
  std::vector<int64_t> expected(16);
  for (const int at : {6, 7, 14, 15}) expected[at] = own.result.num_tokens;
  EXPECT_EQ(outcome.result.expert_tokens, expected);
  EXPECT_NE(outcome.result.loss, own.result.loss);
}

TEST(TrainingPassTest, BackwardStopsAtTheLowestTrainedLayer) {
  const TinyModel model =
      test::MakeTinyModel(test::TinyConfig(), Routing::kRandom, 39);
  const test::Slots slots = test::MakeSlots(model.config.vocab_size);
  TrainingJob job = JobOf(model, slots);
  const TrainingOutcome whole = RunTraining(job);
  for (const int lowest : {0, 1, 2}) {
    for (const bool recompute : {false, true}) {
      job.num_ranks = 3;
      job.options.lowest_layer = lowest;
      job.options.recompute = recompute;
      const TrainingOutcome part = RunTraining(job);
      TrainingOutcome expected;
      expected.result = whole.result;
      for (const auto& [key, values] : whole.gradients) {
        const std::string embedding = test::NameOf({WeightKind::kEmbedding});
        const std::string layer_0 = "layer 0,", layer_1 = "layer 1,";
        const bool below =
            key.first == embedding ||
            (lowest > 0 && key.first.find(layer_0) != std::string::npos) ||
            (lowest > 1 && key.first.find(layer_1) != std::string::npos);
        if (!below) expected.gradients[key] = values;
      }
      ExpectSameBits(part, expected, absl::StrCat("from layer ", lowest));
    }
  }
}

TEST(TrainingPassTest, ABatchWithoutLabelsHasNoLossAndFiniteGradients) {
  const TinyModel model =
      test::MakeTinyModel(test::TinyConfig(), Routing::kRandom, 40);
  test::Slots slots = test::MakeSlots(model.config.vocab_size);
  for (auto& slot : slots) {
    for (auto& document : slot) {
      document.labels.assign(document.ids.size(), kIgnoredLabel);
    }
  }
  for (const auto reduction :
       {LossReduction::kSlotMean, LossReduction::kTokenMean}) {
    TrainingJob job = JobOf(model, slots);
    job.options.reduction = reduction;
    job.num_ranks = 2;
    const TrainingOutcome outcome = RunTraining(job);
    EXPECT_EQ(outcome.result.loss, 0);
    EXPECT_GT(outcome.result.aux_loss, 0);
    for (const auto& [key, values] : outcome.gradients) {
      for (float value : values) ASSERT_TRUE(std::isfinite(value)) << key.first;
    }
  }
}

// bf16 along the routes of the f32 run (a choice that falls otherwise changes
// everything behind it). The values that a gradient is a product of are rounded
// to 2^-9 of themselves at every step there and back; over two layers that adds
// up to a hundredth of a gradient's norm, and to 3e-2 seen where an expert has
// a few rows of a slot.
TEST(TrainingPassTest, BF16GradientsAreNearThoseOfF32) {
  const TinyModel model =
      test::MakeTinyModel(test::TinyConfig(), Routing::kRandom, 42);
  const test::Slots slots = test::MakeSlots(model.config.vocab_size);
  TrainingJob job = JobOf(model, slots);
  job.adapter_dropout = 0.2f;
  job.options.keep_routes = true;
  const TrainingOutcome wide = RunTraining(job);
  int64_t begin = 0;
  for (TrainingSlotInput& slot : job.batch.slots) {
    const int64_t count = slot.num_tokens() * model.config.top_k;
    for (const auto& layer : wide.routes) {
      slot.layer_routes.push_back(
          absl::MakeConstSpan(layer).subspan(begin, count));
    }
    begin += count;
  }
  job.dtype = DType::kBF16;
  const TrainingOutcome narrow = RunTraining(job);
  EXPECT_NEAR(narrow.result.loss, wide.result.loss, 0.01 * wide.result.loss);
  double worst = 0;
  std::string worst_name;
  for (const auto& [key, expected] : wide.gradients) {
    const std::vector<float>& actual = narrow.gradients.at(key);
    double error = 0, size = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      error += std::pow(double{actual[i]} - expected[i], 2);
      size += std::pow(double{expected[i]}, 2);
    }
    const double relative = size == 0 ? 0 : std::sqrt(error / size);
    if (relative > worst) {
      worst = relative;
      worst_name = absl::StrCat(key.first, ", slot ", key.second);
    }
  }
  std::printf("largest relative error %.1e (%s)\n", worst, worst_name.c_str());
  EXPECT_LT(worst, 0.06) << worst_name;
}

}  // namespace
}  // namespace octet
