#include "kernels/cpu/cross_entropy.h"

#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cpu/elements.h"

namespace octet::cpu {
namespace {

absl::Status CheckTargets(ConstTensor targets, int64_t vocab) {
  for (int64_t i = 0; i < targets.dim(0); ++i) {
    const int32_t target = targets.as<int32_t>()[i];
    if (target < -1 || target >= vocab) {
      return absl::InvalidArgumentError(
          absl::StrCat("CrossEntropy: targets[", i, "] is ", target,
                       ", expected -1 (none) to ", vocab - 1));
    }
  }
  return absl::OkStatus();
}

// One row; `gradient` has no data where it is not wanted. Returns the loss.
float CrossEntropyRow(const CpuContext& context, const float* logits,
                      int64_t vocab, int32_t target, float scale,
                      Elements gradient) {
  bool has_nan = false;
  const float max = context.kernels().max(logits, vocab, &has_nan);
  const double log_sum =
      std::log(context.training_kernels().sum_exp(logits, vocab, max));
  const double distance = static_cast<double>(max) - logits[target];
  if (gradient.data != nullptr) {
    // The gradient may lie where the logits do.
    context.training_kernels().softmax(
        logits, vocab, max, static_cast<float>(log_sum), scale, gradient);
    const float of_target =
        static_cast<float>(scale * (std::exp(-distance - log_sum) - 1.0));
    if (gradient.bf16) {
      static_cast<BF16*>(gradient.data)[target] = ToBF16(of_target);
    } else {
      static_cast<float*>(gradient.data)[target] = of_target;
    }
  }
  return static_cast<float>(distance + log_sum);
}

}  // namespace

absl::Status CrossEntropy(CpuContext& context, ConstTensor logits,
                          ConstTensor targets, ConstTensor scales,
                          Tensor losses, Tensor dlogits) {
  const int64_t vocab = logits.dim(1);
  OCTET_RETURN_IF_ERROR(CheckTargets(targets, vocab));
  const bool wanted = dlogits.data() != nullptr;
  context.ForRows(
      logits.dim(0), 2 * vocab * sizeof(float),
      [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int32_t target = targets.as<int32_t>()[i];
          const Elements gradient = wanted ? ElementsAt(dlogits, i * vocab)
                                           : Elements{nullptr, false};
          float loss = 0.0f;
          if (target >= 0) {
            loss =
                CrossEntropyRow(context, logits.as<float>() + i * vocab, vocab,
                                target, scales.as<float>()[i], gradient);
          } else if (wanted) {
            std::memset(gradient.data, 0, vocab * SizeOf(dlogits.dtype()));
          }
          losses.as<float>()[i] = loss;
        }
      });
  return absl::OkStatus();
}

}  // namespace octet::cpu
