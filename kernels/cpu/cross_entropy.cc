#include "kernels/cpu/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cpu/float_rows.h"

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

}  // namespace

absl::Status CrossEntropy(CpuContext& context, ConstTensor logits,
                          ConstTensor targets, ConstTensor scales,
                          Tensor losses, Tensor dlogits) {
  const int64_t vocab = logits.dim(1);
  OCTET_RETURN_IF_ERROR(CheckTargets(targets, vocab));
  const VectorKernels& kernels = context.kernels();
  const bool wanted = dlogits.data() != nullptr;
  context.ForRows(
      logits.dim(0), 4 * vocab * sizeof(float),
      [&](int64_t begin, int64_t end) {
        std::vector<float> gradient(wanted ? vocab : 0);
        for (int64_t i = begin; i < end; ++i) {
          const float* row = logits.as<float>() + i * vocab;
          const int32_t target = targets.as<int32_t>()[i];
          float* loss = losses.as<float>() + i;
          if (target < 0) {
            *loss = 0.0f;
            std::fill(gradient.begin(), gradient.end(), 0.0f);
          } else {
            bool has_nan = false;
            const float max = kernels.max(row, vocab, &has_nan);
            const double log_sum = std::log(kernels.sum_exp(row, vocab, max));
            *loss = static_cast<float>(
                (static_cast<double>(max) - row[target]) + log_sum);
            const float scale = scales.as<float>()[i];
            const float shift = static_cast<float>(log_sum);
            for (size_t j = 0; j < gradient.size(); ++j) {
              gradient[j] = (row[j] - max) - shift;
            }
            kernels.exp(gradient.data(), gradient.size());
            if (wanted) gradient[target] -= 1.0f;
            for (float& value : gradient) value *= scale;
          }
          if (wanted) {
            WriteFloats(kernels, gradient.data(), vocab, dlogits, i * vocab);
          }
        }
      });
  return absl::OkStatus();
}

}  // namespace octet::cpu
