#include "tests/kernels/cuda/failing_calls.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cuda_emulation/include/cuda_emu/control.h"

namespace octet::test {
namespace {

using testing::HasSubstr;

// What a status says of a failed call; launches are named by their operation.
std::string NameOf(const std::string& call) {
  return call == "launch" ? "launch of" : call;
}

}  // namespace

void ExpectEveryFailureIsSaid(const Work& work,
                              const CudaBackendOptions& options) {
  const size_t live = cuda_emu::LiveAllocations();
  Bytes expected;
  {
    Attempt run(options);
    const auto result = work(run);
    ASSERT_TRUE(result.ok()) << result.status();
    expected = *result;
  }
  int call = 1;
  for (;; ++call) {
    Attempt run(options);
    cuda_emu::FailCall(call);
    const auto result = work(run);
    const std::string failed = cuda_emu::FailedCall();
    cuda_emu::FailCall(0);
    if (failed.empty()) break;  // there are no more calls
    ASSERT_FALSE(result.ok()) << "call " << call << ", " << failed;
    EXPECT_THAT(std::string(result.status().message()),
                HasSubstr(NameOf(failed)));
    const auto again = work(run);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(*again, expected) << "after call " << call << ", " << failed;
  }
  EXPECT_GT(call, 3);
  EXPECT_EQ(cuda_emu::LiveAllocations(), live);
}

}  // namespace octet::test
