#include "tests/fakes/fake_worker_group.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"

namespace octet::test {

FakeWorkerGroup::FakeWorkerGroup(Options options)
    : options_(std::move(options)) {
  for (int32_t num_blocks : options_.rank_blocks) {
    caches_.emplace_back(num_blocks, options_.block_tokens);
  }
  thread_ = std::thread([this] { Run(); });
}

FakeWorkerGroup::~FakeWorkerGroup() {
  Release();
  Break();
  thread_.join();
}

bool FakeWorkerGroup::WaitWelcome() {
  absl::MutexLock lock(&mu_);
  const auto done = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return epoch_ > 0 || ended_;
  };
  mu_.Await(absl::Condition(&done));
  return epoch_ > 0;
}

grpc::Status FakeWorkerGroup::WaitEnd() {
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(&ended_));
  return status_;
}

int64_t FakeWorkerGroup::epoch() const {
  absl::MutexLock lock(&mu_);
  return epoch_;
}

void FakeWorkerGroup::Hold() {
  absl::MutexLock lock(&mu_);
  held_ = true;
}

void FakeWorkerGroup::Release() {
  absl::MutexLock lock(&mu_);
  held_ = false;
}

void FakeWorkerGroup::FailNextStep(v1::GroupFailure failure) {
  absl::MutexLock lock(&mu_);
  failure_ = std::make_unique<v1::GroupFailure>(std::move(failure));
}

void FakeWorkerGroup::BreakProtocol() {
  absl::MutexLock lock(&mu_);
  break_protocol_ = true;
}

void FakeWorkerGroup::Break() { context_.TryCancel(); }

int64_t FakeWorkerGroup::num_steps() const {
  absl::MutexLock lock(&mu_);
  return num_steps_;
}

bool FakeWorkerGroup::got_shutdown() const {
  absl::MutexLock lock(&mu_);
  return got_shutdown_;
}

std::string FakeWorkerGroup::complaint() const {
  absl::MutexLock lock(&mu_);
  return complaint_;
}

v1::Hello FakeWorkerGroup::MakeHello() const {
  v1::Hello hello;
  hello.set_protocol_version(options_.protocol_version);
  hello.set_max_step_tokens(options_.max_step_tokens);
  hello.mutable_model()->set_vocab_size(options_.model.vocab_size);
  hello.mutable_model()->set_max_position(options_.max_position);
  hello.mutable_model()->add_eos_token_ids(options_.model.eos_id);
  v1::Topology* topology = hello.mutable_topology();
  topology->set_transport("fake");
  topology->set_kv_block_tokens(options_.block_tokens);
  for (size_t rank = 0; rank < options_.rank_blocks.size(); ++rank) {
    v1::RankInfo* info = topology->add_ranks();
    info->set_rank(static_cast<int32_t>(rank));
    info->set_host(absl::StrCat("host", rank));
    info->set_num_kv_blocks(options_.rank_blocks[rank]);
  }
  return hello;
}

void FakeWorkerGroup::Run() {
  const auto channel =
      grpc::CreateChannel(options_.target, grpc::InsecureChannelCredentials());
  const auto stub = v1::WorkerLink::NewStub(channel);
  const std::unique_ptr<Stream> stream = stub->Connect(&context_);
  v1::WorkerMessage message;
  *message.mutable_hello() = MakeHello();
  stream->Write(message);
  v1::CoordinatorMessage incoming;
  while (stream->Read(&incoming)) {
    if (incoming.has_welcome()) {
      absl::MutexLock lock(&mu_);
      epoch_ = incoming.welcome().epoch();
    } else if (!Serve(incoming.plan(), stream.get())) {
      stream->WritesDone();
      break;
    }
  }
  const grpc::Status status = stream->Finish();
  absl::MutexLock lock(&mu_);
  status_ = status;
  ended_ = true;
}

bool FakeWorkerGroup::Serve(const v1::Plan& plan, Stream* stream) {
  v1::WorkerMessage message;
  v1::StepResult* result = message.mutable_result();
  result->set_step_id(plan.step_id());
  if (plan.has_shutdown()) {
    absl::MutexLock lock(&mu_);
    got_shutdown_ = true;
    return false;
  }
  if (plan.has_collect_expert_stats()) {
    result->mutable_expert_stats()->add_ranks()->set_bytes_sent(123);
    return stream->Write(message);
  }
  if (plan.has_train()) {
    Train(plan.train(), result->mutable_train());
    return stream->Write(message);
  }
  if (options_.step_time > absl::ZeroDuration()) {
    absl::SleepFor(options_.step_time);
  }
  const absl::Status status = Forward(plan.forward(), result);
  absl::MutexLock lock(&mu_);
  const auto released = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return !held_;
  };
  mu_.Await(absl::Condition(&released));
  ++num_steps_;
  if (!status.ok()) complaint_ = std::string(status.message());
  if (plan.step_id() <= last_step_id_) complaint_ = "step ids do not grow";
  last_step_id_ = plan.step_id();
  if (std::exchange(break_protocol_, false)) result->set_step_id(-5);
  if (failure_ != nullptr) {
    *message.mutable_failure() = *std::exchange(failure_, nullptr);
  }
  return stream->Write(message);
}

void FakeWorkerGroup::Train(const v1::TrainPlan& call,
                            v1::TrainResult* result) {
  if (call.has_create_run()) {
    result->mutable_run()->set_trainable_parameters(7);
  } else if (call.has_forward_backward()) {
    if (call.forward_backward().slots().empty()) {
      result->set_code(static_cast<int>(absl::StatusCode::kInvalidArgument));
      result->set_message("slots is empty, expected at least one");
      return;
    }
    result->mutable_forward()->set_loss(call.forward_backward().slots_size());
  } else if (call.has_forward()) {
    result->mutable_forward()->set_loss(0.5);
  } else if (call.has_optim_step()) {
    result->mutable_optim_step()->set_step(++num_optimizer_steps_);
  } else if (call.has_zero_grad()) {
    result->mutable_zero_grad();
  } else if (call.has_save_state()) {
    result->mutable_save_state()->set_num_bytes(12);
    result->mutable_save_state()->set_writing(call.save_state().background());
    save_.set_path(call.save_state().path());
    checks_left_ = call.save_state().background() ? 3 : 0;
  } else if (call.has_check_save()) {
    --checks_left_;
  } else if (call.has_load_state()) {
    result->mutable_load_state()->set_client_state("here");
  } else if (call.has_export_weights()) {
    result->mutable_export_weights()->add_files("adapter_model.safetensors");
  } else {
    result->mutable_run();
  }
  if (save_.path().empty()) return;
  save_.set_stage(checks_left_ > 0 ? v1::SAVE_STAGE_WRITING
                                   : v1::SAVE_STAGE_COMPLETE);
  *result->mutable_save() = save_;
}

absl::Status FakeWorkerGroup::Forward(const v1::ForwardPlan& plan,
                                      v1::StepResult* result) {
  if (plan.chunks().empty()) return absl::InternalError("an empty plan");
  std::map<int32_t, int32_t> tokens;
  for (const v1::SequenceChunk& chunk : plan.chunks()) {
    if (chunk.home_rank() < 0 ||
        chunk.home_rank() >= static_cast<int32_t>(caches_.size())) {
      return absl::InternalError(absl::StrCat("no rank ", chunk.home_rank()));
    }
    tokens[chunk.home_rank()] += chunk.token_ids_size();
    if (tokens[chunk.home_rank()] > options_.max_step_tokens) {
      return absl::InternalError("a rank got more than max_step_tokens");
    }
    OCTET_RETURN_IF_ERROR(RunChunk(chunk, result));
  }
  return absl::OkStatus();
}

absl::Status FakeWorkerGroup::RunChunk(const v1::SequenceChunk& chunk,
                                       v1::StepResult* result) {
  OCTET_ASSIGN_OR_RETURN(
      const std::vector<uint64_t> hashes,
      caches_[chunk.home_rank()].Run(chunk.block_ids(), chunk.start_position(),
                                     chunk.token_ids()));
  const FakeModel& model = options_.model;
  v1::SequenceResult* sequence = result->add_sequences();
  sequence->set_sequence_id(chunk.sequence_id());
  sequence->set_token_id(-1);
  if (chunk.has_sample()) {
    const int32_t token = model.Sample(hashes.back(), chunk.sample());
    sequence->set_token_id(token);
    if (chunk.sample().num_logprobs() >= 0) {
      model.FillLogprobs(hashes.back(), token, chunk.sample().num_logprobs(),
                         sequence->mutable_sampled());
    }
  }
  if (!chunk.has_score()) return absl::OkStatus();
  if (chunk.score().target_ids_size() != chunk.token_ids_size()) {
    return absl::InternalError("as many targets as tokens were expected");
  }
  for (int i = 0; i < chunk.token_ids_size(); ++i) {
    const int32_t target = chunk.score().target_ids(i);
    if (target < 0) continue;
    model.FillLogprobs(hashes[i], target, chunk.score().num_logprobs(),
                       sequence->add_scored());
  }
  return absl::OkStatus();
}

}  // namespace octet::test
