// A coordinator on a free port, a fake worker group and a client, all in this
// process and over real gRPC.
#ifndef OCTET_TESTS_COORDINATOR_SERVICE_HARNESS_H_
#define OCTET_TESTS_COORDINATOR_SERVICE_HARNESS_H_

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "client/client.h"
#include "coordinator/coordinator.h"
#include "tests/fakes/fake_worker_group.h"
#include "tests/support/data.h"
#include "text/tokenizer.h"

namespace octet::test {

// What one call gave, put together by continuation.
struct GenerateOutcome {
  struct Continuation {
    std::string text;
    std::vector<int32_t> ids;
    std::vector<v1::TokenDetail> logprobs;
    v1::FinishReason reason = v1::FINISH_REASON_UNSPECIFIED;
    std::string stop_string;
    v1::Timings timings;
  };
  absl::Status status;
  std::map<int32_t, Continuation> continuations;
  std::vector<v1::GenerateResponse> chunks;
  v1::Usage usage;
  uint64_t seed = 0;
};

class ServiceHarness {
 public:
  // Starts the coordinator; its address and tokenizer are filled in.
  explicit ServiceHarness(Coordinator::Options options = {});

  // A group with the toy tokenizer's vocabulary, welcomed and visible.
  FakeWorkerGroup& StartGroup(FakeWorkerGroup::Options options = {});
  // The group's options with target and vocabulary filled in.
  FakeWorkerGroup::Options GroupOptions(FakeWorkerGroup::Options options) const;
  void StopGroup();

  // `go_on` is called after each chunk; false cancels.
  GenerateOutcome Generate(
      const v1::GenerateRequest& request,
      absl::Duration timeout = absl::InfiniteDuration(),
      const std::function<bool()>& go_on = [] { return true; });

  // grpc.health.v1 Check, as a foreign client sees it: the number of the status
  // (1 = SERVING, 2 = NOT_SERVING), or -1 when the call fails.
  int Health(const std::string& service) const;

  // Polls until `done` holds; false after ten seconds.
  static bool Eventually(const std::function<bool()>& done);
  bool EventuallyIdle();

  Coordinator& coordinator() { return *coordinator_; }
  FakeWorkerGroup& group() { return *group_; }
  Client& client() { return *client_; }
  const Tokenizer& tokenizer() const { return *tokenizer_; }
  const FakeModel& model() const { return model_; }
  std::string target() const;

 private:
  TempDir folder_;
  std::unique_ptr<Tokenizer> tokenizer_;
  FakeModel model_;
  std::unique_ptr<Coordinator> coordinator_;
  std::unique_ptr<FakeWorkerGroup> group_;
  std::unique_ptr<Client> client_;
};

// A Generate call in a thread of its own; joined by Wait or the destructor.
class AsyncGenerate {
 public:
  // Cancels after `cancel_after` chunks; -1 = never.
  AsyncGenerate(ServiceHarness& harness, v1::GenerateRequest request,
                absl::Duration timeout = absl::InfiniteDuration(),
                int32_t cancel_after = -1);
  ~AsyncGenerate();
  const GenerateOutcome& Wait();
  int32_t num_chunks() const { return num_chunks_; }

 private:
  std::atomic<int32_t> num_chunks_ = 0;
  GenerateOutcome outcome_;
  std::thread thread_;
};

// A greedy request for `ids`.
v1::GenerateRequest IdsRequest(const std::vector<int32_t>& ids,
                               int32_t max_new_tokens);

}  // namespace octet::test

#endif  // OCTET_TESTS_COORDINATOR_SERVICE_HARNESS_H_
