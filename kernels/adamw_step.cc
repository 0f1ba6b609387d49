#include "kernels/adamw_step.h"

#include <cmath>

#include "kernels/training_backend.h"

namespace octet {

AdamWStep MakeAdamWStep(const AdamWParams& params) {
  const double step = static_cast<double>(params.step);
  const double unbias1 =
      1.0 - std::pow(static_cast<double>(params.beta1), step);
  const double unbias2 =
      1.0 - std::pow(static_cast<double>(params.beta2), step);
  AdamWStep result;
  result.grad_scale = params.grad_scale;
  result.beta1 = params.beta1;
  result.rest1 = 1.0f - params.beta1;
  result.beta2 = params.beta2;
  result.rest2 = 1.0f - params.beta2;
  result.decay = static_cast<float>(
      1.0 - static_cast<double>(params.learning_rate) * params.weight_decay);
  result.rate = static_cast<float>(params.learning_rate / unbias1);
  result.correction = static_cast<float>(1.0 / std::sqrt(unbias2));
  result.eps = params.eps;
  return result;
}

}  // namespace octet
