#include "worker/serve/group_loop.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "worker/comm/group_messages.h"

namespace octet {
namespace {

// Sums the layers' counters, lists the ranks.
void MergeStats(const v1::ExpertStats& from, v1::ExpertStats* to) {
  if (to->layers().empty()) {
    *to->mutable_layers() = from.layers();
  } else {
    for (int layer = 0; layer < from.layers_size(); ++layer) {
      v1::LayerExpertStats* sum = to->mutable_layers(layer);
      for (int e = 0; e < sum->expert_tokens_size(); ++e) {
        sum->set_expert_tokens(
            e, sum->expert_tokens(e) + from.layers(layer).expert_tokens(e));
      }
    }
  }
  to->mutable_ranks()->MergeFrom(from.ranks());
}

// One result of the whole group, with the profile of rank 0.
absl::StatusOr<v1::StepResult> MergeResults(
    const std::vector<std::string>& messages) {
  v1::StepResult merged;
  for (size_t rank = 0; rank < messages.size(); ++rank) {
    v1::StepResult part;
    if (!part.ParseFromString(messages[rank])) {
      return absl::InternalError(
          absl::StrCat("rank ", rank, " sent ", messages[rank].size(),
                       " bytes that are not a StepResult"));
    }
    if (rank == 0) {
      merged = std::move(part);
      continue;
    }
    merged.mutable_sequences()->MergeFrom(part.sequences());
    if (part.has_expert_stats()) {
      MergeStats(part.expert_stats(), merged.mutable_expert_stats());
    }
  }
  return merged;
}

}  // namespace

v1::GroupFailure ToGroupFailure(const absl::Status& status,
                                const Communicator& communicator,
                                int64_t step_id) {
  CollectiveFailure known;
  known.rank = communicator.rank();
  known.step_id = step_id;
  if (auto failure = FailureOf(status)) known = *std::move(failure);
  if (known.host.empty() && known.rank >= 0) {
    known.host = communicator.host(known.rank);
  }
  v1::GroupFailure out;
  out.set_rank(known.rank);
  out.set_host(known.host);
  out.set_operation(known.operation);
  out.set_layer(known.layer);
  out.set_step_id(known.step_id);
  out.set_sequence_number(known.sequence_number);
  out.set_waited_seconds(absl::ToDoubleSeconds(known.waited));
  for (int rank : known.missing_ranks) out.add_missing_ranks(rank);
  out.set_message(std::string(status.message()));
  return out;
}

GroupLoop::GroupLoop(Communicator* communicator, Engine* engine,
                     TrainHandler* training, int num_experts,
                     PlanSource* source)
    : communicator_(communicator),
      engine_(engine),
      training_(training),
      num_experts_(num_experts),
      source_(source) {
  OCTET_CHECK(communicator->rank() != 0 || source != nullptr);
}

absl::Status GroupLoop::Run() {
  int64_t step_id = -1;
  while (true) {
    absl::StatusOr<v1::Plan> plan = NextPlan();
    absl::Status status = plan.status();
    if (status.ok()) {
      if (plan->has_shutdown()) return training_->Finish(step_id);
      step_id = plan->step_id();
      status = Execute(*plan);
    }
    if (status.ok()) continue;
    communicator_->Abort(status);
    if (communicator_->rank() == 0) {
      source_->SendFailure(ToGroupFailure(status, *communicator_, step_id));
    }
    return status;
  }
}

absl::StatusOr<v1::Plan> GroupLoop::NextPlan() {
  OpInfo op;
  op.operation = "plan";
  std::string message;
  if (communicator_->rank() == 0) {
    std::optional<v1::Plan> plan = source_->Next();
    if (!plan.has_value()) {
      plan.emplace();
      plan->mutable_shutdown();
    }
    op.step_id = plan->step_id();
    message = plan->SerializeAsString();
  } else {
    // Nothing comes as long as nobody asks anything.
    op.timeout = absl::InfiniteDuration();
  }
  OCTET_ASSIGN_OR_RETURN(message,
                         BroadcastMessage(*communicator_, message, op));
  v1::Plan plan;
  if (!plan.ParseFromString(message)) {
    return absl::InternalError(absl::StrCat("rank 0 broadcast ", message.size(),
                                            " bytes that are not a plan"));
  }
  return plan;
}

absl::Status GroupLoop::Execute(const v1::Plan& plan) {
  v1::StepResult local;
  if (plan.has_forward()) {
    OCTET_ASSIGN_OR_RETURN(local, engine_->Run(plan.step_id(), plan.forward()));
  } else if (plan.has_train()) {
    OCTET_ASSIGN_OR_RETURN(*local.mutable_train(),
                           training_->Run(plan.step_id(), plan.train()));
  } else if (plan.has_collect_expert_stats()) {
    *local.mutable_expert_stats() = LocalExpertStats();
  } else {
    return absl::InvalidArgumentError(absl::StrCat(
        "plan: step ", plan.step_id(), " has no kind that this version knows"));
  }
  local.set_step_id(plan.step_id());
  OpInfo op;
  op.operation = "results";
  op.step_id = plan.step_id();
  OCTET_ASSIGN_OR_RETURN(
      const std::vector<std::string> messages,
      GatherMessages(*communicator_, local.SerializeAsString(), op));
  if (communicator_->rank() != 0) return absl::OkStatus();
  OCTET_ASSIGN_OR_RETURN(const v1::StepResult merged, MergeResults(messages));
  source_->SendResult(merged);
  return absl::OkStatus();
}

v1::ExpertStats GroupLoop::LocalExpertStats() const {
  v1::ExpertStats stats;
  v1::RankExpertStats* own = stats.add_ranks();
  own->set_rank(communicator_->rank());
  own->mutable_expert_tokens()->Resize(num_experts_, 0);
  const absl::Span<const int64_t> rows = engine_->expert_rows();
  for (size_t i = 0; i < rows.size(); ++i) {
    const int expert = static_cast<int>(i % num_experts_);
    if (expert == 0) {
      stats.add_layers()->set_layer(stats.layers_size() - 1);
    }
    stats.mutable_layers(stats.layers_size() - 1)->add_expert_tokens(rows[i]);
    own->set_expert_tokens(expert, own->expert_tokens(expert) + rows[i]);
  }
  for (const OpCounters& counters : communicator_->counters()) {
    own->set_bytes_sent(own->bytes_sent() + counters.bytes_sent);
    own->set_bytes_received(own->bytes_received() + counters.bytes_received);
  }
  return stats;
}

}  // namespace octet
