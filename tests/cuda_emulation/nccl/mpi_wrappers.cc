// MPI calls of the program under test, through MPI's profiling interface. A GPU
// goes on while the host is in MPI; here queued NCCL work (and only that, with
// what it needs) must be helped along from inside the calls, or two ranks could
// wait for each other where a real pair would not.

#include <mpi.h>
#include <sched.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>

#include "tests/cuda_emulation/nccl/world.h"
#include "tests/cuda_emulation/runtime/operations.h"

namespace cuda_emu {
namespace {

// When another thread is inside the emulation, that one does the helping.
void Progress() {
  std::unique_lock<std::recursive_mutex> lock(ApiMutex(), std::try_to_lock);
  if (lock.owns_lock()) ProgressCommunication();
}

int Finish(MPI_Request* request, MPI_Status* status) {
  constexpr int kSpins = 20;
  constexpr useconds_t kMicroseconds = 50;
  for (int idle = 0;; ++idle) {
    Progress();
    int done = 0;
    const int error = PMPI_Test(request, &done, status);
    if (error != MPI_SUCCESS || done) return error;
    if (idle < kSpins) {
      sched_yield();
    } else {
      usleep(kMicroseconds);
    }
  }
}

int Finish(int error, MPI_Request* request) {
  return error != MPI_SUCCESS ? error : Finish(request, MPI_STATUS_IGNORE);
}

int MakeWorld() {
  World& world = GetWorld();
  PMPI_Comm_dup(MPI_COMM_WORLD, &world.comm);
  PMPI_Comm_rank(world.comm, &world.rank);
  PMPI_Comm_size(world.comm, &world.size);
  return MPI_SUCCESS;
}

}  // namespace

World& GetWorld() {
  static World world;
  return world;
}

void PrintNcclProblem(const std::string& message) {
  std::fprintf(stderr, "cuda_emu: nccl: world rank %d: %s\n", GetWorld().rank,
               message.c_str());
  std::fflush(stderr);
}

void AbortJob() {
  constexpr int kExitCode = 86;
  constexpr useconds_t kOthersMicroseconds = 500000;
  usleep(kOthersMicroseconds);
  PMPI_Abort(MPI_COMM_WORLD, kExitCode);
  _exit(kExitCode);
}

double NowSeconds() {
  return std::chrono::duration<double>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace cuda_emu

using cuda_emu::Finish;
using cuda_emu::Progress;

extern "C" {

int MPI_Init(int* argc, char*** argv) {
  const int error = PMPI_Init(argc, argv);
  return error != MPI_SUCCESS ? error : cuda_emu::MakeWorld();
}

int MPI_Init_thread(int* argc, char*** argv, int required, int* provided) {
  const int error = PMPI_Init_thread(argc, argv, required, provided);
  return error != MPI_SUCCESS ? error : cuda_emu::MakeWorld();
}

int MPI_Finalize() {
  Progress();
  PMPI_Comm_free(&cuda_emu::GetWorld().comm);
  return PMPI_Finalize();
}

int MPI_Barrier(MPI_Comm comm) {
  MPI_Request request;
  return Finish(PMPI_Ibarrier(comm, &request), &request);
}

int MPI_Bcast(void* buffer, int count, MPI_Datatype type, int root,
              MPI_Comm comm) {
  MPI_Request request;
  return Finish(PMPI_Ibcast(buffer, count, type, root, comm, &request),
                &request);
}

int MPI_Allreduce(const void* send, void* receive, int count, MPI_Datatype type,
                  MPI_Op op, MPI_Comm comm) {
  MPI_Request request;
  return Finish(PMPI_Iallreduce(send, receive, count, type, op, comm, &request),
                &request);
}

int MPI_Allgather(const void* send, int send_count, MPI_Datatype send_type,
                  void* receive, int receive_count, MPI_Datatype receive_type,
                  MPI_Comm comm) {
  MPI_Request request;
  return Finish(PMPI_Iallgather(send, send_count, send_type, receive,
                                receive_count, receive_type, comm, &request),
                &request);
}

int MPI_Alltoall(const void* send, int send_count, MPI_Datatype send_type,
                 void* receive, int receive_count, MPI_Datatype receive_type,
                 MPI_Comm comm) {
  MPI_Request request;
  return Finish(PMPI_Ialltoall(send, send_count, send_type, receive,
                               receive_count, receive_type, comm, &request),
                &request);
}

int MPI_Send(const void* buffer, int count, MPI_Datatype type, int to, int tag,
             MPI_Comm comm) {
  MPI_Request request;
  return Finish(PMPI_Isend(buffer, count, type, to, tag, comm, &request),
                &request);
}

int MPI_Recv(void* buffer, int count, MPI_Datatype type, int from, int tag,
             MPI_Comm comm, MPI_Status* status) {
  MPI_Request request;
  const int error = PMPI_Irecv(buffer, count, type, from, tag, comm, &request);
  return error != MPI_SUCCESS ? error : Finish(&request, status);
}

int MPI_Wait(MPI_Request* request, MPI_Status* status) {
  return Finish(request, status);
}

int MPI_Test(MPI_Request* request, int* done, MPI_Status* status) {
  Progress();
  return PMPI_Test(request, done, status);
}

int MPI_Testall(int count, MPI_Request requests[], int* done,
                MPI_Status statuses[]) {
  Progress();
  return PMPI_Testall(count, requests, done, statuses);
}

int MPI_Testsome(int count, MPI_Request requests[], int* num_done,
                 int indices[], MPI_Status statuses[]) {
  Progress();
  return PMPI_Testsome(count, requests, num_done, indices, statuses);
}

int MPI_Iprobe(int from, int tag, MPI_Comm comm, int* found,
               MPI_Status* status) {
  Progress();
  return PMPI_Iprobe(from, tag, comm, found, status);
}

}  // extern "C"
