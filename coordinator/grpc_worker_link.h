// WorkerLink over gRPC: the service that rank 0 of a group dials. A second
// group is refused with ALREADY_EXISTS while one is connected.
// Thread-safe. SetListener comes before the server starts.
#ifndef OCTET_COORDINATOR_GRPC_WORKER_LINK_H_
#define OCTET_COORDINATOR_GRPC_WORKER_LINK_H_

#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/worker_link.h"
#include "grpcpp/grpcpp.h"
#include "proto/worker.grpc.pb.h"

namespace octet {

class GrpcWorkerLink final : public WorkerLink,
                             public v1::WorkerLink::CallbackService {
 public:
  // Must outlive all calls of the service.
  void SetListener(Listener* listener) { listener_ = listener; }

  void SendPlan(int64_t epoch, v1::Plan plan) override;
  void CloseGroup(int64_t epoch, const absl::Status& status) override;

  grpc::ServerBidiReactor<v1::WorkerMessage, v1::CoordinatorMessage>* Connect(
      grpc::CallbackServerContext* context) override;

 private:
  class Session;

  // Makes `session` the group; an error says why not.
  absl::Status Accept(Session* session, const v1::Hello& hello)
      ABSL_LOCKS_EXCLUDED(mu_);
  void Lost(Session* session, const v1::GroupFailure& failure)
      ABSL_LOCKS_EXCLUDED(mu_);
  std::shared_ptr<Session> Find(int64_t epoch) ABSL_LOCKS_EXCLUDED(mu_);

  Listener* listener_ = nullptr;
  absl::Mutex mu_;
  std::shared_ptr<Session> session_ ABSL_GUARDED_BY(mu_);
  int64_t last_epoch_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace octet

#endif  // OCTET_COORDINATOR_GRPC_WORKER_LINK_H_
