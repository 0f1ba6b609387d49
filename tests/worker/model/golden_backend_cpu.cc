#include "kernels/cpu/cpu_backend.h"
#include "tests/worker/model/golden_backend.h"

namespace octet::test {

absl::StatusOr<std::unique_ptr<Backend>> NewGoldenBackend() {
  return NewCpuBackend({});
}

std::vector<int> GoldenRanks() { return {1, 3}; }

}  // namespace octet::test
