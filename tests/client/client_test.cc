// What the client does by itself; its calls are used by every test of
// tests/coordinator.
#include "client/client.h"

#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "grpcpp/grpcpp.h"
#include "gtest/gtest.h"

namespace octet {
namespace {

// Streams chunks until it is cancelled, and fails everything else with details.
class StubInference final : public v1::Inference::Service {
 public:
  grpc::Status Generate(
      grpc::ServerContext* context, const v1::GenerateRequest*,
      grpc::ServerWriter<v1::GenerateResponse>* writer) override {
    v1::GenerateResponse chunk;
    chunk.set_text(std::string("x"));
    while (!context->IsCancelled()) writer->Write(chunk);
    return grpc::Status::CANCELLED;
  }
  grpc::Status Score(grpc::ServerContext*, const v1::ScoreRequest*,
                     v1::ScoreResponse*) override {
    v1::ErrorDetails details;
    auto* any = details.add_details();
    any->set_type_url("type.googleapis.com/octet.v1.GroupFailure");
    any->set_value("payload");
    return grpc::Status(grpc::StatusCode::UNAVAILABLE, "one sentence",
                        details.SerializeAsString());
  }
};

class ClientTest : public ::testing::Test {
 protected:
  ClientTest() {
    grpc::ServerBuilder builder;
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    client_ = std::make_unique<Client>(server_->InProcessChannel({}));
  }
  ~ClientTest() override { server_->Shutdown(); }

  StubInference service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Client> client_;
};

TEST_F(ClientTest, ReturningFalseCancels) {
  int count = 0;
  const absl::Status status = client_->Generate(
      {}, [&](const v1::GenerateResponse&) { return ++count < 3; });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(count, 3);
}

TEST_F(ClientTest, ADeadlineEndsTheCall) {
  const absl::Status status = client_->Generate(
      {}, [](const v1::GenerateResponse&) { return true; },
      absl::Milliseconds(50));
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(ClientTest, ErrorsKeepMessageAndDetails) {
  const absl::Status status = client_->Score({}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(status.message(), "one sentence");
  const auto payload =
      status.GetPayload("type.googleapis.com/octet.v1.GroupFailure");
  ASSERT_TRUE(payload.has_value());
  EXPECT_EQ(std::string(*payload), "payload");
}

TEST_F(ClientTest, TextThatIsNotUtf8IsNamed) {
  v1::GenerateRequest generate;
  generate.mutable_stop()->add_stop_strings(std::string("fine"));
  generate.mutable_stop()->add_stop_strings(std::string("caf\xE9"));
  const absl::Status status = client_->Generate(
      generate, [](const v1::GenerateResponse&) { return true; });
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(),
            "stop.stop_strings[1] is not UTF-8 at byte 3, expected UTF-8 text");
  v1::ScoreRequest score;
  auto* chat = score.mutable_prompt()->mutable_chat();
  chat->add_messages()->set_content(std::string("\xED\xA0\x80"));
  EXPECT_EQ(client_->Score(score).status().message(),
            "prompt.chat.messages[0].content is not UTF-8 at byte 0, expected "
            "UTF-8 text");
}

TEST(ClientConnectTest, NobodyListens) {
  Client client("127.0.0.1:1");
  const absl::Status status = client.WaitConnected(absl::Milliseconds(50));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(status.message(), "no coordinator answered within 50ms");
  EXPECT_EQ(client.GetInfo().status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace octet
