// Gradients of slots become live weights: the same bits for any number of ranks
// and any split of the slots into calls, and the right numbers.
#include "worker/train/weight_trainer.h"

#include <cmath>
#include <limits>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "base/status_macros.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/ranks.h"
#include "tests/worker/train/scripted_pass.h"
#include "tests/worker/train/trainer_rank.h"
#include "worker/model/training_batch.h"

namespace octet {
namespace {

using Values = std::map<std::string, std::vector<float>>;

struct Outcome {
  Values values;              // of the owners
  Values live;                // of all ranks
  std::vector<double> norms;  // of the steps
};

struct Case {
  ModelConfig config;
  DType dtype;
  v1::CreateRunRequest request;
};

// One optimizer step per element of `steps`, each of several calls.
Outcome Train(const Case& c, int num_ranks,
              const std::vector<std::vector<int64_t>>& steps) {
  Outcome outcome;
  std::mutex mutex;
  const auto results = test::RunRanks(
      num_ranks, [&](Communicator& communicator) -> absl::Status {
        OCTET_ASSIGN_OR_RETURN(
            const std::unique_ptr<test::TrainerRank> rank,
            test::TrainerRank::New(communicator, c.config, c.dtype, c.request));
        std::vector<double> norms;
        for (size_t i = 0; i < steps.size(); ++i) {
          for (int64_t slots : steps[i]) {
            OCTET_RETURN_IF_ERROR(rank->Accumulate(slots, i));
          }
          OCTET_ASSIGN_OR_RETURN(const StepOutcome step,
                                 rank->trainer().Step(test::TestAdamW(), 1));
          EXPECT_EQ(step.not_finite, "");
          norms.push_back(step.grad_norm);
        }
        OCTET_ASSIGN_OR_RETURN(const Values values, rank->Values());
        OCTET_ASSIGN_OR_RETURN(const Values live, rank->LiveValues());
        const std::lock_guard<std::mutex> lock(mutex);
        if (!outcome.norms.empty()) {
          EXPECT_EQ(outcome.norms, norms);
          EXPECT_EQ(outcome.values, values);
        }
        outcome.norms = norms;
        outcome.values = values;
        for (const auto& [name, value] : live) {
          const auto [found, fresh] = outcome.live.insert({name, value});
          // Holders agree.
          EXPECT_EQ(found->second, value) << name;
        }
        return absl::OkStatus();
      });
  for (const absl::Status& status : results) EXPECT_TRUE(status.ok()) << status;
  return outcome;
}

std::vector<Case> Cases() {
  return {
      {test::TrainerConfig(), DType::kF32, test::FullRequest()},
      {test::TrainerConfig(/*tied=*/true), DType::kBF16, test::FullRequest()},
      {test::TrainerConfig(), DType::kBF16, test::LoraRequest()},
  };
}

TEST(WeightTrainerTest, BitsDoNotDependOnRanksOrCalls) {
  for (const Case& c : Cases()) {
    const Outcome expected = Train(c, 1, {{11}, {6}});
    for (const int num_ranks : {1, 2, 3, 4, 7, 8}) {
      for (const auto& steps : std::vector<std::vector<std::vector<int64_t>>>{
               {{11}, {6}}, {{4, 7}, {1, 5}}, {{1, 1, 3, 1, 5}, {2, 2, 2}}}) {
        const Outcome found = Train(c, num_ranks, steps);
        EXPECT_EQ(found.norms, expected.norms) << num_ranks;
        EXPECT_TRUE(found.values == expected.values) << num_ranks;
        EXPECT_TRUE(found.live == expected.live) << num_ranks;
      }
    }
  }
}

// AdamW in double, from the gradients in double.
Values Reference(const Case& c, const Values& initial,
                 const std::vector<int64_t>& steps) {
  const ParameterSet parameters =
      ParameterSet::Create(c.config, c.request).value();
  std::map<std::string, std::vector<double>> w, m, v;
  for (const auto& [name, values] : initial) {
    w[name].assign(values.begin(), values.end());
    m[name].resize(values.size());
    v[name].resize(values.size());
  }
  const v1::AdamWConfig adamw = test::TestAdamW();
  for (size_t step = 0; step < steps.size(); ++step) {
    const auto gradients =
        test::ReferenceGradients(parameters, steps[step], step, c.dtype);
    double squares = 0;
    for (const auto& [name, gradient] : gradients) {
      for (double g : gradient) squares += g * g;
    }
    const double scale =
        std::min(1.0, adamw.max_grad_norm() / (std::sqrt(squares) + 1e-6));
    const double t = static_cast<double>(step + 1);
    for (const auto& [name, gradient] : gradients) {
      const bool norm = name.find("norm") != std::string::npos;
      const double decay = norm ? 0 : adamw.weight_decay();
      for (size_t i = 0; i < gradient.size(); ++i) {
        const double g = gradient[i] * scale;
        double& weight = w[name][i];
        weight -= adamw.learning_rate() * decay * weight;
        m[name][i] = 0.9 * m[name][i] + 0.1 * g;
        v[name][i] = 0.999 * v[name][i] + 0.001 * g * g;
        weight -= adamw.learning_rate() *
                  (m[name][i] / (1 - std::pow(0.9, t))) /
                  (std::sqrt(v[name][i] / (1 - std::pow(0.999, t))) + 1e-8);
      }
    }
  }
  Values out;
  for (const auto& [name, values] : w) {
    out[name].assign(values.begin(), values.end());
  }
  return out;
}

TEST(WeightTrainerTest, StepsAsAdamWInDouble) {
  for (const Case& c : Cases()) {
    const Values initial = Train(c, 1, {}).values;
    const Outcome found = Train(c, 3, {{11}, {6}, {3}});
    const Values expected = Reference(c, initial, {11, 6, 3});
    ASSERT_EQ(found.values.size(), expected.size());
    for (const auto& [name, values] : expected) {
      const std::vector<float>& got = found.values.at(name);
      ASSERT_EQ(got.size(), values.size());
      // A weight moves about 1e-2 a step. Where a gradient is nearly zero,
      // m / sqrt(v) turns the rounding of its f32 sum into a larger part of
      // that.
      for (size_t i = 0; i < values.size(); ++i) {
        ASSERT_NEAR(got[i], values[i], 2e-4) << name << " " << i;
      }
    }
  }
}

TEST(WeightTrainerTest, LiveWeightsAreTheMastersRounded) {
  for (const Case& c : Cases()) {
    const Outcome found = Train(c, 2, {{5}});
    for (const auto& [name, values] : found.values) {
      if (name.find("lora") != std::string::npos) continue;
      const bool rounded =
          c.dtype == DType::kBF16 && name.find("norm") == std::string::npos;
      const std::vector<float>& live = found.live.at(name);
      for (size_t i = 0; i < values.size(); ++i) {
        ASSERT_EQ(live[i], rounded ? ToFloat(ToBF16(values[i])) : values[i])
            << name;
      }
    }
    if (c.config.tie_word_embeddings) {
      EXPECT_EQ(found.live.at("head"),
                found.live.at("model.embed_tokens.weight"));
    }
  }
}

TEST(WeightTrainerTest, LiveAdaptersAreStackedAndScaled) {
  const Case c = Cases()[2];
  const Outcome found = Train(c, 2, {{5}});
  const float scale = 5.0f / 3.0f;
  const std::string layer = "model.layers.1.self_attn.";
  const std::vector<float>& a = found.live.at(layer + "k_proj.weight A");
  const std::vector<float>& b = found.live.at(layer + "k_proj.weight sB");
  const int64_t rows[] = {32, 16, 16};  // of q, k, v
  int64_t row = 0;
  const char* modules[] = {"q_proj", "k_proj", "v_proj"};
  for (int i = 0; i < 3; ++i) {
    const auto& own_a = found.values.at(layer + modules[i] + ".lora_A.weight");
    const auto& own_b = found.values.at(layer + modules[i] + ".lora_B.weight");
    for (size_t j = 0; j < own_a.size(); ++j) {
      ASSERT_EQ(a[i * own_a.size() + j], ToFloat(ToBF16(own_a[j])));
    }
    for (int64_t r = 0; r < rows[i]; ++r, ++row) {
      for (int64_t col = 0; col < 9; ++col) {
        const float expected =
            col / 3 == i ? scale * own_b[r * 3 + col % 3] : 0.0f;
        ASSERT_EQ(b[row * 9 + col], ToFloat(ToBF16(expected)));
      }
    }
  }
}

TEST(WeightTrainerTest, GradientThatIsNotFiniteChangesNothing) {
  for (const int num_ranks : {1, 3}) {
    const Case c = Cases()[0];
    const auto results = test::RunRanks(
        num_ranks, [&](Communicator& communicator) -> absl::Status {
          OCTET_ASSIGN_OR_RETURN(const std::unique_ptr<test::TrainerRank> rank,
                                 test::TrainerRank::New(communicator, c.config,
                                                        c.dtype, c.request));
          OCTET_ASSIGN_OR_RETURN(const Values before, rank->Values());
          SlotPlan plan;
          plan.rank_begin = SplitSlots({7, 7, 7}, num_ranks);
          WeightTrainer& trainer = rank->trainer();
          GradientSink& sink = trainer.Begin(plan);
          // The last rank computes slot 2.
          if (communicator.rank() == num_ranks - 1) {
            std::vector<float> x(32, 1.0f), dy(32, 1.0f);
            dy[3] = std::numeric_limits<float>::infinity();
            const SlotRows slot = {2, 0, 1};
            OCTET_RETURN_IF_ERROR(
                sink.AddNorm({WeightKind::kPostAttentionNorm, 1},
                             ConstTensor(x.data(), DType::kF32, {1, 32}), 1e-5f,
                             ConstTensor(dy.data(), DType::kF32, {1, 32}),
                             {&slot, 1}, trainer.stream()));
          }
          OCTET_RETURN_IF_ERROR(trainer.Finish(1));
          OCTET_ASSIGN_OR_RETURN(const StepOutcome step,
                                 trainer.Step(test::TestAdamW(), 1));
          EXPECT_EQ(step.not_finite,
                    "model.layers.1.post_attention_layernorm.weight");
          EXPECT_EQ(trainer.pending_slots(), 0);
          EXPECT_EQ(trainer.optimizer().num_steps(), 0);
          OCTET_ASSIGN_OR_RETURN(const Values after, rank->Values());
          EXPECT_EQ(after, before);
          return absl::OkStatus();
        });
    for (const absl::Status& status : results) {
      EXPECT_TRUE(status.ok()) << status;
    }
  }
}

TEST(WeightTrainerTest, ZeroGradForgets) {
  const Case c = Cases()[0];
  const Outcome expected = Train(c, 1, {{6}});
  const auto results =
      test::RunRanks(2, [&](Communicator& communicator) -> absl::Status {
        OCTET_ASSIGN_OR_RETURN(
            const std::unique_ptr<test::TrainerRank> rank,
            test::TrainerRank::New(communicator, c.config, c.dtype, c.request));
        OCTET_RETURN_IF_ERROR(rank->Accumulate(5, 17));
        EXPECT_EQ(rank->trainer().pending_slots(), 5);
        rank->trainer().ZeroGrad();
        OCTET_RETURN_IF_ERROR(rank->Accumulate(6, 0));
        OCTET_RETURN_IF_ERROR(
            rank->trainer().Step(test::TestAdamW(), 1).status());
        OCTET_ASSIGN_OR_RETURN(const Values values, rank->Values());
        EXPECT_EQ(values, expected.values);
        return absl::OkStatus();
      });
  for (const absl::Status& status : results) EXPECT_TRUE(status.ok()) << status;
}

}  // namespace
}  // namespace octet
