// D = alpha op(A) op(B) + beta C, as reference loops with checks, for the
// cuBLAS and cuBLASLt calls. f32, bf16 or f16 matrices, f32 sums.
#ifndef CUDA_EMU_BLAS_GEMM_H_
#define CUDA_EMU_BLAS_GEMM_H_

#include <library_types.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace cuda_emu {

// A matrix [rows, cols] in device memory; `ld` elements from one column to the
// next (of a row-major one: from one row to the next).
struct Matrix {
  const char* data = nullptr;
  cudaDataType type = CUDA_R_32F;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t ld = 0;
  bool row_major = false;
  int64_t batch_stride = 0;  // elements
};

struct Gemm {
  Matrix a;
  Matrix b;
  Matrix c;  // read when beta != 0
  Matrix d;
  bool transpose_a = false;
  bool transpose_b = false;
  float alpha = 1.0f;
  float beta = 0.0f;
  int64_t batches = 1;
  // Parts that the sum over k is cut into: like a real library's choice of
  // algorithm, it changes the last bits.
  int splits = 1;
};

bool IsGemmType(cudaDataType type);
size_t GemmTypeBytes(cudaDataType type);

// What is wrong with it in one sentence; "" when nothing is.
std::string CheckGemm(const Gemm& gemm);

// On device memory, as stream operation `operation`.
void RunGemm(const Gemm& gemm, uint32_t operation);

// The splits that a heuristic would choose for a product of this shape.
int HeuristicSplits(int64_t m, int64_t n);

}  // namespace cuda_emu

#endif  // CUDA_EMU_BLAS_GEMM_H_
