// A worker group of R ranks in one thread: dials the coordinator as rank 0
// does, speaks proto/worker.proto over gRPC, keeps a KvModel for each rank and
// answers with a FakeModel. Checks what the coordinator promises: step ids in
// order, budgets, home ranks that stay, block tables that hold.
#ifndef OCTET_TESTS_FAKES_FAKE_WORKER_GROUP_H_
#define OCTET_TESTS_FAKES_FAKE_WORKER_GROUP_H_

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "grpcpp/grpcpp.h"
#include "proto/worker.grpc.pb.h"
#include "tests/fakes/fake_model.h"
#include "tests/fakes/kv_model.h"

namespace octet::test {

class FakeWorkerGroup {
 public:
  struct Options {
    std::string target;  // of the coordinator
    FakeModel model;
    std::vector<int32_t> rank_blocks = {64, 64};
    int32_t block_tokens = 4;
    int32_t max_step_tokens = 32;
    int32_t max_position = 512;
    int32_t protocol_version = 1;
    absl::Duration step_time = absl::ZeroDuration();
  };

  // Dials at once, in a thread of its own.
  explicit FakeWorkerGroup(Options options);
  ~FakeWorkerGroup();  // breaks the connection
  FakeWorkerGroup(const FakeWorkerGroup&) = delete;
  FakeWorkerGroup& operator=(const FakeWorkerGroup&) = delete;

  // True when the coordinator said Welcome; false when the call ended before.
  bool WaitWelcome();
  // The status that the call ended with.
  grpc::Status WaitEnd();
  int64_t epoch() const;

  // Forward steps from now on wait until Release.
  void Hold();
  void Release();
  // Sends `failure` instead of the answer to the next forward step, and leaves
  // it to the coordinator to close the stream.
  void FailNextStep(v1::GroupFailure failure);
  // Answers the next step with a wrong step id.
  void BreakProtocol();
  // Cuts the connection.
  void Break();

  int64_t num_steps() const;  // forward
  bool got_shutdown() const;
  // What the coordinator did wrong; empty = nothing.
  std::string complaint() const;

 private:
  using Stream =
      grpc::ClientReaderWriter<v1::WorkerMessage, v1::CoordinatorMessage>;

  void Run();
  bool Serve(const v1::Plan& plan, Stream* stream);
  absl::Status Forward(const v1::ForwardPlan& plan, v1::StepResult* result);
  // Made-up answers: a loss is the number of slots; no slots are refused.
  void Train(const v1::TrainPlan& call, v1::TrainResult* result);
  absl::Status RunChunk(const v1::SequenceChunk& chunk, v1::StepResult* result);
  v1::Hello MakeHello() const;

  const Options options_;
  grpc::ClientContext context_;
  // Of the thread alone.
  std::vector<KvModel> caches_;  // [ranks]
  int64_t num_optimizer_steps_ = 0;
  v1::StateSave save_;   // the last one
  int checks_left_ = 0;  // until it is complete

  mutable absl::Mutex mu_;
  bool held_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  bool break_protocol_ ABSL_GUARDED_BY(mu_) = false;
  bool got_shutdown_ ABSL_GUARDED_BY(mu_) = false;
  std::unique_ptr<v1::GroupFailure> failure_ ABSL_GUARDED_BY(mu_);
  int64_t epoch_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t num_steps_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t last_step_id_ ABSL_GUARDED_BY(mu_) = 0;
  std::string complaint_ ABSL_GUARDED_BY(mu_);
  grpc::Status status_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

}  // namespace octet::test

#endif  // OCTET_TESTS_FAKES_FAKE_WORKER_GROUP_H_
