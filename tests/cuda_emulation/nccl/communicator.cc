#include "tests/cuda_emulation/nccl/communicator.h"

#include <cstring>
#include <utility>

#include "tests/cuda_emulation/check/shadow.h"
#include "tests/cuda_emulation/engine/options.h"
#include "tests/cuda_emulation/nccl/reduce.h"
#include "tests/cuda_emulation/nccl/world.h"

namespace cuda_emu {
namespace {

std::string RankText(const ncclComm& comm) {
  return "rank " + std::to_string(comm.rank) + " of " +
         std::to_string(comm.size);
}

// What both kinds of work have in common.
class Work {
 public:
  Work(ncclComm* comm, std::string what)
      : comm_(comm),
        what_(std::move(what)),
        exchange_(&comm->world_ranks, comm->tag) {}
  virtual ~Work() = default;

  // True when over. A call on a failed communicator stands still for ever, as
  // on a GPU, until it is aborted.
  bool Step(uint32_t operation) {
    if (comm_->aborted) return true;
    if (comm_->async_error != ncclSuccess) return StandStill();
    if (!started_) {
      started_ = true;
      Start(operation);
      if (comm_->async_error != ncclSuccess) return false;
    }
    const bool all = exchange_.Step();
    for (size_t i = 0; i < exchange_.received().size(); ++i) {
      if (exchange_.has(i) && !CheckSignature(i)) return false;
    }
    if (!all) return StandStill();
    Finish(operation);
    return true;
  }

 protected:
  virtual void Start(uint32_t operation) = 0;
  virtual void Finish(uint32_t operation) = 0;

  ncclComm* comm() { return comm_; }
  Exchange& exchange() { return exchange_; }
  void Fail(const std::string& message) {
    FailCommunicator(comm_, ncclInvalidUsage, message);
  }

 private:
  bool CheckSignature(size_t i) {
    const Exchange::Received& got = exchange_.received()[i];
    const CallSignature& expected = exchange_.expected(i);
    if (got.signature == expected) return true;
    if (expected.kind == CallKind::kPointToPoint &&
        got.signature.kind == CallKind::kPointToPoint) {
      Fail("mismatch: " + RankText(*comm_) + " receives " +
           std::to_string(expected.count) + " x " +
           NcclTypeName(expected.type) + " from rank " +
           std::to_string(got.peer) + ", which sends " +
           std::to_string(got.signature.count) + " x " +
           NcclTypeName(got.signature.type));
    } else {
      Fail("mismatch: " + RankText(*comm_) + " is in " + Describe(expected) +
           ", but rank " + std::to_string(got.peer) + " is in " +
           Describe(got.signature));
    }
    return false;
  }

  bool StandStill() {
    const double limit = GetOptions().nccl_seconds;
    if (!told_ && exchange_.last_progress() > 0 &&
        NowSeconds() - exchange_.last_progress() > limit) {
      told_ = true;
      FailCommunicator(comm_, ncclRemoteError,
                       "deadlock: in " + what_ + " nothing has moved for " +
                           std::to_string(static_cast<int>(limit)) + " s; " +
                           RankText(*comm_) + " still waits to" +
                           exchange_.Open());
    }
    return false;
  }

  ncclComm* comm_;
  std::string what_;
  Exchange exchange_;
  bool started_ = false;
  bool told_ = false;
};

class PointToPointWork : public Work {
 public:
  PointToPointWork(ncclComm* comm, std::vector<PointToPoint> calls)
      : Work(comm, "grouped send/receive"), calls_(std::move(calls)) {}

 private:
  static size_t Bytes(const PointToPoint& call) {
    return call.count * NcclTypeBytes(call.type);
  }

  void Start(uint32_t operation) override {
    std::vector<const PointToPoint*> own_sends;
    std::vector<const PointToPoint*> own_receives;
    for (const PointToPoint& call : calls_) {
      if (call.is_send) {
        ShadowRange(call.send, Bytes(call), /*write=*/false, operation);
      }
      if (call.peer == comm()->rank) {
        (call.is_send ? own_sends : own_receives).push_back(&call);
        continue;
      }
      const CallSignature signature{
          CallKind::kPointToPoint, call.type, 0, 0, call.count, 0};
      if (call.is_send) {
        exchange().AddSend(call.peer, signature, call.send, Bytes(call));
      } else {
        receives_.push_back(&call);
        exchange().AddReceive(call.peer, signature);
      }
    }
    CopyToSelf(own_sends, own_receives, operation);
  }

  void CopyToSelf(const std::vector<const PointToPoint*>& sends,
                  const std::vector<const PointToPoint*>& receives,
                  uint32_t operation) {
    if (sends.size() != receives.size()) {
      Fail("mismatch: " + RankText(*comm()) + " has " +
           std::to_string(sends.size()) + " sends and " +
           std::to_string(receives.size()) +
           " receives to itself in one group");
      return;
    }
    for (size_t i = 0; i < sends.size(); ++i) {
      if (sends[i]->count != receives[i]->count ||
          sends[i]->type != receives[i]->type) {
        Fail("mismatch: " + RankText(*comm()) + " sends itself " +
             std::to_string(sends[i]->count) + " x " +
             NcclTypeName(sends[i]->type) + " but receives " +
             std::to_string(receives[i]->count) + " x " +
             NcclTypeName(receives[i]->type));
        return;
      }
      if (Bytes(*sends[i]) == 0) continue;
      std::memmove(receives[i]->receive, sends[i]->send, Bytes(*sends[i]));
      ShadowRange(receives[i]->receive, Bytes(*receives[i]), /*write=*/true,
                  operation);
    }
  }

  void Finish(uint32_t operation) override {
    for (size_t i = 0; i < receives_.size(); ++i) {
      const std::vector<char>& payload = exchange().received()[i].payload;
      if (payload.empty()) continue;
      std::memcpy(receives_[i]->receive, payload.data(), payload.size());
      ShadowRange(receives_[i]->receive, payload.size(), /*write=*/true,
                  operation);
    }
  }

  const std::vector<PointToPoint> calls_;
  std::vector<const PointToPoint*> receives_;
};

class CollectiveWork : public Work {
 public:
  CollectiveWork(ncclComm* comm, const Collective& call)
      : Work(comm, Describe(call.signature)), call_(call) {}

 private:
  size_t SendBytes() {
    return SendCount(*comm(), call_.signature) *
           NcclTypeBytes(call_.signature.type);
  }
  size_t ReceiveBytes() {
    return ReceiveCount(*comm(), call_.signature) *
           NcclTypeBytes(call_.signature.type);
  }

  // The part of this rank's contribution that `peer` needs.
  std::pair<size_t, size_t> PartFor(int peer) {
    const CallSignature& s = call_.signature;
    if (!Contributes(*comm(), s)) return {0, 0};
    if (s.kind == CallKind::kReduceScatter) {
      return {static_cast<size_t>(peer) * ReceiveBytes(), ReceiveBytes()};
    }
    if (s.kind == CallKind::kReduce && peer != s.root) return {0, 0};
    return {0, SendBytes()};
  }

  void Start(uint32_t operation) override {
    const CallSignature& s = call_.signature;
    if (Contributes(*comm(), s) && SendBytes() > 0) {
      ShadowRange(call_.send, SendBytes(), /*write=*/false, operation);
      const char* p = static_cast<const char*>(call_.send);
      own_.assign(p, p + SendBytes());
    }
    for (int peer = 0; peer < comm()->size; ++peer) {
      if (peer == comm()->rank) continue;
      const auto [offset, bytes] = PartFor(peer);
      exchange().AddSend(peer, s, own_.data() + offset, bytes);
      exchange().AddReceive(peer, s);
    }
  }

  // Every rank's part as it reached this one, by rank.
  std::vector<const char*> Parts() {
    const auto [offset, bytes] = PartFor(comm()->rank);
    std::vector<const char*> parts(static_cast<size_t>(comm()->size));
    parts[static_cast<size_t>(comm()->rank)] = own_.data() + offset;
    for (const Exchange::Received& got : exchange().received()) {
      parts[static_cast<size_t>(got.peer)] = got.payload.data();
    }
    return parts;
  }

  void Finish(uint32_t operation) override {
    const CallSignature& s = call_.signature;
    const size_t bytes = ReceiveBytes();
    if (!Receives(*comm(), s) || bytes == 0) return;
    const std::vector<const char*> parts = Parts();
    char* out = static_cast<char*>(call_.receive);
    switch (s.kind) {
      case CallKind::kBroadcast:
        std::memcpy(out, parts[static_cast<size_t>(s.root)], bytes);
        break;
      case CallKind::kAllGather:
        for (size_t r = 0; r < parts.size(); ++r) {
          std::memcpy(out + r * SendBytes(), parts[r], SendBytes());
        }
        break;
      default: {
        const std::vector<char> total = ReduceInRingOrder(
            parts, ReceiveCount(*comm(), s), s.type, s.reduction);
        std::memcpy(out, total.data(), bytes);
      }
    }
    ShadowRange(out, bytes, /*write=*/true, operation);
  }

  const Collective call_;
  std::vector<char> own_;
};

}  // namespace

uint64_t SendCount(const ncclComm& comm, const CallSignature& s) {
  return s.kind == CallKind::kReduceScatter
             ? s.count * static_cast<uint64_t>(comm.size)
             : s.count;
}

uint64_t ReceiveCount(const ncclComm& comm, const CallSignature& s) {
  return s.kind == CallKind::kAllGather
             ? s.count * static_cast<uint64_t>(comm.size)
             : s.count;
}

bool Contributes(const ncclComm& comm, const CallSignature& s) {
  return s.kind != CallKind::kBroadcast || comm.rank == s.root;
}

bool Receives(const ncclComm& comm, const CallSignature& s) {
  return s.kind != CallKind::kReduce || comm.rank == s.root;
}

StepFunction PointToPointSteps(ncclComm* comm,
                               std::vector<PointToPoint> calls) {
  auto work = std::make_shared<PointToPointWork>(comm, std::move(calls));
  return [work](uint32_t operation) { return work->Step(operation); };
}

StepFunction CollectiveSteps(ncclComm* comm, const Collective& call) {
  auto work = std::make_shared<CollectiveWork>(comm, call);
  return [work](uint32_t operation) { return work->Step(operation); };
}

void FailCommunicator(ncclComm* comm, ncclResult_t error,
                      const std::string& message) {
  PrintNcclProblem(message);
  if (!GetOptions().nccl_async_errors) AbortJob();
  comm->message = message;
  if (comm->async_error == ncclSuccess) comm->async_error = error;
}

}  // namespace cuda_emu
