// The seam between the coordinator and a worker group: plans go down, results
// come up. The implementation over gRPC is grpc_worker_link.h.
#ifndef OCTET_COORDINATOR_WORKER_LINK_H_
#define OCTET_COORDINATOR_WORKER_LINK_H_

#include <cstdint>

#include "absl/status/status.h"
#include "proto/cluster.pb.h"
#include "proto/worker.pb.h"

namespace octet {

// At most one group is connected at a time; each has an epoch, one more than
// the one before. Thread-safe.
class WorkerLink {
 public:
  // Called by the link, on its threads; the calls for one group come in order:
  // OnGroupReady, OnStepResult..., OnGroupLost. Must not block.
  class Listener {
   public:
    virtual ~Listener() = default;
    // An error refuses the group with one sentence.
    virtual absl::Status CheckHello(const v1::Hello& hello) = 0;
    virtual void OnGroupReady(int64_t epoch, v1::Hello hello) = 0;
    virtual void OnStepResult(int64_t epoch, v1::StepResult result) = 0;
    virtual void OnGroupLost(int64_t epoch, v1::GroupFailure failure) = 0;
  };

  virtual ~WorkerLink() = default;
  // Ignored when that group has gone.
  virtual void SendPlan(int64_t epoch, v1::Plan plan) = 0;
  // Ends the connection with an error; OnGroupLost follows.
  virtual void CloseGroup(int64_t epoch, const absl::Status& status) = 0;
};

}  // namespace octet

#endif  // OCTET_COORDINATOR_WORKER_LINK_H_
