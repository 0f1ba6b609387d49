#include "kernels/cuda/dense_gemm_lt.h"

#include "base/status_macros.h"
#include "kernels/cuda/cuda_status.h"

namespace octet::cuda {
namespace {

constexpr int kMaxAlgorithms = 8;
constexpr uint32_t kAlignment = 16;

cudaDataType TypeOf(DType dtype) {
  return dtype == DType::kF32 ? CUDA_R_32F : CUDA_R_16BF;
}

// A column-major matrix.
absl::Status NewLayout(DType dtype, int64_t rows, int64_t cols, int64_t ld,
                       cublasLtMatrixLayout_t* layout) {
  return CublasStatus(
      cublasLtMatrixLayoutCreate(layout, TypeOf(dtype), rows, cols, ld),
      "cublasLtMatrixLayoutCreate");
}

}  // namespace

absl::StatusOr<LtHandle> NewLtHandle() {
  cublasLtHandle_t handle = nullptr;
  OCTET_RETURN_IF_ERROR(
      CublasStatus(cublasLtCreate(&handle), "cublasLtCreate"));
  return LtHandle(handle);
}

// cuBLAS is column-major: a row-major [T, n] is its [n, T], so the product is
// out^T [n, T] = (W^T [k, n])^T x^T [k, T].
absl::StatusOr<LtProduct> LtProduct::Create(cublasLtHandle_t handle,
                                            const DenseShape& shape,
                                            int64_t reference_rows) {
  LtProduct product(handle);
  product.beta_ = shape.accumulate ? 1.0f : 0.0f;
  cublasLtMatmulDesc_t matmul = nullptr;
  OCTET_RETURN_IF_ERROR(CublasStatus(
      cublasLtMatmulDescCreate(&matmul, CUBLAS_COMPUTE_32F, CUDA_R_32F),
      "cublasLtMatmulDescCreate"));
  product.matmul_.reset(matmul);
  const int32_t transpose = CUBLAS_OP_T;
  OCTET_RETURN_IF_ERROR(CublasStatus(
      cublasLtMatmulDescSetAttribute(matmul, CUBLASLT_MATMUL_DESC_TRANSA,
                                     &transpose, sizeof(transpose)),
      "cublasLtMatmulDescSetAttribute"));
  cublasLtMatrixLayout_t layout = nullptr;
  OCTET_RETURN_IF_ERROR(
      NewLayout(shape.dtype, shape.k, shape.n, shape.ld, &layout));
  product.w_layout_.reset(layout);
  OCTET_RETURN_IF_ERROR(
      NewLayout(shape.dtype, shape.k, reference_rows, shape.k, &layout));
  product.x_layout_.reset(layout);
  OCTET_RETURN_IF_ERROR(
      NewLayout(DType::kF32, shape.n, reference_rows, shape.n, &layout));
  product.out_layout_.reset(layout);
  OCTET_RETURN_IF_ERROR(product.FindAlgorithms());
  return product;
}

absl::Status LtProduct::FindAlgorithms() {
  cublasLtMatmulPreference_t raw = nullptr;
  OCTET_RETURN_IF_ERROR(CublasStatus(cublasLtMatmulPreferenceCreate(&raw),
                                     "cublasLtMatmulPreferenceCreate"));
  const OwnedLt<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>
      preference(raw);
  const uint64_t workspace_bytes = 0;
  OCTET_RETURN_IF_ERROR(
      CublasStatus(cublasLtMatmulPreferenceSetAttribute(
                       raw, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                       &workspace_bytes, sizeof(workspace_bytes)),
                   "cublasLtMatmulPreferenceSetAttribute of the workspace"));
  for (const auto attribute : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                               CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                               CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                               CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    OCTET_RETURN_IF_ERROR(
        CublasStatus(cublasLtMatmulPreferenceSetAttribute(
                         raw, attribute, &kAlignment, sizeof(kAlignment)),
                     "cublasLtMatmulPreferenceSetAttribute of the alignment"));
  }
  cublasLtMatmulHeuristicResult_t results[kMaxAlgorithms];
  int num_results = 0;
  const cublasStatus_t error = cublasLtMatmulAlgoGetHeuristic(
      handle_, matmul_.get(), w_layout_.get(), x_layout_.get(),
      out_layout_.get(), out_layout_.get(), raw, kMaxAlgorithms, results,
      &num_results);
  if (error == CUBLAS_STATUS_NOT_SUPPORTED) return absl::OkStatus();  // none
  OCTET_RETURN_IF_ERROR(CublasStatus(error, "cublasLtMatmulAlgoGetHeuristic"));
  for (int i = 0; i < num_results; ++i) {
    if (results[i].state == CUBLAS_STATUS_SUCCESS) {
      algorithms_.push_back(results[i].algo);
    }
  }
  return absl::OkStatus();
}

absl::Status LtProduct::SetRows(int64_t num_rows) {
  const uint64_t cols = num_rows;
  for (cublasLtMatrixLayout_t layout : {x_layout_.get(), out_layout_.get()}) {
    OCTET_RETURN_IF_ERROR(CublasStatus(
        cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_COLS,
                                         &cols, sizeof(cols)),
        "cublasLtMatrixLayoutSetAttribute of the rows"));
  }
  return absl::OkStatus();
}

absl::Status LtProduct::Run(int algorithm, const void* x, int64_t num_rows,
                            const void* w, void* out, cudaStream_t stream) {
  OCTET_RETURN_IF_ERROR(SetRows(num_rows));
  const float alpha = 1.0f;
  return CublasStatus(
      cublasLtMatmul(handle_, matmul_.get(), &alpha, w, w_layout_.get(), x,
                     x_layout_.get(), &beta_, out, out_layout_.get(), out,
                     out_layout_.get(), &algorithms_[algorithm], nullptr, 0,
                     stream),
      "cublasLtMatmul");
}

}  // namespace octet::cuda
