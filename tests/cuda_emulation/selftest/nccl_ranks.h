// One NCCL communicator over all ranks of the MPI job, for tests.
#ifndef CUDA_EMU_SELFTEST_NCCL_RANKS_H_
#define CUDA_EMU_SELFTEST_NCCL_RANKS_H_

#include <mpi.h>
#include <nccl.h>

#include <cstdlib>

namespace cuda_emu_selftest {

inline void Must(ncclResult_t result) {
  if (result != ncclSuccess) std::abort();
}

inline int MpiRank() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

inline int MpiSize() {
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

inline ncclUniqueId SharedId() {
  ncclUniqueId id{};
  if (MpiRank() == 0) Must(ncclGetUniqueId(&id));
  MPI_Bcast(&id, sizeof(id), MPI_BYTE, 0, MPI_COMM_WORLD);
  return id;
}

inline ncclComm_t MakeCommunicator() {
  ncclComm_t comm = nullptr;
  Must(ncclCommInitRank(&comm, MpiSize(), SharedId(), MpiRank()));
  return comm;
}

}  // namespace cuda_emu_selftest

#endif  // CUDA_EMU_SELFTEST_NCCL_RANKS_H_
