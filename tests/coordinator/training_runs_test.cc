#include "coordinator/training_runs.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace octet {
namespace {

using ::testing::HasSubstr;

// What a call came to; `ended` counts answers, of which there must be one.
struct Outcome {
  int ended = 0;
  absl::Status status;
  v1::TrainResult result;
};

class TrainingRunsTest : public ::testing::Test {
 protected:
  // Outcomes live as long as the test.
  Outcome& Submit(const v1::TrainPlan& call) {
    outcomes_.push_back(std::make_unique<Outcome>());
    Outcome* outcome = outcomes_.back().get();
    runs_.Submit(call, [outcome](absl::StatusOr<v1::TrainResult> result) {
      ++outcome->ended;
      outcome->status = result.status();
      if (result.ok()) outcome->result = *std::move(result);
    });
    return *outcome;
  }

  static v1::TrainPlan Create(const std::string& id) {
    v1::TrainPlan call;
    call.mutable_create_run()->set_run_id(id);
    call.mutable_create_run()->set_method(v1::TRAINING_METHOD_FULL);
    return call;
  }
  static v1::TrainPlan Backward(int64_t seq_no, int slots = 1,
                                const std::string& id = "a") {
    v1::TrainPlan call;
    call.mutable_forward_backward()->set_run_id(id);
    call.mutable_forward_backward()->set_seq_no(seq_no);
    for (int i = 0; i < slots; ++i)
      call.mutable_forward_backward()->add_slots();
    return call;
  }
  static v1::TrainPlan Step(int64_t seq_no) {
    v1::TrainPlan call;
    call.mutable_optim_step()->set_run_id("a");
    call.mutable_optim_step()->set_seq_no(seq_no);
    return call;
  }
  static v1::TrainPlan End(int64_t seq_no) {
    v1::TrainPlan call;
    call.mutable_end_run()->set_run_id("a");
    call.mutable_end_run()->set_seq_no(seq_no);
    return call;
  }

  static v1::TrainPlan Save(int64_t seq_no, const std::string& path) {
    v1::TrainPlan call;
    call.mutable_save_state()->set_run_id("a");
    call.mutable_save_state()->set_seq_no(seq_no);
    call.mutable_save_state()->set_path(path);
    call.mutable_save_state()->set_background(true);
    return call;
  }

  static v1::TrainResult Told(const std::string& path, v1::SaveStage stage) {
    v1::TrainResult result;
    result.mutable_save()->set_path(path);
    result.mutable_save()->set_stage(stage);
    if (stage == v1::SAVE_STAGE_FAILED)
      result.mutable_save()->set_error("full");
    return result;
  }
  // The group answers a SaveState, or a look at what became of it.
  void ServeSave(const std::string& path, v1::SaveStage stage) {
    ASSERT_TRUE(runs_.TakeNext().has_value());
    v1::TrainResult result = Told(path, stage);
    result.mutable_save_state()->set_writing(stage == v1::SAVE_STAGE_WRITING);
    EXPECT_TRUE(runs_.HandleResult(result).ok());
  }
  void ServeCheck(const std::string& path, v1::SaveStage stage) {
    ASSERT_TRUE(runs_.TakeSaveCheck(runs_.next_save_check()).has_value());
    EXPECT_FALSE(*runs_.HandleResult(Told(path, stage)));
  }
  v1::SaveStage stage() { return runs_.Get("a")->last_save().stage(); }

  // Plays the group for one call, which must be there; true: weights changed.
  bool Serve(int code = 0, const std::string& message = "") {
    const std::optional<v1::TrainPlan> call = runs_.TakeNext();
    EXPECT_TRUE(call.has_value());
    if (!call.has_value()) return false;
    v1::TrainResult result;
    result.set_code(code);
    result.set_message(message);
    if (code == 0 && call->has_forward_backward()) {
      result.mutable_forward()->set_loss(++num_served_);
    } else if (code == 0 && call->has_optim_step()) {
      result.mutable_optim_step()->set_step(++num_steps_);
    } else if (code == 0) {
      result.mutable_run()->set_trainable_parameters(7);
    }
    const absl::StatusOr<bool> changed = runs_.HandleResult(result);
    EXPECT_TRUE(changed.ok()) << changed.status();
    return changed.value_or(false);
  }

  void Open() {
    const Outcome& created = Submit(Create("a"));
    Serve();
    ASSERT_TRUE(created.status.ok()) << created.status;
  }

  TrainingRuns runs_;
  std::vector<std::unique_ptr<Outcome>> outcomes_;
  int num_served_ = 0;
  int num_steps_ = 0;
};

TEST_F(TrainingRunsTest, CallsRunOneAtATimeInOrder) {
  Open();
  const Outcome& first = Submit(Backward(1, 3));
  const Outcome& second = Submit(Step(2));
  EXPECT_FALSE(Serve());
  EXPECT_EQ(first.result.forward().loss(), 1);
  EXPECT_EQ(runs_.Get("a")->pending_slots(), 3);
  EXPECT_EQ(second.ended, 0);
  EXPECT_TRUE(Serve());  // weights changed
  EXPECT_EQ(second.result.optim_step().step(), 1);
  EXPECT_TRUE(runs_.idle());
  EXPECT_FALSE(runs_.TakeNext().has_value());
  const v1::Run run = *runs_.Get("a");
  EXPECT_EQ(run.last_seq_no(), 2);
  EXPECT_EQ(run.optimizer_steps(), 1);
  EXPECT_EQ(run.pending_slots(), 0);
}

TEST_F(TrainingRunsTest, ARepeatReturnsTheFirstAnswerAndRunsNothing) {
  Open();
  Submit(Backward(1));
  Serve();
  const Outcome& repeat = Submit(Backward(1));
  EXPECT_EQ(repeat.ended, 1);
  EXPECT_EQ(repeat.result.forward().loss(), 1);
  EXPECT_FALSE(runs_.TakeNext().has_value());
  // While the first is still under way, both get its answer.
  const Outcome& slow = Submit(Backward(2));
  const Outcome& again = Submit(Backward(2));
  Serve();
  EXPECT_EQ(slow.result.forward().loss(), 2);
  EXPECT_EQ(again.result.forward().loss(), 2);
  EXPECT_EQ(again.ended, 1);
  EXPECT_TRUE(runs_.idle());
}

TEST_F(TrainingRunsTest, AnotherRequestUnderAnUsedNumberIsRefused) {
  Open();
  Submit(Backward(1));
  Serve();
  EXPECT_THAT(std::string(Submit(Backward(1, 2)).status.message()),
              HasSubstr("seq_no is 1, which was another request before"));
  Submit(Backward(2));
  EXPECT_THAT(std::string(Submit(Step(2)).status.message()),
              HasSubstr("another request"));
}

TEST_F(TrainingRunsTest, GapsAndForgottenNumbersAreRefused) {
  Open();
  for (const int64_t seq_no : {int64_t{0}, int64_t{2}, int64_t{-1}}) {
    const Outcome& gap = Submit(Backward(seq_no));
    EXPECT_EQ(gap.status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(gap.status.message()), HasSubstr("expected 1"));
  }
  const int64_t last = TrainingRuns::kKeptAnswers + 1;
  for (int64_t seq_no = 1; seq_no <= last; ++seq_no) {
    Submit(Backward(seq_no));
    Serve();
  }
  EXPECT_EQ(Submit(Backward(1)).status.code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Submit(Backward(2)).result.forward().loss(), 2);
}

TEST_F(TrainingRunsTest, ARefusedCallTakesThoseBehindItAlong) {
  Open();
  const Outcome& bad = Submit(Backward(1));
  const Outcome& behind = Submit(Step(2));
  Serve(3, "slots[0] is empty");
  EXPECT_EQ(bad.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(bad.status.message(), "slots[0] is empty");
  EXPECT_EQ(behind.status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(behind.status.message()),
              HasSubstr("seq_no is 2, expected 1, which was refused: slots"));
  EXPECT_TRUE(runs_.idle());
  // The number is still to be used.
  const Outcome& good = Submit(Backward(1));
  Serve();
  EXPECT_TRUE(good.status.ok());
}

TEST_F(TrainingRunsTest, OneRunIsOpenAtATime) {
  const Outcome& first = Submit(Create("a"));
  EXPECT_EQ(Submit(Create("b")).status.code(),
            absl::StatusCode::kFailedPrecondition);
  Serve();
  EXPECT_EQ(first.result.run().trainable_parameters(), 7);
  EXPECT_EQ(first.result.run().state(), v1::RUN_STATE_OPEN);
  EXPECT_THAT(std::string(Submit(Create("b")).status.message()),
              HasSubstr("run 'a' is open"));
  EXPECT_EQ(Submit(Create("a")).result.run().run_id(), "a");  // a repeat
  Submit(End(1));
  Serve();
  EXPECT_EQ(runs_.Get("a")->state(), v1::RUN_STATE_ENDED);
  EXPECT_EQ(Submit(End(1)).result.run().state(), v1::RUN_STATE_ENDED);
  EXPECT_EQ(Submit(Backward(2)).status.code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Submit(Create("a")).status.code(),
            absl::StatusCode::kAlreadyExists);
  const Outcome& drawn = Submit(Create(""));
  Serve();
  EXPECT_EQ(drawn.result.run().run_id(), "run-1");
  EXPECT_EQ(runs_.List().runs_size(), 2);
}

TEST_F(TrainingRunsTest, ARunThatCannotBeMadeLeavesNothing) {
  const Outcome& refused = Submit(Create("a"));
  Serve(8, "rank 0 needs 5 GiB");
  EXPECT_EQ(refused.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(runs_.List().runs_size(), 0);
  Open();
}

TEST_F(TrainingRunsTest, AGroupThatEndsLosesRunAndCalls) {
  Open();
  const Outcome& flying = Submit(Backward(1));
  runs_.TakeNext();
  const Outcome& waiting = Submit(Step(2));
  runs_.LoseGroup(absl::UnavailableError("rank 1 died"));
  EXPECT_EQ(flying.status.message(), "rank 1 died");
  EXPECT_EQ(waiting.status.message(), "rank 1 died");
  EXPECT_EQ(runs_.Get("a")->state(), v1::RUN_STATE_LOST);
  EXPECT_EQ(Submit(Backward(1)).status.code(), absl::StatusCode::kUnavailable);
  const Outcome& next = Submit(Create("b"));
  Serve();
  EXPECT_TRUE(next.status.ok());
}

TEST_F(TrainingRunsTest, TheGroupIsAskedAfterASaveInTheBackground) {
  Open();
  EXPECT_EQ(runs_.next_save_check(), absl::InfiniteFuture());
  EXPECT_FALSE(runs_.TakeSaveCheck(absl::UnixEpoch()).has_value());
  Submit(Save(1, "/one"));
  ServeSave("/one", v1::SAVE_STAGE_WRITING);
  EXPECT_EQ(stage(), v1::SAVE_STAGE_WRITING);
  EXPECT_EQ(runs_.Get("a")->last_state_path(), "");
  EXPECT_FALSE(runs_.idle());

  const absl::Time now = absl::UnixEpoch();
  const Outcome& step = Submit(Backward(2));
  const std::optional<v1::TrainPlan> check = runs_.TakeSaveCheck(now);
  ASSERT_TRUE(check.has_value() && check->has_check_save());
  // One thing at a time.
  EXPECT_FALSE(runs_.TakeNext().has_value());
  EXPECT_FALSE(runs_.TakeSaveCheck(absl::InfiniteFuture()).has_value());
  EXPECT_FALSE(*runs_.HandleResult(Told("/one", v1::SAVE_STAGE_WRITING)));
  EXPECT_EQ(step.ended, 0);
  EXPECT_EQ(runs_.next_save_check(), now + TrainingRuns::kSaveCheckInterval);
  EXPECT_FALSE(runs_.TakeSaveCheck(now + absl::Milliseconds(1)).has_value());
  Serve();
  EXPECT_EQ(step.ended, 1);
  ServeCheck("/one", v1::SAVE_STAGE_COMPLETE);
  EXPECT_EQ(stage(), v1::SAVE_STAGE_COMPLETE);
  EXPECT_EQ(runs_.Get("a")->last_state_path(), "/one");
  EXPECT_TRUE(runs_.idle());
  EXPECT_EQ(runs_.next_save_check(), absl::InfiniteFuture());

  // One that fails leaves the last complete one.
  Submit(Save(3, "/two"));
  ServeSave("/two", v1::SAVE_STAGE_WRITING);
  ServeCheck("/two", v1::SAVE_STAGE_FAILED);
  EXPECT_EQ(stage(), v1::SAVE_STAGE_FAILED);
  EXPECT_EQ(runs_.Get("a")->last_save().error(), "full");
  EXPECT_EQ(runs_.Get("a")->last_state_path(), "/one");
}

TEST_F(TrainingRunsTest, ARefusalAndTheEndTellOfTheSaveToo) {
  Open();
  Submit(Save(1, "/one"));
  ServeSave("/one", v1::SAVE_STAGE_WRITING);
  const Outcome& refused = Submit(Save(2, "/two"));
  runs_.TakeNext();
  v1::TrainResult result = Told("/one", v1::SAVE_STAGE_FAILED);
  result.set_code(8);
  result.set_message("full");
  EXPECT_TRUE(runs_.HandleResult(result).ok());
  EXPECT_EQ(refused.status.message(), "full");
  EXPECT_EQ(stage(), v1::SAVE_STAGE_FAILED);
  Submit(Save(2, "/two"));
  ServeSave("/two", v1::SAVE_STAGE_WRITING);
  const Outcome& end = Submit(End(3));
  runs_.TakeNext();
  result = Told("/two", v1::SAVE_STAGE_COMPLETE);
  result.mutable_run();
  EXPECT_TRUE(runs_.HandleResult(result).ok());
  EXPECT_EQ(end.result.run().last_state_path(), "/two");
  EXPECT_EQ(end.result.run().last_save().stage(), v1::SAVE_STAGE_COMPLETE);
}

TEST_F(TrainingRunsTest, AGroupThatEndsTakesTheSaveAlong) {
  Open();
  Submit(Save(1, "/one"));
  ServeSave("/one", v1::SAVE_STAGE_WRITING);
  ASSERT_TRUE(runs_.TakeSaveCheck(absl::UnixEpoch()).has_value());
  runs_.LoseGroup(absl::UnavailableError("rank 1 died"));
  EXPECT_EQ(stage(), v1::SAVE_STAGE_FAILED);
  EXPECT_EQ(runs_.Get("a")->last_save().error(),
            "/one: the worker group ended while it was written: rank 1 died");
  EXPECT_TRUE(runs_.idle());
  Submit(Create("b"));
  Serve();
  EXPECT_EQ(runs_.Get("b")->state(), v1::RUN_STATE_OPEN);
}

TEST_F(TrainingRunsTest, UnknownRunsAndWrongAnswersAreNamed) {
  EXPECT_THAT(std::string(Submit(Backward(1)).status.message()),
              HasSubstr("run_id is 'a', expected none"));
  Open();
  EXPECT_THAT(std::string(Submit(Backward(1, 1, "x")).status.message()),
              HasSubstr("run_id is 'x', expected one of 'a'"));
  Submit(Backward(1));
  runs_.TakeNext();
  v1::TrainResult wrong;
  wrong.mutable_run();
  EXPECT_EQ(runs_.HandleResult(wrong).status().code(),
            absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace octet
