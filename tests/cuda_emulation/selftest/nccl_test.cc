// NCCL between MPI ranks: data arrives where it should, a host that polls can
// give up, and sound programs bring no report.

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>
#include <mpi.h>
#include <nccl.h>

#include <chrono>
#include <numeric>
#include <vector>

#include "tests/cuda_emulation/include/cuda_emu/control.h"
#include "tests/cuda_emulation/selftest/device_buffer.h"
#include "tests/cuda_emulation/selftest/nccl_ranks.h"

namespace cuda_emu_selftest {
namespace {

class NcclTest : public testing::Test {
 protected:
  NcclTest() : rank_(MpiRank()), size_(MpiSize()), comm_(MakeCommunicator()) {
    Must(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  }
  ~NcclTest() override {
    if (comm_ != nullptr) Must(ncclCommDestroy(comm_));
    Must(cudaStreamDestroy(stream_));
    EXPECT_EQ(cuda_emu::ErrorCount(), 0) << cuda_emu::LastMessage();
  }

  // Rows that rank `from` sends to rank `to` in round `round`; some none.
  static int Rows(int from, int to, int round) {
    return (from * 7 + to * 13 + round * 5) % 6;
  }
  static float Value(int from, int to, int i) {
    return static_cast<float>(from * 1000 + to * 100 + i);
  }

  // x [count] of this rank, by `value`, through `call`, [out] back.
  template <class Call>
  std::vector<float> Run(const std::vector<float>& in, size_t out, Call call) {
    const DeviceBuffer<float> send(in);
    const DeviceBuffer<float> receive(std::vector<float>(out, -1.0f));
    Must(cudaStreamSynchronize(nullptr));
    Must(call(send.data(), receive.data()));
    Must(cudaStreamSynchronize(stream_));
    return receive.ToHost();
  }

  int rank_;
  int size_;
  ncclComm_t comm_;
  cudaStream_t stream_ = nullptr;
};

TEST_F(NcclTest, AllToAllVByGroups) {
  for (int round = 0; round < 3; ++round) {
    std::vector<float> sent;
    std::vector<float> expected;
    for (int p = 0; p < size_; ++p) {
      for (int i = 0; i < Rows(rank_, p, round); ++i) {
        sent.push_back(Value(rank_, p, i));
      }
      for (int i = 0; i < Rows(p, rank_, round); ++i) {
        expected.push_back(Value(p, rank_, i));
      }
    }
    const size_t received = expected.size();
    sent.push_back(0);  // device buffers are never empty
    std::vector<float> got = Run(sent, received + 1, [&](float* s, float* r) {
      Must(ncclGroupStart());
      for (int p = 0; p < size_; ++p) {
        Must(
            ncclSend(s, Rows(rank_, p, round), ncclFloat32, p, comm_, stream_));
        Must(
            ncclRecv(r, Rows(p, rank_, round), ncclFloat32, p, comm_, stream_));
        s += Rows(rank_, p, round);
        r += Rows(p, rank_, round);
      }
      return ncclGroupEnd();
    });
    got.pop_back();
    EXPECT_EQ(got, expected);
  }
}

TEST_F(NcclTest, AllReduceSums) {
  const std::vector<float> in{static_cast<float>(rank_), 1.0f, 2.0f};
  const float n = static_cast<float>(size_);
  EXPECT_EQ(Run(in, 3,
                [&](float* s, float* r) {
                  return ncclAllReduce(s, r, 3, ncclFloat32, ncclSum, comm_,
                                       stream_);
                }),
            (std::vector<float>{n * (n - 1) / 2, n, 2 * n}));
}

TEST_F(NcclTest, AllGatherConcatenates) {
  std::vector<float> expected;
  for (int r = 0; r < size_; ++r) {
    expected.push_back(Value(r, 0, 0));
    expected.push_back(Value(r, 0, 1));
  }
  EXPECT_EQ(Run({Value(rank_, 0, 0), Value(rank_, 0, 1)}, expected.size(),
                [&](float* s, float* r) {
                  return ncclAllGather(s, r, 2, ncclFloat32, comm_, stream_);
                }),
            expected);
}

TEST_F(NcclTest, ReduceScatterSumsAndSplits) {
  std::vector<float> in;
  for (int r = 0; r < size_; ++r) in.push_back(Value(0, r, rank_));
  const float n = static_cast<float>(size_);
  EXPECT_EQ(Run(in, 1,
                [&](float* s, float* r) {
                  return ncclReduceScatter(s, r, 1, ncclFloat32, ncclSum, comm_,
                                           stream_);
                }),
            (std::vector<float>{n * Value(0, rank_, 0) + n * (n - 1) / 2}));
}

TEST_F(NcclTest, BroadcastFromTheLastRank) {
  const int root = size_ - 1;
  EXPECT_EQ(Run({Value(rank_, 1, 2)}, 1,
                [&](float* s, float* r) {
                  return ncclBroadcast(s, r, 1, ncclFloat32, root, comm_,
                                       stream_);
                }),
            (std::vector<float>{Value(root, 1, 2)}));
}

// The host waits in MPI while the stream's exchange is not yet waited for.
TEST_F(NcclTest, ExchangeGoesOnWhileTheHostIsInMpi) {
  const DeviceBuffer<float> x(std::vector<float>{1.0f});
  Must(ncclAllReduce(x.data(), x.data(), 1, ncclFloat32, ncclSum, comm_,
                     stream_));
  if (rank_ == 0) Must(cudaStreamSynchronize(stream_));
  MPI_Barrier(MPI_COMM_WORLD);
  Must(cudaStreamSynchronize(stream_));
  EXPECT_EQ(x.ToHost()[0], static_cast<float>(size_));
}

TEST_F(NcclTest, CommunicationStreamIsOrderedByEvents) {
  cudaStream_t compute;
  cudaEvent_t ready;
  Must(cudaStreamCreateWithFlags(&compute, cudaStreamNonBlocking));
  Must(cudaEventCreateWithFlags(&ready, cudaEventDisableTiming));
  const DeviceBuffer<uint8_t> x(std::vector<uint8_t>(8, 0));
  Must(cudaMemsetAsync(x.data(), 1, 8, compute));
  Must(cudaEventRecord(ready, compute));
  Must(cudaStreamWaitEvent(stream_, ready, 0));
  Must(
      ncclAllReduce(x.data(), x.data(), 8, ncclUint8, ncclSum, comm_, stream_));
  Must(cudaStreamSynchronize(stream_));
  EXPECT_EQ(x.ToHost(), std::vector<uint8_t>(8, static_cast<uint8_t>(size_)));
  Must(cudaEventDestroy(ready));
  Must(cudaStreamDestroy(compute));
}

TEST_F(NcclTest, NonBlockingInitIsPolled) {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  ncclComm_t comm = nullptr;
  const ncclUniqueId id = SharedId();
  EXPECT_EQ(ncclCommInitRankConfig(&comm, size_, id, rank_, &config),
            ncclInProgress);
  ncclResult_t state = ncclInProgress;
  while (state == ncclInProgress) Must(ncclCommGetAsyncError(comm, &state));
  EXPECT_EQ(state, ncclSuccess);
  Must(ncclCommDestroy(comm));
}

// Nobody sends: the host's own deadline passes, and abort ends the wait.
TEST_F(NcclTest, AbortEndsAReceiveThatNobodyServes) {
  if (size_ == 1) return;
  const DeviceBuffer<float> x(4);
  if (rank_ == 0) {
    Must(ncclRecv(x.data(), 4, ncclFloat32, 1, comm_, stream_));
    const auto deadline =
        std::chrono::steady_clock::now() + std::chrono::milliseconds(200);
    bool late = false;
    while (!late && cudaStreamQuery(stream_) == cudaErrorNotReady) {
      late = std::chrono::steady_clock::now() > deadline;
    }
    EXPECT_TRUE(late);
  }
  Must(ncclCommAbort(comm_));
  comm_ = nullptr;
  EXPECT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  MPI_Barrier(MPI_COMM_WORLD);
}

}  // namespace
}  // namespace cuda_emu_selftest

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  testing::InitGoogleTest(&argc, argv);
  int failed = RUN_ALL_TESTS();
  MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Finalize();
  return failed;
}
