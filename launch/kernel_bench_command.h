// octet bench kernels: every operation of a step, what it must move and
// compute, the shortest time for that, and the time measured.
#ifndef OCTET_LAUNCH_KERNEL_BENCH_COMMAND_H_
#define OCTET_LAUNCH_KERNEL_BENCH_COMMAND_H_

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "launch/command.h"

namespace octet {

using NewBackend = std::function<absl::StatusOr<std::unique_ptr<Backend>>()>;

// `args` are what follows "octet bench kernels". A program that links no CUDA
// gives no `new_cuda_backend`; to measure on a GPU it becomes octet-cuda-bench,
// which does.
absl::Status RunKernelBench(const Args& args,
                            const NewBackend& new_cuda_backend);

}  // namespace octet

#endif  // OCTET_LAUNCH_KERNEL_BENCH_COMMAND_H_
