// The CUDA backend: attention split as its plan likes, or (way 2) into single
// spans, or (way 3) never.
#include <cstdlib>

#include "kernels/cuda/cuda_backend.h"
#include "tests/kernels/backend_cases.h"

namespace octet::test {

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
  const char* thinned = std::getenv("OCTET_TEST_THINNED");
  if (thinned != nullptr) cuda.thinned_shapes = std::atoi(thinned);
  cuda.thinned_repeats = 6 * cuda.thinned_shapes;
  return {cuda};
}

}  // namespace octet::test
