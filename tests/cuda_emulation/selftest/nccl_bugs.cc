// One wrong NCCL program per argument. Each must end with a report that names
// the rank and what is wrong; the expressions are in CMakeLists.txt.

#include <cuda_runtime_api.h>
#include <mpi.h>
#include <nccl.h>

#include <cstdio>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tests/cuda_emulation/include/cuda_emu/control.h"
#include "tests/cuda_emulation/selftest/device_buffer.h"
#include "tests/cuda_emulation/selftest/nccl_ranks.h"

namespace cuda_emu_selftest {
namespace {

constexpr int kCount = 8;

struct Job {
  int rank = MpiRank();
  int size = MpiSize();
  ncclComm_t comm = MakeCommunicator();
  cudaStream_t stream = nullptr;
  DeviceBuffer<float> x{std::vector<float>(64, 1.0f)};
  DeviceBuffer<float> y{64};

  int next() const { return (rank + 1) % size; }
  int previous() const { return (rank + size - 1) % size; }
  void Wait() { (void)cudaStreamSynchronize(stream); }
};

void Ring(Job& job, int send_count, int receive_count, ncclDataType_t type) {
  (void)ncclGroupStart();
  (void)ncclSend(job.x.data(), send_count, type, job.next(), job.comm,
                 job.stream);
  (void)ncclRecv(job.y.data(), receive_count, type, job.previous(), job.comm,
                 job.stream);
  (void)ncclGroupEnd();
  job.Wait();
}

void WrongCount(Job& job) {
  Ring(job, kCount, job.rank == 1 ? kCount + 1 : kCount, ncclFloat32);
}

void WrongType(Job& job) {
  Ring(job, kCount, kCount, job.rank == 1 ? ncclInt32 : ncclFloat32);
}

void LostSend(Job& job) {
  if (job.rank == 0) {
    (void)ncclRecv(job.y.data(), kCount, ncclFloat32, job.previous(), job.comm,
                   job.stream);
    job.Wait();
  } else {
    Ring(job, job.rank == job.size - 1 ? 0 : kCount, job.rank == 1 ? 0 : kCount,
         ncclFloat32);
  }
}

// A ring of sends before receives, not in a group: every send waits.
void NoGroup(Job& job) {
  (void)ncclSend(job.x.data(), kCount, ncclFloat32, job.next(), job.comm,
                 job.stream);
  (void)ncclRecv(job.y.data(), kCount, ncclFloat32, job.previous(), job.comm,
                 job.stream);
  job.Wait();
}

void WrongOrder(Job& job) {
  if (job.rank == 1) {
    (void)ncclAllGather(job.x.data(), job.y.data(), kCount, ncclFloat32,
                        job.comm, job.stream);
  } else {
    (void)ncclAllReduce(job.x.data(), job.y.data(), kCount, ncclFloat32,
                        ncclSum, job.comm, job.stream);
  }
  job.Wait();
}

void WrongRoot(Job& job) {
  (void)ncclBroadcast(job.x.data(), job.y.data(), kCount, ncclFloat32,
                      job.rank == 1 ? 1 : 0, job.comm, job.stream);
  job.Wait();
}

void Skipped(Job& job) {
  if (job.rank != 1) {
    (void)ncclAllReduce(job.x.data(), job.y.data(), kCount, ncclFloat32,
                        ncclSum, job.comm, job.stream);
    job.Wait();
  } else {
    MPI_Barrier(MPI_COMM_WORLD);  // waits where the others never come
  }
}

void HostBuffer(Job& job) {
  static float host[kCount];
  (void)ncclAllReduce(host, host, kCount, ncclFloat32, ncclSum, job.comm,
                      job.stream);
}

void BufferTooShort(Job& job) {
  (void)ncclAllGather(job.x.data(), job.y.data(), 64, ncclFloat32, job.comm,
                      job.stream);
}

void BadPeer(Job& job) {
  (void)ncclSend(job.x.data(), kCount, ncclFloat32, job.size, job.comm,
                 job.stream);
}

void UseAfterDestroy(Job& job) {
  Must(ncclCommDestroy(job.comm));
  (void)ncclAllReduce(job.x.data(), job.y.data(), kCount, ncclFloat32, ncclSum,
                      job.comm, job.stream);
}

void TwoRanksOfOneNumber(Job& job) {
  ncclComm_t comm;
  (void)ncclCommInitRank(&comm, job.size, SharedId(), 0);
}

// Only the checked build knows: the exchange reads what another stream writes.
void MissingEvent(Job& job) {
  cudaStream_t compute;
  Must(cudaStreamCreateWithFlags(&compute, cudaStreamNonBlocking));
  Must(cudaStreamCreateWithFlags(&job.stream, cudaStreamNonBlocking));
  Must(cudaDeviceSynchronize());
  Must(cudaMemsetAsync(job.x.data(), 0, 64 * sizeof(float), compute));
  (void)ncclAllReduce(job.x.data(), job.y.data(), kCount, ncclFloat32, ncclSum,
                      job.comm, job.stream);
  job.Wait();
  Must(cudaStreamSynchronize(compute));
}

// With CUDA_EMU_NCCL_ERRORS=async: the host polls, sees the communicator's
// error, aborts, and the job ends in order.
void PolledMismatch(Job& job) {
  (void)ncclGroupStart();
  (void)ncclSend(job.x.data(), kCount, ncclFloat32, job.next(), job.comm,
                 job.stream);
  (void)ncclRecv(job.y.data(), job.rank == 1 ? kCount + 1 : kCount, ncclFloat32,
                 job.previous(), job.comm, job.stream);
  (void)ncclGroupEnd();
  ncclResult_t error = ncclSuccess;
  while (error == ncclSuccess &&
         cudaStreamQuery(job.stream) == cudaErrorNotReady) {
    Must(ncclCommGetAsyncError(job.comm, &error));
  }
  if (error != ncclSuccess) {
    std::printf("rank %d gives up: %s\n", job.rank, ncclGetLastError(job.comm));
    std::fflush(stdout);
  }
  Must(ncclCommAbort(job.comm));
  (void)cudaStreamSynchronize(job.stream);
}

int Run(const std::string& name) {
  const std::map<std::string, std::function<void(Job&)>> bugs{
      {"wrong_count", WrongCount},
      {"wrong_type", WrongType},
      {"lost_send", LostSend},
      {"no_group", NoGroup},
      {"wrong_order", WrongOrder},
      {"wrong_root", WrongRoot},
      {"skipped", Skipped},
      {"host_buffer", HostBuffer},
      {"buffer_too_short", BufferTooShort},
      {"bad_peer", BadPeer},
      {"use_after_destroy", UseAfterDestroy},
      {"two_ranks_of_one_number", TwoRanksOfOneNumber},
      {"missing_event", MissingEvent},
      {"polled_mismatch", PolledMismatch},
  };
  const auto bug = bugs.find(name);
  if (bug == bugs.end()) {
    std::printf("no bug is called '%s'\n", name.c_str());
    return 2;
  }
  Job job;
  bug->second(job);
  return 0;
}

}  // namespace
}  // namespace cuda_emu_selftest

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  const int result = cuda_emu_selftest::Run(argc > 1 ? argv[1] : "");
  // Nobody is in MPI_Finalize when another rank aborts: Open MPI 4.1's mpirun
  // sometimes hangs then.
  MPI_Barrier(MPI_COMM_WORLD);
  MPI_Finalize();
  return result;
}
