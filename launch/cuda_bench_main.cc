// octet-cuda-bench: octet bench kernels for GPUs. A program of its own, so that
// octet runs on hosts without CUDA's libraries.
#include "kernels/cuda/cuda_backend.h"
#include "launch/command.h"
#include "launch/kernel_bench_command.h"

namespace {

absl::Status Run(const octet::Args& args) {
  return octet::RunKernelBench(
      args, [] { return octet::NewCudaBackend(octet::CudaBackendOptions()); });
}

constexpr octet::Command kCommands[] = {
    {"kernels", "what octet bench kernels --device cuda becomes", Run},
};

}  // namespace

int main(int argc, char** argv) {
  octet::Args args(argv, argv + argc);
  args[0] = kCommands[0].name;
  return octet::RunProgram(kCommands, args);
}
