// Calls of NCCL and CUDA that fail on one rank while it connects or exchanges:
// that rank says which call it was, and every other rank hears it at once.
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cuda_emulation/include/cuda_emu/control.h"
#include "tests/worker/comm/mpi_test_main.h"
#include "tests/worker/comm/nccl/device_data.h"

namespace octet {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kPartBytes = 64;
// Nobody waits for it: an error ends the call everywhere.
constexpr absl::Duration kDeadline = absl::Seconds(40);

// A new group over the job's ranks, one exchange of device memory, and a
// meeting.
absl::Status ConnectAndExchange() {
  OCTET_ASSIGN_OR_RETURN(
      auto mpi, NewMpiCommunicator(test::Mpi(),
                                   {.timeout = kDeadline, .synchronize = {}}));
  OCTET_ASSIGN_OR_RETURN(const auto nccl,
                         test::NewNccl(std::move(mpi), kDeadline));
  const int size = nccl->size();
  const std::vector<int64_t> bytes(size, kPartBytes);
  std::vector<int64_t> offsets(size);
  for (int peer = 0; peer < size; ++peer) offsets[peer] = peer * kPartBytes;
  OCTET_ASSIGN_OR_RETURN(const auto memory,
                         cuda::DeviceMemory::Allocate(2 * size * kPartBytes));
  char* const send = static_cast<char*>(memory.data());
  test::NativeStream stream;
  OpInfo op;
  op.operation = "dispatch";
  op.layer = 3;
  op.stream = &stream;
  OCTET_RETURN_IF_ERROR(nccl->AllToAllV(
      {send, offsets, bytes, send + size * kPartBytes, offsets, bytes}, op));
  // Who had all its rows before another rank failed hears it here.
  return nccl->Barrier({.operation = "end"});
}

class NcclFaultsTest : public ::testing::TestWithParam<const char*> {};

TEST_P(NcclFaultsTest, IsNamedByAllRanks) {
  const std::string call = GetParam();
  const int failing = call == "ncclGetUniqueId" ? 0 : 1;
  if (test::Mpi().rank() == failing) cuda_emu::FailCall(1, call);
  const absl::Time begin = absl::Now();
  const absl::Status status = ConnectAndExchange();
  ASSERT_FALSE(status.ok()) << call;
  EXPECT_THAT(std::string(status.message()), HasSubstr(call));
  EXPECT_LT(absl::Now() - begin, kDeadline);
  if (test::Mpi().rank() == failing) {
    EXPECT_EQ(cuda_emu::FailedCall(), call);
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  } else {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  }
  cuda_emu::FailCall(0);
  // The job is none the worse for it.
  const absl::Status again = ConnectAndExchange();
  EXPECT_TRUE(again.ok()) << again;
}

INSTANTIATE_TEST_SUITE_P(
    Calls, NcclFaultsTest,
    ::testing::Values("ncclGetUniqueId", "ncclCommInitRankConfig",
                      "ncclCommGetAsyncError", "ncclGroupStart", "ncclSend",
                      "ncclRecv", "ncclGroupEnd", "cudaEventCreateWithFlags",
                      "cudaMemcpyAsync", "cudaEventRecord", "cudaEventQuery"),
    [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace octet
