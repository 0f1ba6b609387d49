// Dense products (kernels/cuda/dense_gemm.h) with operands from host memory.
#ifndef OCTET_TESTS_KERNELS_CUDA_DENSE_GEMM_HARNESS_H_
#define OCTET_TESTS_KERNELS_CUDA_DENSE_GEMM_HARNESS_H_

#include <memory>
#include <utility>

#include "kernels/cuda/dense_gemm.h"
#include "tests/kernels/cuda/gemm_harness.h"

namespace octet::test {

class DenseGemmTest : public GemmTestBase {
 protected:
  DenseGemmTest() : gemm_(NewGemm({})) {}

  std::unique_ptr<cuda::DenseGemm> NewGemm(
      const cuda::DenseGemmOptions& options) {
    auto own = cuda::GemmLauncher::Create();
    Must(own.status());
    auto gemm = cuda::DenseGemm::Create(options, *own);
    Must(gemm.status());
    return *std::move(gemm);
  }

  Matrix Product(cuda::DenseGemm& gemm, const Matrix& x,
                 const cuda::CudaPackedMatrix& w, DType out_dtype,
                 const Matrix* before = nullptr) {
    const Tensor out = before == nullptr
                           ? gpu_.New(out_dtype, {x.rows(), w.n()})
                           : gpu_.Upload(before->View());
    Must(gemm.Gemm(gpu_.Upload(x.View()), w, before != nullptr, out,
                   gpu_.stream()));
    Matrix result(out_dtype, x.rows(), w.n());
    gpu_.DownloadTo(out, result.MutableView());
    return result;
  }

  std::unique_ptr<cuda::DenseGemm> gemm_;
};

}  // namespace octet::test

#endif  // OCTET_TESTS_KERNELS_CUDA_DENSE_GEMM_HARNESS_H_
