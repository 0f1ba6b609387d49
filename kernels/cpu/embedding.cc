#include "kernels/cpu/embedding.h"

#include <algorithm>

#include "base/status_macros.h"

namespace octet::cpu {

absl::Status Embedding(CpuContext& context, ConstTensor table, ConstTensor ids,
                       Tensor out) {
  OCTET_RETURN_IF_ERROR(CheckIndices("Embedding", "ids", ids, table.dim(0)));
  const int32_t* id = ids.as<int32_t>();
  const int64_t hidden = out.dim(1);
  float* to = out.as<float>();
  context.ForRows(
      ids.dim(0), hidden * sizeof(float), [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
          if (table.dtype() == DType::kF32) {
            std::copy_n(table.as<float>() + id[t] * hidden, hidden,
                        to + t * hidden);
          } else {
            context.kernels().from_bf16(table.as<uint16_t>() + id[t] * hidden,
                                        hidden, to + t * hidden);
          }
        }
      });
  return absl::OkStatus();
}

}  // namespace octet::cpu
