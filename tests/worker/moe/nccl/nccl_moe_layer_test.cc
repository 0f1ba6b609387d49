// The MoE layer on emulated GPUs, one process each, in chunks that travel while
// others compute. Every rank also computes all tokens alone; its own rows must
// come out the same to the last bit, over NCCL as the worker has it and over a
// transport that promises no more than the order of a stream.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "tests/cuda_emulation/include/cuda_emu/control.h"
#include "tests/worker/comm/mpi_test_main.h"
#include "tests/worker/moe/moe_case.h"
#include "tests/worker/moe/nccl/stream_order_communicator.h"
#include "worker/comm/local/local_group.h"
#include "worker/device/cuda_rank.h"

namespace octet {
namespace {

constexpr int64_t kTokens = 22;
constexpr absl::Duration kTimeout = absl::Seconds(60);

// Rank 0 has most of the tokens, and with more than two ranks the last none.
std::vector<int64_t> RankTokens(int num_ranks) {
  std::vector<int64_t> tokens(num_ranks, 3);
  if (num_ranks > 2) tokens.back() = 0;
  tokens[0] = kTokens;
  for (int rank = 1; rank < num_ranks; ++rank) tokens[0] -= tokens[rank];
  return tokens;
}

class NcclMoeLayerTest : public ::testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    auto mpi = NewMpiCommunicator(test::Mpi());
    ASSERT_TRUE(mpi.ok()) << mpi.status();
    auto rank = NewCudaRank(std::move(*mpi), kTimeout);
    ASSERT_TRUE(rank.ok()) << rank.status();
    auto backend = rank->device.new_backend();
    ASSERT_TRUE(backend.ok()) << backend.status();
    communicator_ = std::move(rank->communicator);
    backend_ = std::move(*backend);
    job_.dtype = GetParam();
  }
  void TearDown() override {
    communicator_.reset();
    backend_.reset();
    EXPECT_EQ(cuda_emu::ErrorCount(), 0) << cuda_emu::LastMessage();
  }

  // [all ranks' tokens, H] of one rank alone.
  std::vector<float> Alone() {
    test::MoeJob job = job_;
    job.rank_tokens = {kTokens};
    std::vector<float> out(moe_.residual.size());
    const auto self = NewLocalGroup(1, {});
    const absl::Status status = test::RunMoeRank(
        job, moe_, Placement::Default(test::kMoeExperts, 1).value(), *backend_,
        *self[0], out);
    EXPECT_TRUE(status.ok()) << status;
    return out;
  }

  void ExpectRowsOf(const std::vector<float>& alone,
                    Communicator& communicator) {
    const int size = communicator.size();
    job_.rank_tokens = RankTokens(size);
    int64_t first = 0;
    for (int rank = 0; rank < communicator.rank(); ++rank) {
      first += job_.rank_tokens[rank] * test::kMoeHidden;
    }
    const int64_t count =
        job_.rank_tokens[communicator.rank()] * test::kMoeHidden;
    std::vector<float> out(moe_.residual.size());
    const absl::Status status = test::RunMoeRank(
        job_, moe_, Placement::Default(test::kMoeExperts, size).value(),
        *backend_, communicator, out);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(
        test::FirstMismatch(absl::MakeConstSpan(out).subspan(first, count),
                            absl::MakeConstSpan(alone).subspan(first, count)),
        "");
  }

  const test::MoeCase moe_ = test::MakeMoeCase(5, kTokens);
  test::MoeJob job_;
  std::unique_ptr<Communicator> communicator_;
  std::unique_ptr<Backend> backend_;
};

TEST_P(NcclMoeLayerTest, TheSameBitsInEveryChunkingOverEveryTransport) {
  job_.num_calls = 2;
  const std::vector<float> alone = Alone();
  const test::Difference difference = test::Compare(
      test::ToValues(alone), test::MoeReference(moe_, job_.top_k, job_.dtype));
  ASSERT_TRUE(difference.comparable);
  // As in ../moe_layer_test.cc.
  EXPECT_LT(difference.max_relative, job_.dtype == DType::kF32 ? 1e-5 : 4e-3);

  auto mpi = NewMpiCommunicator(test::Mpi());
  ASSERT_TRUE(mpi.ok()) << mpi.status();
  const auto stream_order = test::NewStreamOrderCommunicator(std::move(*mpi));
  ASSERT_TRUE(stream_order.ok()) << stream_order.status();
  for (Communicator* communicator :
       {communicator_.get(), stream_order->get()}) {
    for (const auto& [max_rows, max_chunks] :
         std::vector<std::pair<int64_t, int>>{
             {2048, 1}, {2048, 2}, {2048, 3}, {5, 6}}) {
      SCOPED_TRACE(absl::StrCat(communicator->transport(), ", ", max_rows,
                                " rows at a time, ", max_chunks, " chunks"));
      job_.max_expert_rows = max_rows;
      job_.max_chunks = max_chunks;
      ExpectRowsOf(alone, *communicator);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(DTypes, NcclMoeLayerTest,
                         ::testing::Values(DType::kF32, DType::kBF16),
                         [](const auto& info) {
                           return std::string(Name(info.param));
                         });

}  // namespace
}  // namespace octet
