// The CUDA backend: attention split as its plan likes, or (way 2) into single
// spans, or (way 3) never.
#include <cstdlib>

#include "kernels/cuda/cuda_backend.h"
#include "tests/kernels/backend_cases.h"

namespace octet::test {
namespace {

int FromEnvironment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? 1 : std::atoi(value);
}

}  // namespace

std::vector<BackendCase> BackendCases() {
  BackendCase cuda;
  cuda.name = "cuda";
  cuda.make = [](int way) {
    CudaBackendOptions options;
    options.attention_blocks = way == 2 ? 1 << 20 : way == 3 ? 1 : 0;
    return NewCudaBackend(options);
  };
  cuda.checks_indices = false;
  // 2^-9 of p, and of q times scores of up to some 20.
  cuda.attention_bf16_error = 2e-2;
  cuda.poisons_memory = true;
  cuda.smaller_shapes = FromEnvironment("OCTET_TEST_SMALLER");
  cuda.thinned_repeats = FromEnvironment("OCTET_TEST_THINNED");
  return {cuda};
}

}  // namespace octet::test
