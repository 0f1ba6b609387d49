// The NCCL transport on emulated GPUs: the checks of all transports, on device
// memory, with MPI processes as ranks. Failures have programs of their own
// (nccl_failure_test.cc).
#include "worker/comm/nccl/nccl_communicator.h"

#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/cuda_emulation/include/cuda_emu/control.h"
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
  void TearDown() override {
    comm_.reset();
    EXPECT_EQ(cuda_emu::ErrorCount(), 0) << cuda_emu::LastMessage();
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
TEST_F(NcclTransport, RanksBehind) { test::CheckRanksBehind(*comm_); }
TEST_F(NcclTransport, RandomSequence) {
  test::CheckRandomSequence(*comm_, 11, 60);
}
TEST_F(NcclTransport, Counters) { test::CheckCounters(*comm_); }

// What is sent is what the stream has written before the call, and later work
// on the stream reads what came.
TEST_F(NcclTransport, KeepsTheOrderOfItsStream) {
  constexpr int64_t kBytes = 300;
  const int size = comm_->size();
  const std::vector<int64_t> bytes(size, kBytes);
  std::vector<int64_t> offsets(size);
  for (int peer = 0; peer < size; ++peer) offsets[peer] = peer * kBytes;
  auto mpi = NewMpiCommunicator(test::Mpi());
  ASSERT_TRUE(mpi.ok()) << mpi.status();
  const auto nccl = test::NewNccl(std::move(*mpi), absl::Seconds(60));
  ASSERT_TRUE(nccl.ok()) << nccl.status();
  test::NativeStream stream;
  const auto send = cuda::DeviceMemory::Allocate(size * kBytes).value();
  const auto recv = cuda::DeviceMemory::Allocate(size * kBytes).value();
  std::vector<uint8_t> host(size * kBytes);
  for (int round = 0; round < 3; ++round) {
    const int value = comm_->rank() + 10 * round;
    cudaMemsetAsync(send.data(), value, size * kBytes, stream.get());
    OpInfo op;
    op.operation = "dispatch";
    op.stream = &stream;
    const absl::Status status = (*nccl)->AllToAllV(
        {send.data(), offsets, bytes, recv.data(), offsets, bytes}, op);
    ASSERT_TRUE(status.ok()) << status;
    cudaMemcpyAsync(host.data(), recv.data(), host.size(),
                    cudaMemcpyDeviceToHost, stream.get());
    ASSERT_EQ(cudaStreamSynchronize(stream.get()), cudaSuccess);
    for (int64_t i = 0; i < size * kBytes; ++i) {
      ASSERT_EQ(host[i], i / kBytes + 10 * round) << i;
    }
  }
}

}  // namespace
}  // namespace octet
