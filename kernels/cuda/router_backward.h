// RouterBackward, RouterProbabilities and RouterLossBackward of
// kernels/training_backend.h on the GPU.
//
// One thread a row, experts in rising order: E is small, and the rows are few
// bytes beside those of the products. Bits: of each row alone.
//
// All calls are asynchronous and return the error of the launch.
#ifndef OCTET_KERNELS_CUDA_ROUTER_BACKWARD_H_
#define OCTET_KERNELS_CUDA_ROUTER_BACKWARD_H_

#include <cuda_runtime.h>

#include <cstdint>

namespace octet::cuda {

struct RouterBackwardArgs {
  const int32_t* topk_ids = nullptr;    // [T, K]
  const float* topk_weights = nullptr;  // [T, K]
  const float* dweights = nullptr;      // [T, K]
  float* dlogits = nullptr;             // [T, E]
  int64_t num_rows = 0;                 // T
  int64_t top_k = 0;                    // K
  int64_t num_experts = 0;              // E
};
cudaError_t LaunchRouterBackward(const RouterBackwardArgs& args,
                                 cudaStream_t stream);

// logits, probabilities [T, E]; log_sums [T].
cudaError_t LaunchRouterProbabilities(const float* logits, float* probabilities,
                                      float* log_sums, int64_t num_rows,
                                      int64_t num_experts, cudaStream_t stream);

// logits, dlogits [T, E]; coef [E].
cudaError_t LaunchRouterLossBackward(const float* logits, const float* coef,
                                     float z_coef, float* dlogits,
                                     int64_t num_rows, int64_t num_experts,
                                     cudaStream_t stream);

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_ROUTER_BACKWARD_H_
