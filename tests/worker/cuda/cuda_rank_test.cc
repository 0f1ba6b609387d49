// Which GPU a rank opens, and that all ranks end when one of them cannot.
#include "worker/device/cuda_rank.h"

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cuda_emulation/include/cuda_emu/control.h"
#include "tests/worker/comm/mpi_test_main.h"

namespace octet {
namespace {

using ::testing::AnyOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;

// Nobody waits for it.
constexpr absl::Duration kDeadline = absl::Seconds(40);

absl::StatusOr<CudaRank> NewRank() {
  auto mpi = NewMpiCommunicator(test::Mpi(),
                                {.timeout = kDeadline, .synchronize = {}});
  if (!mpi.ok()) return mpi.status();
  return NewCudaRank(std::move(*mpi), kDeadline);
}

class CudaRankTest : public ::testing::Test {
 protected:
  ~CudaRankTest() override {
    cuda_emu::SetDeviceCount(1);
    cuda_emu::FailCall(0);
  }
  const int rank_ = test::Mpi().rank();
};

TEST_F(CudaRankTest, OpensTheGpuOfItsNumberOnTheHost) {
  cuda_emu::SetDeviceCount(8);
  const auto rank = NewRank();
  ASSERT_TRUE(rank.ok()) << rank.status();
  const auto backend = rank->device.new_backend();
  ASSERT_TRUE(backend.ok()) << backend.status();
  EXPECT_THAT((*backend)->Description(),
              HasSubstr(absl::StrCat("device ", rank_)));
  EXPECT_EQ(rank->communicator->transport(), "nccl");
}

// The launcher shows each process its own.
TEST_F(CudaRankTest, OpensTheOneGpuItSees) {
  const auto rank = NewRank();
  ASSERT_TRUE(rank.ok()) << rank.status();
  const auto backend = rank->device.new_backend();
  ASSERT_TRUE(backend.ok()) << backend.status();
  EXPECT_THAT((*backend)->Description(), HasSubstr("device 0"));
  const auto before = rank->device.free_bytes();
  ASSERT_TRUE(before.ok()) << before.status();
  const auto buffer = (*backend)->Allocate(1 << 20);
  EXPECT_LE(*rank->device.free_bytes(), *before - (1 << 20));
  cuda_emu::FailCall(1, "cudaMemGetInfo");
  EXPECT_THAT(std::string(rank->device.free_bytes().status().message()),
              HasSubstr("cudaMemGetInfo: "));
}

TEST_F(CudaRankTest, MoreRanksThanGpusEndEverywhere) {
  if (test::Mpi().size() < 3) GTEST_SKIP() << "needs three ranks";
  cuda_emu::SetDeviceCount(2);
  const auto rank = NewRank();
  ASSERT_FALSE(rank.ok());
  // A rank without a GPU may hear of the other first.
  EXPECT_THAT(rank.status().code(),
              AnyOf(absl::StatusCode::kUnavailable,
                    rank_ < 2 ? absl::StatusCode::kUnavailable
                              : absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(std::string(rank.status().message()),
              ContainsRegex("cuda: device is [23], expected 0 to 1"));
}

TEST_F(CudaRankTest, AGpuThatCannotBeOpenedEndsEverywhere) {
  const int failing = test::Mpi().size() - 1;
  if (rank_ == failing) cuda_emu::FailCall(1, "cudaSetDevice");
  const auto rank = NewRank();
  ASSERT_FALSE(rank.ok());
  EXPECT_THAT(std::string(rank.status().message()),
              HasSubstr("cudaSetDevice 0: "));
}

}  // namespace
}  // namespace octet
