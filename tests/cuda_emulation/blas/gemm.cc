#include "tests/cuda_emulation/blas/gemm.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <vector>

#include "tests/cuda_emulation/check/shadow.h"
#include "tests/cuda_emulation/engine/options.h"
#include "tests/cuda_emulation/runtime/memory.h"

namespace cuda_emu {
namespace {

float Load(const char* data, int64_t i, cudaDataType type) {
  switch (type) {
    case CUDA_R_16BF:
      return __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(data)[i]);
    case CUDA_R_16F:
      return __half2float(reinterpret_cast<const __half*>(data)[i]);
    default:
      return reinterpret_cast<const float*>(data)[i];
  }
}

void Store(char* data, int64_t i, cudaDataType type, float value) {
  switch (type) {
    case CUDA_R_16BF:
      reinterpret_cast<__nv_bfloat16*>(data)[i] = __float2bfloat16_rn(value);
      return;
    case CUDA_R_16F:
      reinterpret_cast<__half*>(data)[i] = __float2half_rn(value);
      return;
    default:
      reinterpret_cast<float*>(data)[i] = value;
  }
}

// Lines are columns, of a row-major matrix rows.
int64_t Lines(const Matrix& m) { return m.row_major ? m.rows : m.cols; }
int64_t LineLength(const Matrix& m) { return m.row_major ? m.cols : m.rows; }
int64_t Offset(const Matrix& m, int64_t row, int64_t col) {
  return m.row_major ? row * m.ld + col : col * m.ld + row;
}

const char* BatchData(const Matrix& m, int64_t batch) {
  return m.data +
         batch * m.batch_stride * static_cast<int64_t>(GemmTypeBytes(m.type));
}

void ShadowMatrix(const Matrix& m, int64_t batch, bool write,
                  uint32_t operation) {
  if (!Checking()) return;
  const auto bytes = static_cast<int64_t>(GemmTypeBytes(m.type));
  for (int64_t line = 0; line < Lines(m); ++line) {
    ShadowRange(BatchData(m, batch) + line * m.ld * bytes,
                static_cast<size_t>(LineLength(m) * bytes), write, operation);
  }
}

// op(M) as f32, its [rows, cols] one row after the other.
std::vector<float> Unpack(const Matrix& m, bool transpose, int64_t batch) {
  const int64_t rows = transpose ? m.cols : m.rows;
  const int64_t cols = transpose ? m.rows : m.cols;
  const char* data = BatchData(m, batch);
  std::vector<float> out(static_cast<size_t>(rows * cols));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) {
      const int64_t at = transpose ? Offset(m, c, r) : Offset(m, r, c);
      out[static_cast<size_t>(r * cols + c)] = Load(data, at, m.type);
    }
  }
  return out;
}

float Dot(const float* x, const float* y, int64_t n) {
  constexpr int kLanes = 16;
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) lanes[l] += x[i + l] * y[i + l];
  }
  for (; i < n; ++i) lanes[i % kLanes] += x[i] * y[i];
  float sum = 0.0f;
  for (const float lane : lanes) sum += lane;
  return sum;
}

float SplitDot(const float* x, const float* y, int64_t k, int splits) {
  const int64_t part = (k + splits - 1) / splits;
  float sum = 0.0f;
  for (int64_t begin = 0; begin < k; begin += part) {
    sum += Dot(x + begin, y + begin, std::min(part, k - begin));
  }
  return sum;
}

std::string Shape(int64_t rows, int64_t cols) {
  return "[" + std::to_string(rows) + ", " + std::to_string(cols) + "]";
}

std::string CheckMatrix(const char* name, const Matrix& m, int64_t batches) {
  if (!IsGemmType(m.type)) {
    return std::string(name) + " has data type " + std::to_string(m.type) +
           ", expected f32, bf16 or f16";
  }
  if (m.ld < std::max<int64_t>(1, LineLength(m))) {
    return std::string(name) + " is " + Shape(m.rows, m.cols) +
           (m.row_major ? " row major" : " column major") +
           ", but its leading dimension is " + std::to_string(m.ld);
  }
  if (m.rows == 0 || m.cols == 0) return "";
  const auto bytes = static_cast<int64_t>(GemmTypeBytes(m.type));
  const int64_t elements =
      (batches - 1) * m.batch_stride + (Lines(m) - 1) * m.ld + LineLength(m);
  if (!InsideOneAllocation(m.data, static_cast<size_t>(elements * bytes))) {
    return std::string(name) + " " + Shape(m.rows, m.cols) +
           " is not inside one live device allocation";
  }
  return "";
}

}  // namespace

bool IsGemmType(cudaDataType type) {
  return type == CUDA_R_32F || type == CUDA_R_16BF || type == CUDA_R_16F;
}

size_t GemmTypeBytes(cudaDataType type) { return type == CUDA_R_32F ? 4 : 2; }

std::string CheckGemm(const Gemm& g) {
  const int64_t m = g.transpose_a ? g.a.cols : g.a.rows;
  const int64_t k = g.transpose_a ? g.a.rows : g.a.cols;
  const int64_t kb = g.transpose_b ? g.b.cols : g.b.rows;
  const int64_t n = g.transpose_b ? g.b.rows : g.b.cols;
  if (m < 0 || n < 0 || k < 0) return "a size is negative";
  if (k != kb || g.d.rows != m || g.d.cols != n) {
    return "op(A) " + Shape(m, k) + ", op(B) " + Shape(kb, n) + " and D " +
           Shape(g.d.rows, g.d.cols) + " do not fit";
  }
  std::string problem = CheckMatrix("A", g.a, g.batches);
  if (problem.empty()) problem = CheckMatrix("B", g.b, g.batches);
  if (problem.empty()) problem = CheckMatrix("D", g.d, g.batches);
  if (problem.empty() && g.beta != 0.0f) {
    problem = CheckMatrix("C", g.c, g.batches);
  }
  return problem;
}

int HeuristicSplits(int64_t m, int64_t n) {
  return GetOptions().vary_gemm != 0 ? static_cast<int>(1 + (7 * m + n) % 3)
                                     : 1;
}

void RunGemm(const Gemm& g, uint32_t operation) {
  const int64_t m = g.d.rows;
  const int64_t n = g.d.cols;
  const int64_t k = g.transpose_a ? g.a.rows : g.a.cols;
  for (int64_t batch = 0; batch < g.batches; ++batch) {
    ShadowMatrix(g.a, batch, /*write=*/false, operation);
    ShadowMatrix(g.b, batch, /*write=*/false, operation);
    if (g.beta != 0.0f) ShadowMatrix(g.c, batch, /*write=*/false, operation);
    const std::vector<float> a = Unpack(g.a, g.transpose_a, batch);
    const std::vector<float> b = Unpack(g.b, !g.transpose_b, batch);
    const char* c = BatchData(g.c, batch);
    char* d = const_cast<char*>(BatchData(g.d, batch));
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t i = 0; i < m; ++i) {
        float value =
            g.alpha * SplitDot(a.data() + i * k, b.data() + j * k, k, g.splits);
        if (g.beta != 0.0f) {
          value += g.beta * Load(c, Offset(g.c, i, j), g.c.type);
        }
        Store(d, Offset(g.d, i, j), g.d.type, value);
      }
    }
    ShadowMatrix(g.d, batch, /*write=*/true, operation);
  }
}

}  // namespace cuda_emu
