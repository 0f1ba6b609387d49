// The device language computes what it should, in every thread order, and sound
// kernels bring no report in any build.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "tests/cuda_emulation/include/cuda_emu/control.h"
#include "tests/cuda_emulation/selftest/device_buffer.h"
#include "tests/cuda_emulation/selftest/device_kernels.h"

namespace cuda_emu_selftest {
namespace {

class DeviceTest : public testing::Test {
 protected:
  void SetUp() override {
    cuda_emu::Reset();
    Must(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }
  void TearDown() override {
    Must(cudaStreamSynchronize(stream_));
    Must(cudaStreamDestroy(stream_));
    EXPECT_EQ(cuda_emu::ErrorCount(), 0) << cuda_emu::LastMessage();
  }

  template <class T>
  std::vector<T> Result(const DeviceBuffer<T>& buffer) {
    Must(cudaStreamSynchronize(stream_));
    return buffer.ToHost();
  }

  cudaStream_t stream_ = nullptr;
  std::mt19937 random_{7};
};

TEST_F(DeviceTest, BlockSumsThroughSharedMemory) {
  constexpr int kN = 300;
  constexpr int kBlocks = 5;
  std::vector<float> x(kN * kBlocks);
  for (float& v : x) v = static_cast<float>(random_() % 16);
  const DeviceBuffer<float> in(x);
  const DeviceBuffer<float> sums(kBlocks);
  Must(BlockSums(in.data(), kN, kBlocks, sums.data(), stream_));
  const std::vector<float> got = Result(sums);
  for (int b = 0; b < kBlocks; ++b) {
    float expected = 0;
    for (int i = 0; i < kN; ++i) expected += x[b * kN + i];
    EXPECT_EQ(got[b], expected);
  }
}

TEST_F(DeviceTest, WarpScanByShuffles) {
  std::vector<int> x(32);
  for (int i = 0; i < 32; ++i) x[i] = 3 * i + 1;
  const DeviceBuffer<int> in(x);
  const DeviceBuffer<int> out(32);
  Must(WarpScan(in.data(), out.data(), stream_));
  const std::vector<int> got = Result(out);
  for (int i = 0, sum = 0; i < 32; ++i) EXPECT_EQ(got[i], sum += x[i]);
}

TEST_F(DeviceTest, HistogramByAtomics) {
  std::vector<int> x(1000);
  std::vector<int> expected(10);
  for (int& v : x) ++expected[v = static_cast<int>(random_() % 10)];
  const DeviceBuffer<int> in(x);
  const DeviceBuffer<int> counts(std::vector<int>(10, 0));
  Must(Histogram(in.data(), 1000, counts.data(), stream_));
  EXPECT_EQ(Result(counts), expected);
}

TEST_F(DeviceTest, WarpVotesAndReductions) {
  std::vector<int> x(32);
  for (int i = 0; i < 32; ++i) x[i] = i % 3;
  const DeviceBuffer<int> in(x);
  const DeviceBuffer<unsigned> votes(6);
  Must(Votes(in.data(), votes.data(), stream_));
  const std::vector<unsigned> got = Result(votes);
  unsigned ballot = 0;
  unsigned same = 0;
  for (int i = 0; i < 32; ++i) {
    ballot |= static_cast<unsigned>(x[i] != 0) << i;
    same |= static_cast<unsigned>(x[i] == x[0]) << i;
  }
  EXPECT_EQ(got, (std::vector<unsigned>{ballot, 1, 0, same, 31, 2}));
}

TEST_F(DeviceTest, BlockVotes) {
  std::vector<int> x(70, 1);
  x[65] = 0;
  const DeviceBuffer<int> in(x);
  const DeviceBuffer<int> counts(3);
  Must(BlockVotes(in.data(), 70, counts.data(), stream_));
  EXPECT_EQ(Result(counts), (std::vector<int>{69, 0, 1}));
}

// Small integers: every product and sum is exact, so that the order does not
// matter.
TEST_F(DeviceTest, TensorCoreGemmIsExactOnIntegers) {
  constexpr int kM = 32;
  constexpr int kN = 48;
  constexpr int kK = 80;
  for (const bool transposed : {false, true}) {
    std::vector<__nv_bfloat16> a(kM * kK);
    std::vector<__nv_bfloat16> b(kN * kK);
    for (auto& v : a) v = __float2bfloat16(static_cast<int>(random_() % 9) - 4);
    for (auto& v : b) v = __float2bfloat16(static_cast<int>(random_() % 9) - 4);
    const DeviceBuffer<__nv_bfloat16> da(a);
    const DeviceBuffer<__nv_bfloat16> db(b);
    const DeviceBuffer<float> dc(kM * kN);
    Must(TensorCoreGemm(da.data(), db.data(), dc.data(), kM, kN, kK, transposed,
                        stream_));
    const std::vector<float> got = Result(dc);
    for (int i = 0; i < kM; ++i) {
      for (int j = 0; j < kN; ++j) {
        float sum = 0;
        for (int k = 0; k < kK; ++k) {
          sum += __bfloat162float(a[i * kK + k]) *
                 __bfloat162float(transposed ? b[k * kN + j] : b[j * kK + k]);
        }
        ASSERT_EQ(got[i * kN + j], sum) << i << "," << j;
      }
    }
  }
}

TEST_F(DeviceTest, LdMatrixGivesRowsAndColumns) {
  const DeviceBuffer<uint32_t> out(4 * 32);
  Must(LdMatrixForms(out.data(), stream_));
  const std::vector<uint32_t> got = Result(out);
  const auto pair = [](int low, int high) {
    return static_cast<uint32_t>(low) | static_cast<uint32_t>(high) << 16;
  };
  for (int lane = 0; lane < 32; ++lane) {
    const int i = lane / 4;
    const int j = lane % 4 * 2;
    EXPECT_EQ(got[lane], pair(8 * i + j, 8 * i + j + 1));
    EXPECT_EQ(got[32 + lane], pair(8 * j + i, 8 * j + 8 + i));
    EXPECT_EQ(got[64 + lane], pair(64 + 8 * i + j, 64 + 8 * i + j + 1));
    EXPECT_EQ(got[96 + lane], pair(64 + 8 * j + i, 64 + 8 * j + 8 + i));
  }
}

TEST_F(DeviceTest, ConversionsRound) {
  const std::vector<float> x{1.0f, 1.00390625f, -3.14159f, 300.0f};
  const DeviceBuffer<float> in(x);
  const DeviceBuffer<float> out(12);
  Must(Conversions(in.data(), 4, out.data(), stream_));
  const std::vector<float> got = Result(out);
  // bf16: 8 bits of significand, ties to even; e4m3: 4 bits, largest 448.
  EXPECT_EQ(std::vector<float>(got.begin(), got.begin() + 4),
            (std::vector<float>{1.0f, 1.0f, -3.140625f, 300.0f}));
  EXPECT_EQ(got[4 + 1], 1.00390625f);
  EXPECT_NEAR(got[4 + 2], -3.14159f, 1e-3);
  EXPECT_EQ(std::vector<float>(got.begin() + 8, got.end()),
            (std::vector<float>{1.0f, 1.0f, -3.25f, 288.0f}));
}

}  // namespace
}  // namespace cuda_emu_selftest
