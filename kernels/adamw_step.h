// What every element of one AdamW step shares, for all backends. Plain numbers:
// device code includes this.
#ifndef OCTET_KERNELS_ADAMW_STEP_H_
#define OCTET_KERNELS_ADAMW_STEP_H_

namespace octet {

struct AdamWParams;  // kernels/training_backend.h

// AdamWParams with what does not depend on the element worked out in double.
struct AdamWStep {
  float grad_scale = 1.0f;
  float beta1 = 0.0f;
  float rest1 = 1.0f;  // 1 - beta1
  float beta2 = 0.0f;
  float rest2 = 1.0f;       // 1 - beta2
  float decay = 1.0f;       // 1 - learning_rate weight_decay
  float rate = 0.0f;        // learning_rate / (1 - beta1^step)
  float correction = 1.0f;  // 1 / sqrt(1 - beta2^step)
  float eps = 0.0f;
};

AdamWStep MakeAdamWStep(const AdamWParams& params);

}  // namespace octet

#endif  // OCTET_KERNELS_ADAMW_STEP_H_
