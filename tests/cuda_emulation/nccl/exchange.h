// One round of messages between ranks: every message carries the call it
// belongs to, so that the receiver can tell a wrong count, type or order before
// it takes a byte. Never blocks.
#ifndef CUDA_EMU_NCCL_EXCHANGE_H_
#define CUDA_EMU_NCCL_EXCHANGE_H_

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

namespace cuda_emu {

enum class CallKind : int32_t {
  kPointToPoint,
  kAllReduce,
  kAllGather,
  kReduceScatter,
  kBroadcast,
  kReduce
};

// What a rank says about the call that a message belongs to.
struct CallSignature {
  CallKind kind;
  int32_t type;       // ncclDataType_t
  int32_t reduction;  // ncclRedOp_t, 0 when there is none
  int32_t root;       // 0 when there is none
  uint64_t count;
  uint64_t sequence;  // of collectives on the communicator; 0 for send/recv
  bool operator==(const CallSignature&) const = default;
};

// "ncclAllReduce #3 of 128 x f32", for reports.
std::string Describe(const CallSignature& signature);
size_t NcclTypeBytes(int32_t type);
const char* NcclTypeName(int32_t type);

class Exchange {
 public:
  struct Received {
    int peer;  // rank in the communicator
    CallSignature signature;
    std::vector<char> payload;
  };

  // `world_ranks` by rank of the communicator; must outlive the exchange.
  Exchange(const std::vector<int>* world_ranks, int tag)
      : world_ranks_(world_ranks), tag_(tag) {}

  void AddSend(int peer, const CallSignature& signature, const void* payload,
               size_t bytes);
  // Returns the index of the message in received().
  size_t AddReceive(int peer, const CallSignature& expected);

  // Lets messages go on; true when all have been sent and received. A send is
  // done when the other side has begun to receive it.
  bool Step();

  // When something last went on, in NowSeconds().
  double last_progress() const { return last_progress_; }

  const std::deque<Received>& received() const { return received_; }
  const CallSignature& expected(size_t i) const {
    return receives_[i].expected;
  }
  // True for a message that is here and can be looked at.
  bool has(size_t i) const { return receives_[i].done; }

  // "send 5 x f32 to rank 1; receive ...": what is still open.
  std::string Open() const;

 private:
  struct Send {
    int peer;
    CallSignature signature;
    std::vector<char> message;
    MPI_Request request = MPI_REQUEST_NULL;
    bool started = false;
    bool done = false;
  };
  struct Receive {
    CallSignature expected;
    std::vector<char> message;
    MPI_Request request = MPI_REQUEST_NULL;
    bool started = false;
    bool done = false;
  };

  bool StepSend(Send* send);
  bool StepReceive(size_t i);

  const std::vector<int>* world_ranks_;
  int tag_;
  double last_progress_ = 0;
  std::deque<Send> sends_;
  std::deque<Receive> receives_;
  std::deque<Received> received_;
};

}  // namespace cuda_emu

#endif  // CUDA_EMU_NCCL_EXCHANGE_H_
