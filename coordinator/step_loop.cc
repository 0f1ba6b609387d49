#include "coordinator/step_loop.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "coordinator/group_failure.h"

namespace octet {
namespace {

// The scheduler keeps a record of each block, some 100 bytes.
constexpr int64_t kMaxGroupBlocks = int64_t{1} << 24;

absl::Status ShuttingDown() {
  return absl::UnavailableError("the coordinator is shutting down");
}

absl::Status WrongHello(absl::string_view field, int64_t found,
                        absl::string_view expected) {
  return absl::InvalidArgumentError(absl::StrCat(
      "the worker group's ", field, " is ", found, ", expected ", expected));
}

}  // namespace

StepLoop::StepLoop(Options options, const Tokenizer& tokenizer,
                   WorkerLink& link, EventHub& events)
    : options_(std::move(options)),
      tokenizer_(tokenizer),
      link_(link),
      engine_(options_.engine, tokenizer, events) {}

StepLoop::~StepLoop() { Stop(); }

void StepLoop::Start() {
  PublishState(absl::Now());  // for those who ask before the first step
  thread_ = std::thread([this] { Run(); });
}

bool StepLoop::Drain(absl::Time deadline) {
  // `idle_` is false from here until the loop has looked at the refusal.
  if (!Post([this](absl::Time) { engine_.Refuse(ShuttingDown()); })) {
    return true;
  }
  absl::MutexLock lock(&mu_);
  return mu_.AwaitWithDeadline(absl::Condition(&idle_), deadline);
}

void StepLoop::Stop() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

absl::StatusOr<StepLoop::Group> StepLoop::group() const {
  absl::MutexLock lock(&mu_);
  if (group_.epoch > 0) return group_;
  if (info_.has_last_failure()) {
    return GroupFailureStatus(info_.last_failure());
  }
  return absl::UnavailableError("no worker group is connected");
}

v1::GetInfoResponse StepLoop::info() const {
  absl::MutexLock lock(&mu_);
  return info_;
}

bool StepLoop::Post(Action action) {
  absl::MutexLock lock(&mu_);
  if (stopped_) return false;
  idle_ = false;
  inbox_.push_back(std::move(action));
  return true;
}

RequestKey StepLoop::Generate(int64_t epoch, GenerateSpec spec,
                              std::shared_ptr<GenerateQueue> queue) {
  const RequestKey key = next_key_++;
  queue->SetOnDrained(
      [this, key] { Post([this, key](absl::Time) { engine_.Resume(key); }); });
  const bool posted = Post([this, key, epoch, queue,
                            spec = std::move(spec)](absl::Time now) mutable {
    engine_.SubmitGenerate(key, epoch, std::move(spec), queue, now);
  });
  if (!posted) queue->Close(ShuttingDown());
  return key;
}

RequestKey StepLoop::Score(int64_t epoch, ScoreSpec spec, ScoreDone done) {
  const RequestKey key = next_key_++;
  const bool posted = Post(
      [this, key, epoch, done, spec = std::move(spec)](absl::Time now) mutable {
        engine_.SubmitScore(key, epoch, std::move(spec), done, now);
      });
  if (!posted) done(ShuttingDown());
  return key;
}

void StepLoop::Cancel(RequestKey key) {
  Post([this, key](absl::Time) { engine_.Cancel(key); });
}

void StepLoop::CollectStats(RequestEngine::StatsDone done) {
  if (!Post([this, done](absl::Time) { engine_.CollectStats(done); })) {
    done(ShuttingDown());
  }
}

void StepLoop::Train(v1::TrainPlan call, TrainingRuns::Done done) {
  const bool posted =
      Post([this, done, call = std::move(call)](absl::Time) mutable {
        engine_.Train(std::move(call), done);
      });
  if (!posted) done(ShuttingDown());
}

bool StepLoop::LookAtTraining(std::function<void(const TrainingRuns&)> look) {
  return Post(
      [this, look = std::move(look)](absl::Time) { look(engine_.training()); });
}

absl::Status StepLoop::CheckHello(const v1::Hello& hello) {
  if (hello.protocol_version() != kProtocolVersion) {
    return WrongHello("protocol_version", hello.protocol_version(),
                      absl::StrCat(kProtocolVersion));
  }
  const v1::ModelConfig& model = hello.model();
  const int32_t expected = options_.expected_vocab_size;
  if (expected > 0 && model.vocab_size() != expected) {
    return WrongHello("vocab_size", model.vocab_size(),
                      absl::StrCat(expected, ", the size of this model"));
  }
  if (model.vocab_size() < tokenizer_.vocab_size()) {
    return WrongHello("vocab_size", model.vocab_size(),
                      absl::StrCat("at least ", tokenizer_.vocab_size(),
                                   ", the tokenizer's"));
  }
  if (model.max_position() <= 0) {
    return WrongHello("max_position", model.max_position(), "1 or more");
  }
  if (hello.max_step_tokens() <= 0) {
    return WrongHello("max_step_tokens", hello.max_step_tokens(), "1 or more");
  }
  const v1::Topology& topology = hello.topology();
  if (topology.ranks().empty()) {
    return WrongHello("number of ranks", 0, "1 or more");
  }
  if (topology.kv_block_tokens() <= 0) {
    return WrongHello("kv_block_tokens", topology.kv_block_tokens(),
                      "1 or more");
  }
  int64_t blocks_left = kMaxGroupBlocks;
  for (int i = 0; i < topology.ranks_size(); ++i) {
    const int64_t num_blocks = topology.ranks(i).num_kv_blocks();
    if (num_blocks >= 1 && num_blocks <= blocks_left) {
      blocks_left -= num_blocks;
      continue;
    }
    return WrongHello(absl::StrCat("num_kv_blocks of rank ", i), num_blocks,
                      absl::StrCat("1 or more, and at most ", kMaxGroupBlocks,
                                   " on all ranks"));
  }
  return absl::OkStatus();
}

void StepLoop::OnGroupReady(int64_t epoch, v1::Hello hello) {
  Post([this, epoch, hello = std::move(hello)](absl::Time now) {
    OCTET_LOG(INFO) << "worker group " << epoch << " of "
                    << hello.topology().ranks_size() << " ranks is connected";
    current_group_ = {epoch, hello.model(), hello.topology()};
    current_group_.topology.set_epoch(epoch);
    engine_.Connect(hello, epoch, now);
  });
}

void StepLoop::OnStepResult(int64_t epoch, v1::StepResult result) {
  Post([this, epoch, result = std::move(result)](absl::Time now) {
    if (epoch != current_group_.epoch) return;
    const absl::Status status = engine_.HandleResult(result, now);
    if (status.ok()) return;
    LoseGroup(MakeGroupFailure(std::string(status.message())), now);
    link_.CloseGroup(epoch, status);
  });
}

void StepLoop::OnGroupLost(int64_t epoch, v1::GroupFailure failure) {
  Post([this, epoch, failure = std::move(failure)](absl::Time now) {
    if (epoch != current_group_.epoch) return;
    LoseGroup(failure, now);
  });
}

void StepLoop::LoseGroup(const v1::GroupFailure& failure, absl::Time now) {
  engine_.Disconnect(failure, now);
  current_group_ = {};
  // First, so that a client that asks after its error sees the group gone.
  PublishState(now);
  engine_.FailAll(GroupFailureStatus(failure));
}

void StepLoop::Run() {
  while (true) {
    for (Action& action : TakeInbox(NextWakeUp())) action(absl::Now());
    const absl::Time now = absl::Now();
    engine_.ExpireDeadlines(now);
    SendNextPlan(now);
    PublishState(now);
    if (TryEnd()) return;
  }
}

std::vector<StepLoop::Action> StepLoop::TakeInbox(absl::Time wake_up) {
  std::vector<Action> actions;
  absl::MutexLock lock(&mu_);
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return !inbox_.empty() || stopping_;
  };
  mu_.AwaitWithDeadline(absl::Condition(&ready), wake_up);
  actions.swap(inbox_);
  return actions;
}

bool StepLoop::TryEnd() {
  {
    absl::MutexLock lock(&mu_);
    if (!stopping_ || !inbox_.empty()) return false;
    stopped_ = true;  // nothing is posted from here on
  }
  engine_.Refuse(ShuttingDown());
  engine_.FailAll(ShuttingDown());
  if (engine_.connected()) {
    v1::Plan plan;
    plan.mutable_shutdown();
    link_.SendPlan(engine_.epoch(), std::move(plan));
  }
  return true;
}

absl::Time StepLoop::NextWakeUp() const {
  absl::Time wake_up = engine_.next_wake_up();
  if (serving_) {
    wake_up =
        std::min(wake_up, engine_.in_flight_since() + options_.stall_after);
  }
  return wake_up;
}

void StepLoop::SendNextPlan(absl::Time now) {
  std::optional<v1::Plan> plan = engine_.NextPlan(now);
  if (plan.has_value()) link_.SendPlan(engine_.epoch(), *std::move(plan));
}

void StepLoop::PublishState(absl::Time now) {
  const bool serving = engine_.connected() && !engine_.refusing() &&
                       now < engine_.in_flight_since() + options_.stall_after;
  if (serving != serving_) {
    serving_ = serving;
    if (options_.on_health) options_.on_health(serving);
  }
  absl::MutexLock lock(&mu_);
  engine_.FillInfo(&info_);
  if (group_.epoch != current_group_.epoch) group_ = current_group_;
  idle_ = inbox_.empty() && engine_.idle();
}

}  // namespace octet
