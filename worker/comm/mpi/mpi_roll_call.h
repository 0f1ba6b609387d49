// How far each rank of a group has come, asked by one that has waited too long
// for something other than the group's messages (its GPU). A rank answers from
// inside any call of its channel; one that is stopped or dead does not answer.
//
// Small messages on a communicator of the channel, which holds the lock on MPI
// around every call here and looks for what comes.
#ifndef OCTET_WORKER_COMM_MPI_MPI_ROLL_CALL_H_
#define OCTET_WORKER_COMM_MPI_MPI_ROLL_CALL_H_

#include <mpi.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <vector>

namespace octet {

class MpiRollCall {
 public:
  MpiRollCall(int rank, int size) : rank_(rank), answers_(size) {}

  // Opens the receive for the next message; when `request` is done, it is to be
  // taken, which opens the next one. `comm` outlives this.
  void Open(MPI_Comm comm, MPI_Request* request);
  void Take(MPI_Request* request);

  // What this rank answers.
  void set_progress(int64_t progress) { progress_ = progress; }

  // Asks all peers and calls `poll`, which takes what comes, until all have
  // answered, `patience` is over, or it says false.
  void Ask(std::chrono::milliseconds patience,
           const std::function<bool()>& poll);
  // Ranks, this one too, that are before `point`, and those that have not
  // answered.
  std::vector<int> Behind(int64_t point) const;

 private:
  struct Message {
    int32_t rank = 0;
    int32_t question = 0;  // its number on the rank that asks
    int64_t progress = -1;
    bool answer = false;
  };
  struct Outgoing {
    Message message;
    MPI_Request request = MPI_REQUEST_NULL;
  };

  void Receive(MPI_Request* request);
  bool AllAnswered() const;
  void Send(int peer, const Message& message);

  const int rank_;
  MPI_Comm comm_ = MPI_COMM_NULL;
  Message inbox_;
  std::deque<Outgoing> outbox_;  // until MPI has taken them
  int64_t progress_ = -1;
  int32_t question_ = 0;                         // number of the last one
  std::vector<std::optional<int64_t>> answers_;  // [R], to that question
};

}  // namespace octet

#endif  // OCTET_WORKER_COMM_MPI_MPI_ROLL_CALL_H_
