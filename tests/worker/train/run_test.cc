// What a run refuses: one sentence, the same on every rank, and the run goes
// on as if nothing had been asked.
#include "worker/train/run.h"

#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/ranks.h"
#include "tests/worker/train/run_rank.h"
#include "worker/train/refusal.h"

namespace octet {
namespace {

using ::testing::HasSubstr;

constexpr char kGolden[] = "e8k2_old";  // V 320, E 8, L 2, K 2

void OnRanks(int num_ranks, const RankMemory& memory,
             const std::function<absl::Status(test::RunRank&)>& body) {
  const auto results = test::RunRanks(
      num_ranks, [&](Communicator& communicator) -> absl::Status {
        test::RunRankOptions options;
        options.checkpoint = test::GoldenPath(kGolden);
        options.memory = memory;
        OCTET_ASSIGN_OR_RETURN(const auto rank,
                               test::RunRank::New(communicator, options));
        return body(*rank);
      });
  for (const absl::Status& status : results) EXPECT_TRUE(status.ok()) << status;
}

template <typename Message>
using Change = std::function<void(Message&)>;

TEST(RunTest, CreateRunRefusesWhatCannotBe) {
  struct Case {
    Change<v1::CreateRunRequest> change;
    std::string sentence;
  };
  using Request = v1::CreateRunRequest;
  const auto lora = [](Request& r) {
    r.set_method(v1::TRAINING_METHOD_LORA);
    r.mutable_lora()->set_rank(2);
    r.mutable_lora()->add_target_modules("q_proj");
    return r.mutable_lora();
  };
  const std::vector<Case> cases = {
      {[](Request& r) { r.clear_method(); },
       "method is 0, expected FULL, FREEZE or LORA"},
      {[](Request& r) { r.mutable_lora(); },
       "lora is given, expected it with method LORA only"},
      {[](Request& r) { r.add_trainable("*"); },
       "trainable is given, expected it with method FREEZE only"},
      {[](Request& r) { r.set_method(v1::TRAINING_METHOD_FREEZE); },
       "trainable is empty, expected at least one name"},
      {[](Request& r) {
         r.set_method(v1::TRAINING_METHOD_FREEZE);
         r.add_trainable("*.mlp.*");
       },
       "trainable names '*.mlp.*', which matches nothing of this model"},
      {[](Request& r) { r.set_method(v1::TRAINING_METHOD_LORA); },
       "lora.rank is 0, expected 1 to 4096"},
      {[&](Request& r) { lora(r)->set_alpha(-1); },
       "lora.alpha is -1, expected a number above 0"},
      {[&](Request& r) { lora(r)->set_dropout(1); },
       "lora.dropout is 1, expected 0 or more, below 1"},
      {[&](Request& r) { lora(r)->clear_target_modules(); },
       "lora.target_modules is empty"},
      {[&](Request& r) { lora(r)->add_target_modules("proj"); },
       "lora.target_modules names 'proj', which matches nothing"},
      {[&](Request& r) { lora(r)->add_target_modules("lm_head"); },
       "lora.target_modules names 'lm_head', which matches nothing"},
      {[&](Request& r) { lora(r)->add_modules_to_save("q_proj"); },
       "lora.modules_to_save names 'q_proj', but "
       "model.layers.0.self_attn.q_proj is a target of LoRA already"},
      {[&](Request& r) { lora(r)->add_modules_to_save("head2"); },
       "lora.modules_to_save names 'head2', which matches nothing"},
      {[&](Request& r) { lora(r)->set_init_from("/nowhere/adapter"); },
       "/nowhere/adapter"},
      {[](Request& r) {
         r.set_method(v1::TRAINING_METHOD_LORA);
         r.mutable_lora()->set_init_from(test::GoldenPath(kGolden) +
                                         "/adapter");
         r.mutable_lora()->set_rank(5);
       },
       "lora.rank is 5, expected 4, the rank of the adapter in"},
      {[](Request& r) {
         r.set_method(v1::TRAINING_METHOD_LORA);
         r.mutable_lora()->set_init_from(test::GoldenPath(kGolden) +
                                         "/adapter");
         r.mutable_lora()->set_alpha(8);
       },
       "lora.alpha is 8, expected 12, that of the adapter in"},
      {[](Request& r) {
         r.set_method(v1::TRAINING_METHOD_LORA);
         r.mutable_lora()->set_init_from(test::GoldenPath(kGolden) +
                                         "/adapter");
         r.mutable_lora()->add_target_modules("q_proj");
       },
       "belongs to no module that"},
      {[](Request& r) { r.mutable_router_loss()->set_aux_coef(-0.1f); },
       "router_loss.aux_coef is -0.1, expected 0 or more"},
      {[](Request& r) {
         r.mutable_router_loss()->set_z_coef(
             std::numeric_limits<float>::quiet_NaN());
       },
       "router_loss.z_coef is nan, expected 0 or more"},
      {[](Request& r) { r.set_reduction(static_cast<v1::LossReduction>(7)); },
       "reduction is 7, expected SLOT_MEAN or TOKEN_MEAN"},
      {[](Request& r) { r.set_max_rank_tokens(-1); },
       "max_rank_tokens is -1, expected 0"},
  };
  OnRanks(2, {}, [&](test::RunRank& rank) -> absl::Status {
    for (const Case& c : cases) {
      v1::CreateRunRequest request = test::GoldenFullRun();
      c.change(request);
      const absl::Status status =
          TrainingRun::Create(rank.model(), rank.environment, request, 0)
              .status();
      EXPECT_TRUE(IsRefusal(status)) << c.sentence << "\n" << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr(c.sentence));
    }
    return TrainingRun::Create(rank.model(), rank.environment,
                               test::GoldenFullRun(), 0)
        .status();
  });
}

TEST(RunTest, CallsRefuseWhatCannotBe) {
  struct Case {
    Change<v1::ForwardBackwardRequest> change;
    std::string sentence;
  };
  using Request = v1::ForwardBackwardRequest;
  const std::vector<Case> cases = {
      {[](Request& r) { r.clear_slots(); },
       "slots is empty, expected at least one"},
      {[](Request& r) { r.set_loss_scale(-1); },
       "loss_scale is -1, expected 0 (meaning 1) or more"},
      {[](Request& r) { r.set_loss_scale(1e39); },
       "loss_scale is 1e+39, expected 0 (meaning 1) or more, and finite"},
      {[](Request& r) { r.add_slots(); }, "slot 4"},
      {[](Request& r) {
         r.mutable_slots(2)->mutable_sequences(0)->set_token_ids(3, 320);
       },
       "slot 2"},
      {[](Request& r) {
         r.mutable_slots(1)->mutable_sequences(0)->set_labels(5, 7);
       },
       "slot 1"},
      {[](Request& r) {
         r.mutable_slots(1)
             ->mutable_sequences(0)
             ->mutable_labels()
             ->RemoveLast();
       },
       "slot 1"},
      {[](Request& r) { r.add_routes(); },
       "routes has 1 entries, expected none or 4, one per slot"},
      {[](Request& r) {
         for (int i = 0; i < 4; ++i) r.add_routes();
       },
       "routes of slot 0 have 0 layers, expected 2"},
      {[](Request& r) {
         for (int i = 0; i < 60; ++i) *r.add_slots() = r.slots(0);
       },
       "tokens, expected at most the run's max_rank_tokens, 200"},
  };
  OnRanks(3, {}, [&](test::RunRank& rank) -> absl::Status {
    v1::CreateRunRequest create = test::GoldenFullRun();
    create.set_max_rank_tokens(200);
    OCTET_ASSIGN_OR_RETURN(
        const auto run,
        TrainingRun::Create(rank.model(), rank.environment, create, 0));
    const v1::ForwardBackwardRequest good = test::GoldenSlots(kGolden);
    OCTET_RETURN_IF_ERROR(run->ForwardBackward(good, 1).status());
    for (const Case& c : cases) {
      v1::ForwardBackwardRequest request = good;
      c.change(request);
      const absl::Status status = run->ForwardBackward(request, 1).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr(c.sentence));
      EXPECT_EQ(run->Describe().pending_slots(), 4);
    }
    v1::OptimStepRequest step;
    EXPECT_EQ(run->OptimStep(step, 1).status(),
              absl::InvalidArgumentError(
                  "adamw is not given, expected the step's learning rate in "
                  "it"));
    step = test::GoldenStep();
    step.mutable_adamw()->set_beta2(1);
    EXPECT_EQ(run->OptimStep(step, 1).status(),
              absl::InvalidArgumentError(
                  "adamw.beta2 is 1, expected 0 or more, below 1"));
    step = test::GoldenStep();
    step.mutable_adamw()->set_learning_rate(-1);
    EXPECT_THAT(std::string(run->OptimStep(step, 1).status().message()),
                HasSubstr("adamw.learning_rate is -1"));
    OCTET_ASSIGN_OR_RETURN(const auto done,
                           run->OptimStep(test::GoldenStep(), 1));
    EXPECT_EQ(done.step(), 1);
    EXPECT_EQ(run->Describe().pending_slots(), 0);
    return absl::OkStatus();
  });
}

TEST(RunTest, WhatDoesNotFitIsRefusedEarly) {
  for (const int64_t tokens : {0, 100'000}) {
    OnRanks(2, {/*available_bytes=*/1'500'000, 0},
            [&](test::RunRank& rank) -> absl::Status {
              v1::CreateRunRequest request = test::GoldenFullRun();
              request.set_max_rank_tokens(tokens);
              const absl::Status status =
                  TrainingRun::Create(rank.model(), rank.environment, request,
                                      0)
                      .status();
              EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
              EXPECT_THAT(std::string(status.message()),
                          HasSubstr("rank 0 needs "));
              return absl::OkStatus();
            });
  }
}

TEST(RunTest, TokensThatFitAreFoundAndThePlanIsTold) {
  OnRanks(
      2, {/*available_bytes=*/12'000'000, 77},
      [&](test::RunRank& rank) -> absl::Status {
        OCTET_ASSIGN_OR_RETURN(
            const auto run, TrainingRun::Create(rank.model(), rank.environment,
                                                test::GoldenFullRun(), 0));
        const v1::Run description = run->Describe();
        EXPECT_GE(description.config().max_rank_tokens(), 64);
        EXPECT_LT(description.config().max_rank_tokens(), 1 << 20);
        EXPECT_EQ(description.total_parameters(),
                  description.trainable_parameters());
        EXPECT_EQ(description.total_parameters(), rank.config.num_parameters());
        if (rank.communicator->rank() != 0) return absl::OkStatus();
        EXPECT_EQ(description.memory_size(), 2);
        int64_t optimizer = 0;
        for (const v1::RankMemoryPlan& plan : description.memory()) {
          EXPECT_EQ(plan.kv_cache_bytes(), 77);
          EXPECT_EQ(plan.available_bytes(), 12'000'000);
          EXPECT_GT(plan.activation_bytes(), 0);
          optimizer += plan.optimizer_bytes();
        }
        // Sharded: master and two moments of everything, once.
        EXPECT_EQ(optimizer, 12 * description.total_parameters());
        return absl::OkStatus();
      });
}

TEST(RunTest, TheCopyOfBackgroundSavesIsInThePlan) {
  const auto plan_of = [](const RankMemory& memory, bool background,
                          v1::RankMemoryPlan* plan) {
    absl::Status status;
    test::RunRanks(1, [&](Communicator& communicator) -> absl::Status {
      test::RunRankOptions options;
      options.checkpoint = test::GoldenPath(kGolden);
      options.memory = memory;
      OCTET_ASSIGN_OR_RETURN(const auto rank,
                             test::RunRank::New(communicator, options));
      v1::CreateRunRequest request = test::GoldenFullRun();
      request.set_max_rank_tokens(64);
      request.set_background_saves(background);
      const auto run =
          TrainingRun::Create(rank->model(), rank->environment, request, 0);
      status = run.status();
      if (run.ok()) *plan = (*run)->Describe().memory(0);
      return absl::OkStatus();
    });
    return status;
  };
  v1::RankMemoryPlan without, with;
  ASSERT_TRUE(plan_of({}, false, &without).ok());
  ASSERT_TRUE(plan_of({}, true, &with).ok());
  EXPECT_EQ(without.snapshot_bytes(), 0);
  EXPECT_EQ(with.snapshot_bytes(), with.optimizer_bytes());
  const int64_t enough = NewBytes(without);
  EXPECT_EQ(NewBytes(with), enough + with.snapshot_bytes());
  EXPECT_TRUE(plan_of({enough, 0}, false, &without).ok());
  const absl::Status refused = plan_of({enough, 0}, true, &with);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("copy of background_saves"));
  // With a device the copy is in the host's memory.
  const int64_t copy = with.snapshot_bytes();
  EXPECT_TRUE(plan_of({enough, 0, copy}, true, &with).ok());
  EXPECT_TRUE(plan_of({enough, 0, 0}, true, &with).ok());  // unknown
  EXPECT_THAT(
      std::string(plan_of({enough, 0, copy - 1}, true, &with).message()),
      HasSubstr("of its host for the copy of background_saves"));
}

TEST(RunTest, FreezeTrainsOnlyWhatItNames) {
  OnRanks(2, {}, [&](test::RunRank& rank) -> absl::Status {
    v1::CreateRunRequest request = test::GoldenFullRun();
    request.set_method(v1::TRAINING_METHOD_FREEZE);
    request.add_trainable("model.layers.1.*experts.3*");
    request.add_trainable("model.layers.1.self_attn.k_proj");
    OCTET_ASSIGN_OR_RETURN(
        const auto run,
        TrainingRun::Create(rank.model(), rank.environment, request, 0));
    EXPECT_EQ(run->Describe().trainable_parameters(), 3 * 48 * 32 + 16 * 32);
    v1::ForwardRequest forward;
    *forward.mutable_slots() = test::GoldenSlots(kGolden).slots();
    OCTET_ASSIGN_OR_RETURN(const auto before, run->Forward(forward, 1));
    for (int i = 0; i < 3; ++i) {
      OCTET_RETURN_IF_ERROR(
          run->ForwardBackward(test::GoldenSlots(kGolden), 1).status());
      OCTET_RETURN_IF_ERROR(run->OptimStep(test::GoldenStep(), 1).status());
    }
    OCTET_ASSIGN_OR_RETURN(const auto after, run->Forward(forward, 1));
    EXPECT_LT(after.loss(), before.loss());
    return absl::OkStatus();
  });
}

}  // namespace
}  // namespace octet
