#include "kernels/cpu/embedding_backward.h"

#include <algorithm>

#include "base/status_macros.h"

namespace octet::cpu {
namespace {

constexpr int64_t kColumnPiece = 256;

}  // namespace

absl::Status EmbeddingBackward(CpuContext& context, ConstTensor dx,
                               ConstTensor ids, Tensor dtable) {
  OCTET_RETURN_IF_ERROR(
      CheckIndices("EmbeddingBackward", "ids", ids, dtable.dim(0)));
  const int64_t num_rows = dx.dim(0);
  const int64_t hidden = dx.dim(1);
  const int32_t* id = ids.as<int32_t>();
  context.ForRows((hidden + kColumnPiece - 1) / kColumnPiece,
                  3 * num_rows * kColumnPiece * sizeof(float),
                  [&](int64_t begin, int64_t end) {
                    const int64_t first = begin * kColumnPiece;
                    const int64_t last = std::min(hidden, end * kColumnPiece);
                    for (int64_t t = 0; t < num_rows; ++t) {
                      context.training_kernels().add_scaled(
                          dx.as<float>() + t * hidden + first, 1.0f,
                          last - first,
                          dtable.as<float>() + id[t] * hidden + first);
                    }
                  });
  return absl::OkStatus();
}

}  // namespace octet::cpu
