// The cuBLASLt calls that the project makes: plain matrix products, no
// epilogues.

#include <cublasLt.h>

#include <cstring>

#include "tests/cuda_emulation/blas/gemm.h"
#include "tests/cuda_emulation/engine/injection.h"
#include "tests/cuda_emulation/engine/options.h"
#include "tests/cuda_emulation/engine/report.h"
#include "tests/cuda_emulation/runtime/memory.h"
#include "tests/cuda_emulation/runtime/operations.h"
#include "tests/cuda_emulation/runtime/stream.h"

struct cublasLtContext {};

namespace cuda_emu {
namespace {

struct MatmulDesc {
  int32_t transpose_a = CUBLAS_OP_N;
  int32_t transpose_b = CUBLAS_OP_N;
  cublasComputeType_t compute;
  cudaDataType scale_type;
};

struct Layout {
  cudaDataType type;
  uint64_t rows;
  uint64_t cols;
  int64_t ld;
  int32_t order = CUBLASLT_ORDER_COL;
  int32_t batches = 1;
  int64_t batch_stride = 0;
};

struct Preference {
  uint64_t workspace_bytes = 0;
  // What cuBLASLt assumes of pointers unless told otherwise.
  uint32_t alignment[4] = {256, 256, 256, 256};
};

// What an algorithm remembers, in cublasLtMatmulAlgo_t.
struct Algorithm {
  uint64_t magic;
  uint64_t splits;
  uint64_t workspace_bytes;
  uint32_t alignment[4];
};
static_assert(sizeof(Algorithm) <= sizeof(cublasLtMatmulAlgo_t));
constexpr uint64_t kAlgorithmMagic = 0x6c74656d75616c67;
constexpr uint64_t kWorkspaceBytes = 1024;

cublasStatus_t Fail(cublasStatus_t status, const std::string& why) {
  Refuse(cudaErrorInvalidValue, "cublasLt: %s", why.c_str());
  return status;
}

cublasStatus_t Invalid(const std::string& why) {
  return Fail(CUBLAS_STATUS_INVALID_VALUE, why);
}

template <class T>
cublasStatus_t Set(T* field, const void* value, size_t bytes) {
  if (bytes != sizeof(T)) {
    return Invalid("an attribute of " + std::to_string(sizeof(T)) +
                   " bytes is set with " + std::to_string(bytes));
  }
  std::memcpy(field, value, sizeof(T));
  return CUBLAS_STATUS_SUCCESS;
}

MatmulDesc* Get(cublasLtMatmulDesc_t desc) {
  return reinterpret_cast<MatmulDesc*>(desc);
}
Layout* Get(cublasLtMatrixLayout_t layout) {
  return reinterpret_cast<Layout*>(layout);
}
Preference* Get(cublasLtMatmulPreference_t preference) {
  return reinterpret_cast<Preference*>(preference);
}

Matrix ToMatrix(const Layout& l, const void* data) {
  return {static_cast<const char*>(data),
          l.type,
          static_cast<int64_t>(l.rows),
          static_cast<int64_t>(l.cols),
          l.ld,
          l.order == CUBLASLT_ORDER_ROW,
          l.batch_stride};
}

std::string CheckAlgorithm(const Algorithm& algorithm, const Gemm& g,
                           const void* workspace, size_t workspace_bytes) {
  if (algorithm.magic != kAlgorithmMagic) {
    return "the algorithm was not given by cublasLtMatmulAlgoGetHeuristic";
  }
  if (workspace_bytes < algorithm.workspace_bytes) {
    return "the algorithm needs " + std::to_string(algorithm.workspace_bytes) +
           " bytes of workspace, the call gives " +
           std::to_string(workspace_bytes);
  }
  if (workspace_bytes > 0 && !InsideOneAllocation(workspace, workspace_bytes)) {
    return "the workspace is not inside one live device allocation";
  }
  const char* pointers[4] = {g.a.data, g.b.data, g.c.data, g.d.data};
  for (int i = 0; i < 4; ++i) {
    if (reinterpret_cast<uintptr_t>(pointers[i]) % algorithm.alignment[i]) {
      return std::string("matrix ") + "ABCD"[i] + " is not aligned to the " +
             std::to_string(algorithm.alignment[i]) +
             " bytes that the algorithm was chosen for "
             "(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_*)";
    }
  }
  return "";
}

int SplitsOfAlgorithm(const Algorithm& algorithm) {
  return static_cast<int>(algorithm.splits);
}

}  // namespace
}  // namespace cuda_emu

using cuda_emu::Get;
using cuda_emu::Injected;
using cuda_emu::Set;

extern "C" {

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  if (const auto error = Injected<CUBLAS_STATUS_INTERNAL_ERROR>(__func__))
    return error;
  *handle = new cublasLtContext();
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* desc,
                                        cublasComputeType_t compute,
                                        cudaDataType scale_type) {
  if (const auto error = Injected<CUBLAS_STATUS_INTERNAL_ERROR>(__func__))
    return error;
  auto* made = new cuda_emu::MatmulDesc();
  made->compute = compute;
  made->scale_type = scale_type;
  *desc = reinterpret_cast<cublasLtMatmulDesc_t>(made);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc) {
  delete Get(desc);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(
    cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute,
    const void* value, size_t bytes) {
  if (const auto error = Injected<CUBLAS_STATUS_INTERNAL_ERROR>(__func__))
    return error;
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return Set(&Get(desc)->transpose_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return Set(&Get(desc)->transpose_b, value, bytes);
    default:
      return cuda_emu::Fail(
          CUBLAS_STATUS_NOT_SUPPORTED,
          "matmul attribute " + std::to_string(attribute) + " is not emulated");
  }
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout,
                                          cudaDataType type, uint64_t rows,
                                          uint64_t cols, int64_t ld) {
  if (const auto error = Injected<CUBLAS_STATUS_INTERNAL_ERROR>(__func__))
    return error;
  *layout = reinterpret_cast<cublasLtMatrixLayout_t>(
      new cuda_emu::Layout{type, rows, cols, ld});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  delete Get(layout);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(
    cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t attribute,
    const void* value, size_t bytes) {
  if (const auto error = Injected<CUBLAS_STATUS_INTERNAL_ERROR>(__func__))
    return error;
  cuda_emu::Layout* l = Get(layout);
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
      return Set(&l->order, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ROWS:
      return Set(&l->rows, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_COLS:
      return Set(&l->cols, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_LD:
      return Set(&l->ld, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
      return Set(&l->batches, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
      return Set(&l->batch_stride, value, bytes);
    default:
      return cuda_emu::Fail(
          CUBLAS_STATUS_NOT_SUPPORTED,
          "layout attribute " + std::to_string(attribute) + " is not emulated");
  }
}

cublasStatus_t cublasLtMatmulPreferenceCreate(
    cublasLtMatmulPreference_t* preference) {
  if (const auto error = Injected<CUBLAS_STATUS_INTERNAL_ERROR>(__func__))
    return error;
  *preference =
      reinterpret_cast<cublasLtMatmulPreference_t>(new cuda_emu::Preference());
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(
    cublasLtMatmulPreference_t preference) {
  delete Get(preference);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(
    cublasLtMatmulPreference_t preference,
    cublasLtMatmulPreferenceAttributes_t attribute, const void* value,
    size_t bytes) {
  if (const auto error = Injected<CUBLAS_STATUS_INTERNAL_ERROR>(__func__))
    return error;
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
      return Set(&Get(preference)->workspace_bytes, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
      return Set(&Get(preference)
                      ->alignment[attribute -
                                  CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES],
                 value, bytes);
    default:
      return cuda_emu::Fail(CUBLAS_STATUS_NOT_SUPPORTED,
                            "preference attribute " +
                                std::to_string(attribute) + " is not emulated");
  }
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(
    cublasLtHandle_t, cublasLtMatmulDesc_t, cublasLtMatrixLayout_t,
    cublasLtMatrixLayout_t, cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
    cublasLtMatmulPreference_t preference, int requested,
    cublasLtMatmulHeuristicResult_t results[], int* returned) {
  if (const auto error = Injected<CUBLAS_STATUS_INTERNAL_ERROR>(__func__))
    return error;
  cuda_emu::ApiLock lock;
  *returned = 0;
  if (requested < 1) return cuda_emu::Invalid("no algorithm is asked for");
  const cuda_emu::Preference& p = *Get(preference);
  cuda_emu::Algorithm algorithm{};
  algorithm.magic = cuda_emu::kAlgorithmMagic;
  algorithm.splits = static_cast<uint64_t>(cuda_emu::HeuristicSplits(
      static_cast<int64_t>(Get(d)->rows), static_cast<int64_t>(Get(d)->cols)));
  algorithm.workspace_bytes = p.workspace_bytes >= cuda_emu::kWorkspaceBytes
                                  ? cuda_emu::kWorkspaceBytes
                                  : 0;
  std::memcpy(algorithm.alignment, p.alignment, sizeof(p.alignment));
  results[0] = {};
  std::memcpy(&results[0].algo, &algorithm, sizeof(algorithm));
  results[0].workspaceSize = algorithm.workspace_bytes;
  results[0].state = CUBLAS_STATUS_SUCCESS;
  results[0].wavesCount = 1.0f;
  *returned = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t desc,
                              const void* alpha, const void* a,
                              cublasLtMatrixLayout_t layout_a, const void* b,
                              cublasLtMatrixLayout_t layout_b, const void* beta,
                              const void* c, cublasLtMatrixLayout_t layout_c,
                              void* d, cublasLtMatrixLayout_t layout_d,
                              const cublasLtMatmulAlgo_t* algo, void* workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
  if (const auto error = Injected<CUBLAS_STATUS_INTERNAL_ERROR>(__func__))
    return error;
  cuda_emu::ApiLock lock;
  const cuda_emu::MatmulDesc& matmul = *Get(desc);
  if (matmul.compute != CUBLAS_COMPUTE_32F || matmul.scale_type != CUDA_R_32F) {
    return cuda_emu::Fail(
        CUBLAS_STATUS_NOT_SUPPORTED,
        "only CUBLAS_COMPUTE_32F with f32 scales is emulated");
  }
  if (!cuda_emu::IsLiveStream(stream)) {
    return cuda_emu::Invalid("the stream is not a live one");
  }
  cuda_emu::Gemm g;
  g.transpose_a = matmul.transpose_a != CUBLAS_OP_N;
  g.transpose_b = matmul.transpose_b != CUBLAS_OP_N;
  g.a = ToMatrix(*Get(layout_a), a);
  g.b = ToMatrix(*Get(layout_b), b);
  g.c = ToMatrix(*Get(layout_c), c);
  g.d = ToMatrix(*Get(layout_d), d);
  g.alpha = *static_cast<const float*>(alpha);
  g.beta = *static_cast<const float*>(beta);
  g.batches = Get(layout_d)->batches;
  g.splits = cuda_emu::HeuristicSplits(g.d.rows, g.d.cols);
  std::string problem = cuda_emu::CheckGemm(g);
  if (problem.empty() && algo != nullptr) {
    cuda_emu::Algorithm algorithm;
    std::memcpy(&algorithm, algo, sizeof(algorithm));
    problem = CheckAlgorithm(algorithm, g, workspace, workspace_bytes);
    if (cuda_emu::GetOptions().vary_gemm < 2) {
      g.splits = SplitsOfAlgorithm(algorithm);
    }
  }
  if (!problem.empty()) return cuda_emu::Invalid(problem);
  cuda_emu::EnqueueSimple(stream, "cublasLtMatmul",
                          [g](uint32_t id) { cuda_emu::RunGemm(g, id); });
  return CUBLAS_STATUS_SUCCESS;
}

}  // extern "C"
