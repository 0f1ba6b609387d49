// Rank 0's end of the WorkerLink stream: dials the coordinator, says Hello, and
// then is the group's source of plans.
#ifndef OCTET_WORKER_SERVICE_COORDINATOR_LINK_H_
#define OCTET_WORKER_SERVICE_COORDINATOR_LINK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/worker.grpc.pb.h"
#include "worker/serve/group_loop.h"

namespace octet {

// Of the messages on the stream; a coordinator of another version refuses.
inline constexpr int kWorkerProtocolVersion = 1;

// Threads: one at a time.
class CoordinatorLink : public PlanSource {
 public:
  // Keeps trying while nobody answers, as the coordinator may start later;
  // DEADLINE_EXCEEDED after `timeout`. A coordinator that answers and refuses
  // ends it with its own status, ALREADY_EXISTS after some 20 s only: it may
  // not have noticed yet that the last group has gone. CANCELLED soon
  // after `cancelled` returns true. `address`: "host:port" or any gRPC target.
  static absl::StatusOr<std::unique_ptr<CoordinatorLink>> Connect(
      const std::string& address, const v1::Hello& hello,
      absl::Duration timeout, const std::function<bool()>& cancelled = {});

  // Tells the coordinator that no more comes, and gives it a few seconds to
  // close.
  ~CoordinatorLink() override;
  CoordinatorLink(const CoordinatorLink&) = delete;
  CoordinatorLink& operator=(const CoordinatorLink&) = delete;

  // The group's generation, as the coordinator counts.
  int64_t epoch() const { return epoch_; }

  // How the stream ended, once Next() has no more plans: OK when the
  // coordinator closed it, UNAVAILABLE when the connection broke.
  const absl::Status& end() const { return end_; }

  std::optional<v1::Plan> Next() override;
  void SendResult(const v1::StepResult& result) override;
  void SendFailure(const v1::GroupFailure& failure) override;

 private:
  using Stub = v1::WorkerLink::Stub;
  using ClientStream =
      grpc::ClientReaderWriter<v1::WorkerMessage, v1::CoordinatorMessage>;

  explicit CoordinatorLink(std::string address)
      : address_(std::move(address)) {}
  // One attempt over an open channel.
  grpc::Status Introduce(Stub& stub, const v1::Hello& hello);
  grpc::Status Finish();

  const std::string address_;
  int64_t epoch_ = 0;
  absl::Status end_;
  std::unique_ptr<Stub> stub_;
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<ClientStream> stream_;
};

}  // namespace octet

#endif  // OCTET_WORKER_SERVICE_COORDINATOR_LINK_H_
