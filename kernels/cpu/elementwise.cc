#include "kernels/cpu/elementwise.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/cpu/elements.h"

namespace octet::cpu {
namespace {

// Elements of one piece of work: whole vectors.
constexpr int64_t kPiece = 4096;

}  // namespace

void Cast(CpuContext& context, ConstTensor x, Tensor out) {
  const int64_t n = x.num_elements();
  context.ForRows(
      (n + kPiece - 1) / kPiece, kPiece * (x.num_bytes() + out.num_bytes()) / n,
      [&](int64_t begin, int64_t end) {
        const int64_t first = begin * kPiece;
        const int64_t count = std::min(n, end * kPiece) - first;
        const ConstElements from = ElementsAt(x, first);
        const Elements to = ElementsAt(out, first);
        if (x.dtype() == out.dtype()) {
          std::memmove(to.data, from.data, count * SizeOf(x.dtype()));
        } else if (to.bf16) {
          context.kernels().to_bf16(static_cast<const float*>(from.data), count,
                                    static_cast<uint16_t*>(to.data));
        } else {
          context.kernels().from_bf16(static_cast<const uint16_t*>(from.data),
                                      count, static_cast<float*>(to.data));
        }
      });
}

void AddScaled(CpuContext& context, ConstTensor x, float scale, Tensor out) {
  const int64_t n = x.num_elements();
  context.ForRows((n + kPiece - 1) / kPiece, kPiece * 3 * sizeof(float),
                  [&](int64_t begin, int64_t end) {
                    const int64_t first = begin * kPiece;
                    context.training_kernels().add_scaled(
                        x.as<float>() + first, scale,
                        std::min(n, end * kPiece) - first,
                        out.as<float>() + first);
                  });
}

void CopyBlock(CpuContext& context, ConstTensor src, MatrixBlock src_at,
               Tensor dst, MatrixBlock dst_at, int64_t num_rows,
               int64_t num_cols, bool accumulate) {
  context.ForRows(
      num_rows, num_cols * 2 * sizeof(float), [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          const float* from =
              src.as<float>() + (src_at.row + r) * src.dim(1) + src_at.col;
          float* to =
              dst.as<float>() + (dst_at.row + r) * dst.dim(1) + dst_at.col;
          if (accumulate) {
            context.training_kernels().add_scaled(from, 1.0f, num_cols, to);
          } else {
            std::copy_n(from, num_cols, to);
          }
        }
      });
}

void ScaleRows(CpuContext& context, ConstTensor x, ConstTensor scales,
               Tensor out) {
  const int64_t n = x.dim(1);
  context.ForRows(x.dim(0), n * 2 * sizeof(float),
                  [&](int64_t begin, int64_t end) {
                    for (int64_t i = begin; i < end; ++i) {
                      context.training_kernels().scale(ElementsAt(x, i * n),
                                                       scales.as<float>()[i], n,
                                                       ElementsAt(out, i * n));
                    }
                  });
}

void Dropout(CpuContext& context, ConstTensor x, ConstTensor row_keys,
             uint64_t seed, float p, bool accumulate, Tensor out) {
  const int64_t n = x.dim(1);
  DropoutRow row;
  row.seed = seed;
  // word 2^-32 >= p for the words from here on; exact, and p < 1 keeps it below
  // 2^32.
  row.threshold =
      static_cast<uint32_t>(std::ceil(static_cast<double>(p) * 0x1p32));
  row.factor = 1.0f / (1.0f - p);
  // Drawing the numbers takes longer than moving the elements.
  context.ForRows(
      x.dim(0), n * 4 * sizeof(float), [&](int64_t begin, int64_t end) {
        for (int64_t t = begin; t < end; ++t) {
          DropoutRow keyed = row;
          keyed.row_key = static_cast<uint64_t>(row_keys.as<int64_t>()[t]);
          context.training_kernels().dropout(keyed, ElementsAt(x, t * n), n,
                                             accumulate,
                                             ElementsAt(out, t * n));
        }
      });
}

}  // namespace octet::cpu
