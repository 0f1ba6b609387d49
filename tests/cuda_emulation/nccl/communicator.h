// An emulated NCCL communicator, its bootstrap, and the two kinds of work on
// it. Work is a state machine that is stepped until it is done, so that a host
// that polls can give up and abort.
#ifndef CUDA_EMU_NCCL_COMMUNICATOR_H_
#define CUDA_EMU_NCCL_COMMUNICATOR_H_

#include <mpi.h>
#include <nccl.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/cuda_emulation/nccl/exchange.h"
#include "tests/cuda_emulation/runtime/operations.h"

struct ncclComm {
  int rank = 0;
  int size = 0;
  std::vector<int> world_ranks;  // of each rank
  int tag = 0;                   // of its messages
  uint64_t collectives = 0;      // made so far
  cuda_emu::OperationPtr last;   // calls run in the order made
  ncclResult_t async_error = ncclSuccess;
  bool blocking = true;
  // Groups of a communicator that does not block: they come to their streams
  // when the host asks whether they are over, not before.
  std::vector<std::function<void()>> under_way;
  bool ready = false;  // bootstrap is over
  bool aborted = false;
  bool destroyed = false;
  std::string message;  // of the error
};

namespace cuda_emu {

// Bootstrap: the rank that made the id collects who is who and tells everybody.
class Bootstrap {
 public:
  Bootstrap(ncclComm* comm, const ncclUniqueId& id);

  // True when over; the communicator is ready or has an asynchronous error.
  bool Step();
  // "rank 3 of 8 waits for ..."
  std::string Waiting() const;

 private:
  struct Hello {
    int rank;
    int size;
    int world_rank;
  };

  void Start();
  bool StepRoot();
  bool StepOther();
  void Take(const Hello& hello);

  ncclComm* comm_;
  int root_ = 0;  // world rank
  int hello_tag_ = 0;
  bool started_ = false;
  Hello mine_{};
  int num_hellos_ = 0;
  std::vector<MPI_Request> requests_;
};

bool IsUniqueId(const ncclUniqueId& id);
ncclUniqueId MakeUniqueId();

struct PointToPoint {
  bool is_send;
  const void* send = nullptr;
  void* receive = nullptr;
  uint64_t count = 0;
  int32_t type = 0;
  int peer = 0;
};

struct Collective {
  CallSignature signature;
  const void* send = nullptr;
  void* receive = nullptr;
};

// Step functions for Enqueue.
StepFunction PointToPointSteps(ncclComm* comm, std::vector<PointToPoint> calls);
StepFunction CollectiveSteps(ncclComm* comm, const Collective& call);

// What a rank contributes and receives, in elements.
uint64_t SendCount(const ncclComm& comm, const CallSignature& signature);
uint64_t ReceiveCount(const ncclComm& comm, const CallSignature& signature);
bool Contributes(const ncclComm& comm, const CallSignature& signature);
bool Receives(const ncclComm& comm, const CallSignature& signature);

// Ends the job, or with CUDA_EMU_NCCL_ERRORS=async sets the asynchronous error.
void FailCommunicator(ncclComm* comm, ncclResult_t error,
                      const std::string& message);

}  // namespace cuda_emu

#endif  // CUDA_EMU_NCCL_COMMUNICATOR_H_
