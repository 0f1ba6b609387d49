#include "kernels/cpu/elementwise.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "kernels/cpu/float_rows.h"
#include "kernels/philox.h"

namespace octet::cpu {
namespace {

// Elements that are worked on at once: they stay in the first-level cache.
constexpr int64_t kChunk = 1024;

// Calls body(begin, end) for chunks of [0, n), on the pool.
template <typename Body>
void ForChunks(CpuContext& context, int64_t n, int64_t element_bytes,
               Body body) {
  context.ForRows((n + kChunk - 1) / kChunk, kChunk * element_bytes,
                  [&](int64_t begin, int64_t end) {
                    for (int64_t c = begin; c < end; ++c) {
                      body(c * kChunk, std::min(n, (c + 1) * kChunk));
                    }
                  });
}

}  // namespace

void Cast(CpuContext& context, ConstTensor x, Tensor out) {
  const VectorKernels& kernels = context.kernels();
  ForChunks(context, x.num_elements(), 8, [&](int64_t begin, int64_t end) {
    float buffer[kChunk];
    const int64_t n = end - begin;
    WriteFloats(kernels, ReadFloats(kernels, x, begin, n, buffer), n, out,
                begin);
  });
}

void AddScaled(CpuContext& context, ConstTensor x, float scale, Tensor out) {
  const float* from = x.as<float>();
  float* to = out.as<float>();
  ForChunks(context, x.num_elements(), 12, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      to[i] = std::fma(scale, from[i], to[i]);
    }
  });
}

void CopyBlock(CpuContext& context, ConstTensor src, MatrixBlock src_at,
               Tensor dst, MatrixBlock dst_at, int64_t num_rows,
               int64_t num_cols, bool accumulate) {
  context.ForRows(
      num_rows, num_cols * 3 * sizeof(float), [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          const float* from =
              src.as<float>() + (src_at.row + r) * src.dim(1) + src_at.col;
          float* to =
              dst.as<float>() + (dst_at.row + r) * dst.dim(1) + dst_at.col;
          if (accumulate) {
            for (int64_t c = 0; c < num_cols; ++c) to[c] += from[c];
          } else {
            std::copy_n(from, num_cols, to);
          }
        }
      });
}

void ScaleRows(CpuContext& context, ConstTensor x, ConstTensor scales,
               Tensor out) {
  const VectorKernels& kernels = context.kernels();
  const int64_t n = x.dim(1);
  context.ForRows(
      x.dim(0), n * 2 * sizeof(float), [&](int64_t begin, int64_t end) {
        std::vector<float> wide(n), y(n);
        for (int64_t i = begin; i < end; ++i) {
          const float* row = ReadFloats(kernels, x, i * n, n, wide.data());
          const float scale = scales.as<float>()[i];
          for (int64_t j = 0; j < n; ++j) y[j] = scale * row[j];
          WriteFloats(kernels, y.data(), n, out, i * n);
        }
      });
}

void Dropout(CpuContext& context, ConstTensor x, ConstTensor row_keys,
             uint64_t seed, float p, bool accumulate, Tensor out) {
  const VectorKernels& kernels = context.kernels();
  const int64_t n = x.dim(1);
  const float factor = 1.0f / (1.0f - p);
  // u 2^-32 >= p, exactly: both sides are doubles without rounding.
  const double threshold = static_cast<double>(p) * 0x1p32;
  const std::array<uint32_t, 2> key = {static_cast<uint32_t>(seed),
                                       static_cast<uint32_t>(seed >> 32)};
  context.ForRows(
      x.dim(0), n * 4 * sizeof(float), [&](int64_t begin, int64_t end) {
        std::vector<float> wide(n), y(n);
        for (int64_t t = begin; t < end; ++t) {
          const float* row = ReadFloats(kernels, x, t * n, n, wide.data());
          const uint64_t row_key = row_keys.as<int64_t>()[t];
          for (int64_t j = 0; j < n; j += 4) {
            const uint64_t block = static_cast<uint64_t>(j) / 4;
            const std::array<uint32_t, 4> words =
                Philox({static_cast<uint32_t>(block),
                        static_cast<uint32_t>(block >> 32),
                        static_cast<uint32_t>(row_key),
                        static_cast<uint32_t>(row_key >> 32)},
                       key);
            for (int64_t i = j; i < std::min(n, j + 4); ++i) {
              y[i] = words[i - j] >= threshold ? row[i] * factor : 0.0f;
            }
          }
          if (accumulate) {
            float* to = out.as<float>() + t * n;
            for (int64_t i = 0; i < n; ++i) to[i] += y[i];
          } else {
            WriteFloats(kernels, y.data(), n, out, t * n);
          }
        }
      });
}

}  // namespace octet::cpu
