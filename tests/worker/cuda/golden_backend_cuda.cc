#include "kernels/cuda/cuda_backend.h"
#include "tests/worker/model/golden_backend.h"

namespace octet::test {

absl::StatusOr<std::unique_ptr<Backend>> NewGoldenBackend() {
  return NewCudaBackend({.training = true});
}

// Device memory is not for host threads to exchange.
std::vector<int> GoldenRanks() { return {1}; }

}  // namespace octet::test
