// The MPI job that plays the NCCL world. MPI_Init is wrapped (mpi_wrappers.cc)
// to make the communicator that carries the emulation's messages.
#ifndef CUDA_EMU_NCCL_WORLD_H_
#define CUDA_EMU_NCCL_WORLD_H_

#include <mpi.h>

#include <string>

namespace cuda_emu {

struct World {
  MPI_Comm comm = MPI_COMM_NULL;  // null before MPI_Init
  int rank = -1;
  int size = 0;
};

World& GetWorld();

// Prints what is wrong with this rank's name on it.
void PrintNcclProblem(const std::string& message);

// Ends the job with exit code 86, after giving the other ranks time to say what
// they wait for.
[[noreturn]] void AbortJob();

double NowSeconds();

}  // namespace cuda_emu

#endif  // CUDA_EMU_NCCL_WORLD_H_
