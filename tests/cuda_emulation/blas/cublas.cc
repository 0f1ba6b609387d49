// The cuBLAS calls that the project makes.

#include <cublas_v2.h>

#include "tests/cuda_emulation/blas/gemm.h"
#include "tests/cuda_emulation/engine/report.h"
#include "tests/cuda_emulation/runtime/operations.h"
#include "tests/cuda_emulation/runtime/stream.h"

struct cublasContext {
  cudaStream_t stream = nullptr;
};

namespace cuda_emu {
namespace {

cublasStatus_t Invalid(const char* function, const std::string& why) {
  Refuse(cudaErrorInvalidValue, "%s: %s", function, why.c_str());
  return CUBLAS_STATUS_INVALID_VALUE;
}

Matrix ColumnMajor(const void* data, cudaDataType type, int64_t rows,
                   int64_t cols, int64_t ld, long long stride) {
  return {static_cast<const char*>(data), type, rows, cols, ld, false, stride};
}

struct Call {
  const char* function;
  cublasHandle_t handle;
  cublasOperation_t transpose_a, transpose_b;
  int m, n, k;
  const void *alpha, *a;
  cudaDataType type_a;
  int lda;
  long long stride_a;
  const void* b;
  cudaDataType type_b;
  int ldb;
  long long stride_b;
  const void* beta;
  void* c;
  cudaDataType type_c;
  int ldc;
  long long stride_c;
  int batches;
  cublasComputeType_t compute;
};

cublasStatus_t Run(const Call& call) {
  ApiLock lock;
  if (call.handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (call.compute != CUBLAS_COMPUTE_32F) {
    return Invalid(call.function, "only CUBLAS_COMPUTE_32F is emulated");
  }
  if (!IsLiveStream(call.handle->stream)) {
    return Invalid(call.function, "the stream is not a live one");
  }
  Gemm g;
  g.transpose_a = call.transpose_a != CUBLAS_OP_N;
  g.transpose_b = call.transpose_b != CUBLAS_OP_N;
  g.a = ColumnMajor(call.a, call.type_a, g.transpose_a ? call.k : call.m,
                    g.transpose_a ? call.m : call.k, call.lda, call.stride_a);
  g.b = ColumnMajor(call.b, call.type_b, g.transpose_b ? call.n : call.k,
                    g.transpose_b ? call.k : call.n, call.ldb, call.stride_b);
  g.d =
      ColumnMajor(call.c, call.type_c, call.m, call.n, call.ldc, call.stride_c);
  g.c = g.d;
  g.alpha = *static_cast<const float*>(call.alpha);
  g.beta = *static_cast<const float*>(call.beta);
  g.batches = call.batches;
  g.splits = HeuristicSplits(call.m, call.n);
  if (const std::string problem = CheckGemm(g); !problem.empty()) {
    return Invalid(call.function, problem);
  }
  EnqueueSimple(call.handle->stream, call.function,
                [g](uint32_t id) { RunGemm(g, id); });
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace
}  // namespace cuda_emu

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  *handle = new cublasContext();
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGetStream_v2(cublasHandle_t handle, cudaStream_t* stream) {
  *stream = handle->stream;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t) {
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t, void*, size_t) {
  return CUBLAS_STATUS_SUCCESS;
}

const char* cublasGetStatusString(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
      return "another cublasStatus_t";
  }
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t transa,
                            cublasOperation_t transb, int m, int n, int k,
                            const void* alpha, const void* a,
                            cudaDataType type_a, int lda, const void* b,
                            cudaDataType type_b, int ldb, const void* beta,
                            void* c, cudaDataType type_c, int ldc,
                            cublasComputeType_t compute, cublasGemmAlgo_t) {
  return cuda_emu::Run(
      {"cublasGemmEx", handle, transa, transb, m,      n,   k, alpha, a,
       type_a,         lda,    0,      b,      type_b, ldb, 0, beta,  c,
       type_c,         ldc,    0,      1,      compute});
}

cublasStatus_t cublasGemmStridedBatchedEx(
    cublasHandle_t handle, cublasOperation_t transa, cublasOperation_t transb,
    int m, int n, int k, const void* alpha, const void* a, cudaDataType type_a,
    int lda, long long stride_a, const void* b, cudaDataType type_b, int ldb,
    long long stride_b, const void* beta, void* c, cudaDataType type_c, int ldc,
    long long stride_c, int batches, cublasComputeType_t compute,
    cublasGemmAlgo_t) {
  return cuda_emu::Run({"cublasGemmStridedBatchedEx",
                        handle,
                        transa,
                        transb,
                        m,
                        n,
                        k,
                        alpha,
                        a,
                        type_a,
                        lda,
                        stride_a,
                        b,
                        type_b,
                        ldb,
                        stride_b,
                        beta,
                        c,
                        type_c,
                        ldc,
                        stride_c,
                        batches,
                        compute});
}

}  // extern "C"
