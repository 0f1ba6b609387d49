#include "worker/comm/mpi/mpi_roll_call.h"

#include <algorithm>

#include "worker/comm/backoff.h"

namespace octet {
namespace {

constexpr int kRollCallTag = 4;

}  // namespace

void MpiRollCall::Open(MPI_Comm comm, MPI_Request* request) {
  comm_ = comm;
  Receive(request);
}

void MpiRollCall::Receive(MPI_Request* request) {
  MPI_Irecv(&inbox_, sizeof(inbox_), MPI_BYTE, MPI_ANY_SOURCE, kRollCallTag,
            comm_, request);
}

void MpiRollCall::Take(MPI_Request* request) {
  const Message message = inbox_;
  Receive(request);
  if (!message.answer) {
    Send(message.rank, {rank_, message.question, progress_, true});
  } else if (message.question == question_) {
    answers_[message.rank] = message.progress;
  }
}

void MpiRollCall::Send(int peer, const Message& message) {
  while (!outbox_.empty()) {
    int done = 0;
    MPI_Test(&outbox_.front().request, &done, MPI_STATUS_IGNORE);
    if (!done) break;
    outbox_.pop_front();
  }
  Outgoing& out = outbox_.emplace_back(Outgoing{message, MPI_REQUEST_NULL});
  MPI_Isend(&out.message, sizeof(out.message), MPI_BYTE, peer, kRollCallTag,
            comm_, &out.request);
}

void MpiRollCall::Ask(std::chrono::milliseconds patience,
                      const std::function<bool()>& poll) {
  ++question_;
  for (int peer = 0; peer < static_cast<int>(answers_.size()); ++peer) {
    answers_[peer].reset();
    if (peer != rank_) Send(peer, {rank_, question_, progress_, false});
  }
  answers_[rank_] = progress_;
  const auto deadline = std::chrono::steady_clock::now() + patience;
  Backoff backoff(/*crowded=*/true);
  while (!AllAnswered() && poll() &&
         std::chrono::steady_clock::now() < deadline) {
    backoff.Pause();
  }
}

bool MpiRollCall::AllAnswered() const {
  return std::all_of(answers_.begin(), answers_.end(),
                     [](const auto& answer) { return answer.has_value(); });
}

std::vector<int> MpiRollCall::Behind(int64_t point) const {
  std::vector<int> behind;
  for (size_t rank = 0; rank < answers_.size(); ++rank) {
    if (!answers_[rank].has_value() || *answers_[rank] < point) {
      behind.push_back(static_cast<int>(rank));
    }
  }
  return behind;
}

}  // namespace octet
