#include "coordinator/cluster_service.h"

#include <memory>
#include <utility>

#include "coordinator/group_failure.h"
#include "coordinator/stream_reactor.h"

namespace octet {
namespace {

constexpr char kVersion[] = "0.1.0";  // as project() in CMakeLists.txt

}  // namespace

grpc::ServerUnaryReactor* ClusterService::GetInfo(
    grpc::CallbackServerContext* context, const v1::GetInfoRequest*,
    v1::GetInfoResponse* response) {
  *response = loop_.info();
  response->set_version(kVersion);
  response->set_model_name(model_name_);
  response->set_uptime_seconds(absl::ToDoubleSeconds(absl::Now() - started_));
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* ClusterService::GetTopology(
    grpc::CallbackServerContext* context, const v1::GetTopologyRequest*,
    v1::Topology* response) {
  absl::StatusOr<StepLoop::Group> group = loop_.group();
  if (group.ok()) *response = std::move(group->topology);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(group.status()));
  return reactor;
}

grpc::ServerUnaryReactor* ClusterService::GetExpertStats(
    grpc::CallbackServerContext* context, const v1::GetExpertStatsRequest*,
    v1::ExpertStats* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  loop_.CollectStats(
      [reactor, response](absl::StatusOr<v1::ExpertStats> stats) {
        if (stats.ok()) *response = *std::move(stats);
        reactor->Finish(ToGrpcStatus(stats.status()));
      });
  return reactor;
}

grpc::ServerWriteReactor<v1::Event>* ClusterService::WatchEvents(
    grpc::CallbackServerContext*, const v1::WatchEventsRequest*) {
  const std::shared_ptr<EventHub::Queue> queue = events_.Subscribe();
  return StreamReactor<v1::Event>::Start(
      queue, [this, queue] { events_.Unsubscribe(queue); });
}

}  // namespace octet
