// octet.v1.Cluster: what runs where, and how it is doing. Thread-safe.
#ifndef OCTET_COORDINATOR_CLUSTER_SERVICE_H_
#define OCTET_COORDINATOR_CLUSTER_SERVICE_H_

#include <string>

#include "absl/time/time.h"
#include "coordinator/event_hub.h"
#include "coordinator/step_loop.h"
#include "grpcpp/grpcpp.h"
#include "proto/cluster.grpc.pb.h"

namespace octet {

class ClusterService final : public v1::Cluster::CallbackService {
 public:
  // The references must outlive all calls.
  ClusterService(StepLoop& loop, EventHub& events, std::string model_name)
      : loop_(loop), events_(events), model_name_(std::move(model_name)) {}

  grpc::ServerUnaryReactor* GetInfo(grpc::CallbackServerContext* context,
                                    const v1::GetInfoRequest* request,
                                    v1::GetInfoResponse* response) override;
  grpc::ServerUnaryReactor* GetTopology(grpc::CallbackServerContext* context,
                                        const v1::GetTopologyRequest* request,
                                        v1::Topology* response) override;
  grpc::ServerUnaryReactor* GetExpertStats(
      grpc::CallbackServerContext* context,
      const v1::GetExpertStatsRequest* request,
      v1::ExpertStats* response) override;
  grpc::ServerWriteReactor<v1::Event>* WatchEvents(
      grpc::CallbackServerContext* context,
      const v1::WatchEventsRequest* request) override;

 private:
  StepLoop& loop_;
  EventHub& events_;
  const std::string model_name_;
  const absl::Time started_ = absl::Now();
};

}  // namespace octet

#endif  // OCTET_COORDINATOR_CLUSTER_SERVICE_H_
