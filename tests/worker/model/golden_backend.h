// The backend that the gradient tests run on: a program links one definition.
#ifndef OCTET_TESTS_WORKER_MODEL_GOLDEN_BACKEND_H_
#define OCTET_TESTS_WORKER_MODEL_GOLDEN_BACKEND_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace octet::test {

absl::StatusOr<std::unique_ptr<Backend>> NewGoldenBackend();

// Numbers of ranks, which are threads that exchange host memory.
std::vector<int> GoldenRanks();

}  // namespace octet::test

#endif  // OCTET_TESTS_WORKER_MODEL_GOLDEN_BACKEND_H_
