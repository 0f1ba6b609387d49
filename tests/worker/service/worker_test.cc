// A whole group (ranks as threads) against a coordinator that is a script.
#include "worker/service/worker.h"

#include <atomic>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"
#include "proto/worker.grpc.pb.h"
#include "tests/support/data.h"
#include "tests/worker/serve/plans.h"

namespace octet {
namespace {

using ::testing::HasSubstr;

// Plays one stream: `script` sees Hello and talks as it likes.
class FakeCoordinator final : public v1::WorkerLink::Service {
 public:
  using ServerStream =
      grpc::ServerReaderWriter<v1::CoordinatorMessage, v1::WorkerMessage>;
  using Script = std::function<grpc::Status(const v1::Hello&, ServerStream&)>;

  // `address`: empty for any free port.
  explicit FakeCoordinator(Script script, const std::string& address = "")
      : script_(std::move(script)) {
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(address.empty() ? "127.0.0.1:0" : address,
                             grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    address_ = absl::StrCat("127.0.0.1:", port);
  }
  ~FakeCoordinator() override { server_->Shutdown(); }

  const std::string& address() const { return address_; }

  grpc::Status Connect(grpc::ServerContext*, ServerStream* stream) override {
    v1::WorkerMessage first;
    if (!stream->Read(&first) || !first.has_hello()) {
      return grpc::Status(grpc::StatusCode::INTERNAL, "no Hello");
    }
    return script_(first.hello(), *stream);
  }

 private:
  const Script script_;
  std::string address_;
  std::unique_ptr<grpc::Server> server_;
};

void SendWelcome(FakeCoordinator::ServerStream& stream) {
  v1::CoordinatorMessage message;
  message.mutable_welcome()->set_epoch(3);
  stream.Write(message);
}

WorkerOptions Options(const std::string& address) {
  WorkerOptions options;
  options.model_dir = test::SourcePath("tests/golden/e8k2_old");
  options.coordinator_address = address;
  options.connect_timeout = absl::Seconds(20);
  options.num_threads = 1;
  options.kv_blocks = 10;
  return options;
}

// A plan that samples one token greedily after `ids`.
v1::CoordinatorMessage SamplePlan(int64_t step_id, int home,
                                  const std::vector<int32_t>& ids) {
  v1::CoordinatorMessage message;
  message.mutable_plan()->set_step_id(step_id);
  test::SetSample(test::AddChunk(message.mutable_plan()->mutable_forward(), 5,
                                 home, 0, ids, {9}),
                  0);
  return message;
}

TEST(WorkerTest, SaysHelloRunsPlansAndEndsOnShutdown) {
  v1::Hello hello;
  std::vector<v1::WorkerMessage> answers;
  FakeCoordinator coordinator([&](const v1::Hello& first, auto& stream) {
    hello = first;
    SendWelcome(stream);
    for (int home : {0, 2}) {
      stream.Write(SamplePlan(40 + home, home, {1, 70, 80, 90}));
      stream.Read(&answers.emplace_back());
    }
    v1::CoordinatorMessage message;
    message.mutable_plan()->mutable_shutdown();
    stream.Write(message);
    v1::WorkerMessage rest;
    while (stream.Read(&rest)) answers.push_back(rest);
    return grpc::Status::OK;
  });
  WorkerOptions options = Options(coordinator.address());
  options.placement = "0-3:0;4-7:1,2";
  EXPECT_TRUE(RunLocalWorkers(options, 3).ok());

  EXPECT_EQ(hello.protocol_version(), 1);
  EXPECT_EQ(hello.max_step_tokens(), 512);
  EXPECT_EQ(hello.model().num_experts(), 8);
  EXPECT_EQ(hello.model().vocab_size(), 320);
  EXPECT_EQ(hello.model().weight_dtype(), v1::DATA_TYPE_F32);
  const v1::Topology& topology = hello.topology();
  EXPECT_EQ(topology.transport(), "local");
  EXPECT_EQ(topology.kv_block_tokens(), 16);
  ASSERT_EQ(topology.ranks_size(), 3);
  for (int rank = 0; rank < 3; ++rank) {
    EXPECT_EQ(topology.ranks(rank).rank(), rank);
    EXPECT_EQ(topology.ranks(rank).num_kv_blocks(), 10);
    EXPECT_GT(topology.ranks(rank).weight_bytes(), 0);
    EXPECT_GT(topology.ranks(rank).workspace_bytes(), 0);
    EXPECT_GT(topology.ranks(rank).resident_bytes(), 0);
    // 10 blocks of 16 tokens, 2 layers, 2 heads of 8, keys and values, f32.
    EXPECT_EQ(topology.ranks(rank).kv_cache_bytes(),
              10 * 16 * 2 * 2 * 8 * 2 * 4);
  }
  ASSERT_EQ(topology.placement_size(), 8);
  EXPECT_EQ(topology.placement(7).ranks_size(), 2);

  ASSERT_EQ(answers.size(), 2u);
  EXPECT_EQ(answers[0].result().step_id(), 40);
  EXPECT_EQ(answers[1].result().step_id(), 42);
  const int token = answers[0].result().sequences(0).token_id();
  EXPECT_GE(token, 0);
  EXPECT_EQ(answers[1].result().sequences(0).token_id(), token);
  EXPECT_GT(answers[0].result().profile().total_seconds(), 0);
}

TEST(WorkerTest, EndsCleanlyWhenTheCoordinatorGoes) {
  FakeCoordinator coordinator([](const v1::Hello&, auto& stream) {
    SendWelcome(stream);
    return grpc::Status::OK;
  });
  EXPECT_TRUE(RunLocalWorkers(Options(coordinator.address()), 2).ok());
}

TEST(WorkerTest, ABadPlanIsReportedAndEndsTheGroup) {
  v1::WorkerMessage answer;
  FakeCoordinator coordinator([&](const v1::Hello&, auto& stream) {
    SendWelcome(stream);
    stream.Write(SamplePlan(8, 1, {999}));
    stream.Read(&answer);
    return grpc::Status::OK;
  });
  const absl::Status status =
      RunLocalWorkers(Options(coordinator.address()), 2);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(answer.failure().step_id(), 8);
  EXPECT_THAT(answer.failure().message(), HasSubstr("token_ids[0] is 999"));
}

TEST(WorkerTest, WaitsForACoordinatorThatStartsLater) {
  std::string address;
  {
    FakeCoordinator finds_a_port({});
    address = finds_a_port.address();
  }
  auto group = std::async(std::launch::async,
                          [&] { return RunLocalWorkers(Options(address), 2); });
  absl::SleepFor(absl::Milliseconds(300));
  FakeCoordinator coordinator(
      [](const v1::Hello&, auto& stream) {
        SendWelcome(stream);
        return grpc::Status::OK;
      },
      address);
  EXPECT_TRUE(group.get().ok());
}

TEST(WorkerTest, GivesUpOnACoordinatorThatNeverComes) {
  WorkerOptions options = Options("127.0.0.1:1");
  options.connect_timeout = absl::Milliseconds(300);
  const absl::Status status = RunLocalWorkers(options, 2);
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("no coordinator answered at 127.0.0.1:1 within 300ms"));
}

TEST(WorkerTest, ARefusalIsPassedOn) {
  FakeCoordinator coordinator([](const v1::Hello&, auto&) {
    return grpc::Status(grpc::StatusCode::FAILED_PRECONDITION,
                        "another vocabulary");
  });
  const absl::Status status =
      RunLocalWorkers(Options(coordinator.address()), 2);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("refused the worker group: another vocabulary"));
}

TEST(WorkerTest, CanBeCancelledBeforeItServes) {
  WorkerOptions options = Options("127.0.0.1:1");
  options.connect_timeout = absl::Hours(1);
  // Of the two ranks' pieces, then of rank 0 waiting.
  for (int allowed : {0, 5, 10000}) {
    std::atomic<int> asked{0};
    const absl::Time soon = absl::Now() + absl::Milliseconds(500);
    options.cancelled = [&] { return ++asked > allowed || absl::Now() > soon; };
    EXPECT_EQ(RunLocalWorkers(options, 2).code(), absl::StatusCode::kCancelled);
  }
}

// The coordinator may not have noticed yet that the last group has gone.
TEST(WorkerTest, WaitsForTheLastGroupToGo) {
  std::atomic<int> calls{0};
  FakeCoordinator coordinator([&](const v1::Hello&, auto& stream) {
    if (++calls < 3) {
      return grpc::Status(grpc::StatusCode::ALREADY_EXISTS, "group 1 is there");
    }
    SendWelcome(stream);
    return grpc::Status::OK;
  });
  EXPECT_TRUE(RunLocalWorkers(Options(coordinator.address()), 2).ok());
  EXPECT_EQ(calls, 3);

  calls = -1000;  // the last group never goes
  WorkerOptions options = Options(coordinator.address());
  options.connect_timeout = absl::Milliseconds(300);
  const absl::Status status = RunLocalWorkers(options, 2);
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("refused the worker group: group 1 is there"));
}

struct BadOptions {
  std::string name;
  std::function<void(WorkerOptions&)> spoil;
  std::string sentence;
};

class BadOptionsTest : public ::testing::TestWithParam<BadOptions> {};

TEST_P(BadOptionsTest, EndsTheGroupWithASentence) {
  WorkerOptions options = Options("127.0.0.1:1");
  GetParam().spoil(options);
  const absl::Status status = RunLocalWorkers(options, 2);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().sentence));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadOptionsTest,
    ::testing::Values(
        BadOptions{"NoModel",
                   [](WorkerOptions& o) { o.model_dir = "/nowhere"; },
                   "/nowhere: no such directory"},
        BadOptions{"Placement", [](WorkerOptions& o) { o.placement = "0-7:2"; },
                   "placement: entry '0-7:2' has rank '2'"},
        BadOptions{"SmallCache",
                   [](WorkerOptions& o) {
                     o.kv_blocks = 0;
                     o.kv_cache_bytes = 100;
                   },
                   "KV cache of 100 bytes, expected at least 4096"},
        BadOptions{"TwoSizes",
                   [](WorkerOptions& o) { o.kv_cache_bytes = 1 << 20; },
                   "kv_blocks is 10, expected at least 0, and 0 with"},
        BadOptions{"BlockTokens",
                   [](WorkerOptions& o) { o.kv_block_tokens = 0; },
                   "kv_block_tokens is 0, expected at least 1"},
        BadOptions{"StepTokens",
                   [](WorkerOptions& o) { o.max_step_tokens = 0; },
                   "max_step_tokens is 0, expected at least 1"},
        BadOptions{"DType", [](WorkerOptions& o) { o.dtype = DType::kI32; },
                   "i32"}),
    [](const auto& info) { return info.param.name; });

TEST(DefaultKvCacheBytesTest, IsAShareOfWhatIsFreeWithinBounds) {
  // A quarter of 1000 bytes over 2 ranks.
  EXPECT_EQ(DefaultKvCacheBytes(1000, 2, 10, 16, 1 << 20), 125);
  // 16 sequences of 3 blocks are enough.
  EXPECT_EQ(DefaultKvCacheBytes(1 << 30, 1, 10, 16, 33), 16 * 3 * 10);
  // One block at least.
  EXPECT_EQ(DefaultKvCacheBytes(0, 4, 10, 16, 100), 10);
}

}  // namespace
}  // namespace octet
