// The NCCL transport on emulated GPUs: the checks of all transports, on device
// memory, with MPI processes as ranks. Failures have programs of their own
// (nccl_failure_test.cc).
#include "worker/comm/nccl/nccl_communicator.h"

#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/worker/comm/mpi_test_main.h"
#include "tests/worker/comm/nccl/device_data.h"
#include "tests/worker/comm/transport_checks.h"

namespace octet {
namespace {

class NcclTransport : public ::testing::Test {
 protected:
  void SetUp() override {
    auto mpi = NewMpiCommunicator(
        test::Mpi(), {.timeout = absl::Seconds(60), .synchronize = {}});
    ASSERT_TRUE(mpi.ok()) << mpi.status();
    auto nccl = test::NewNccl(std::move(*mpi), absl::Seconds(60));
    ASSERT_TRUE(nccl.ok()) << nccl.status();
    comm_ = std::make_unique<test::OnDevice>(std::move(*nccl));
  }

  std::unique_ptr<test::OnDevice> comm_;
};

TEST_F(NcclTransport, KnowsItsPlace) {
  EXPECT_EQ(comm_->rank(), test::Mpi().rank());
  EXPECT_EQ(comm_->size(), test::Mpi().size());
  EXPECT_EQ(comm_->transport(), "nccl");
  EXPECT_EQ(comm_->host(comm_->rank()), test::Mpi().host());
  EXPECT_TRUE(comm_->Poll({.operation = "nothing"}).ok());
}

TEST_F(NcclTransport, AllToAllVProvenance) {
  test::CheckAllToAllVProvenance(*comm_, 5);
}
TEST_F(NcclTransport, LargeParts) {
  test::CheckLargeParts(*comm_, (1 << 20) + 77);
}
TEST_F(NcclTransport, AllGather) { test::CheckAllGather(*comm_); }
TEST_F(NcclTransport, AllReduce) { test::CheckAllReduce(*comm_); }
TEST_F(NcclTransport, Broadcast) { test::CheckBroadcast(*comm_); }
TEST_F(NcclTransport, Barrier) { test::CheckBarrier(*comm_); }
TEST_F(NcclTransport, RandomSequence) {
  test::CheckRandomSequence(*comm_, 11, 60);
}
TEST_F(NcclTransport, Counters) { test::CheckCounters(*comm_); }

}  // namespace
}  // namespace octet
