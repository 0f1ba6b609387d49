#include "tests/kernels/cuda/gemm_harness.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/logging.h"

namespace octet::test {

const Matrix& GemmGroupSet::WeightsOf(int64_t row) const {
  size_t group = 0;
  while (row >= row_offsets[group + 1]) ++group;
  return w[group];
}

std::unique_ptr<cuda::CudaPackedMatrix> GemmTestBase::Pack(const Matrix& w) {
  auto packed = cuda::CudaPackedMatrix::Create(w.dtype(), w.rows(), w.cols(),
                                               gpu_.staging());
  Must(packed.status());
  Must((*packed)->PackRows(0, w.View(), gpu_.staging()));
  return *std::move(packed);
}

GemmGroupSet GemmTestBase::MakeGroups(DType dtype, int64_t n, int64_t k,
                                      const std::vector<int64_t>& sizes) {
  GemmGroupSet groups;
  for (size_t g = 0; g < sizes.size(); ++g) {
    groups.w.push_back(Matrix::Random(dtype, n, k, 100 + g));
    groups.packed.push_back(Pack(groups.w.back()));
    groups.pointers.push_back(groups.packed.back().get());
    groups.row_offsets.push_back(groups.row_offsets.back() + sizes[g]);
  }
  return groups;
}

Matrix GemmTestBase::Run(const Matrix& x, const GemmGroupSet& groups,
                         const Call& call) {
  return Run(x, groups.pointers, groups.row_offsets, call);
}

Matrix GemmTestBase::Run(const Matrix& x,
                         const std::vector<const PackedMatrix*>& w,
                         const std::vector<int64_t>& row_offsets,
                         const Call& call) {
  const int64_t n = w[0]->n() / (call.form == Form::kSwiGlu ? 2 : 1);
  Matrix result(call.out_dtype, x.rows(), n);
  // `shift` elements that nobody wrote, the tensor, and 8 more of them.
  const auto place = [&](ConstTensor host, bool copy) {
    const int64_t size = host.num_elements();
    const int64_t element = static_cast<int64_t>(SizeOf(host.dtype()));
    const Tensor memory = gpu_.New(host.dtype(), {size + call.shift + 8});
    char* at = static_cast<char*>(memory.data()) + call.shift * element;
    if (copy && size > 0) {
      Must(cudaMemcpyAsync(at, host.data(), host.num_bytes(),
                           cudaMemcpyHostToDevice, gpu_.stream()));
    }
    return std::pair(memory,
                     Tensor(at, host.dtype(), {host.dim(0), host.dim(1)}));
  };
  const Tensor device_x = place(x.View(), true).second;
  const bool add = call.form == Form::kAccumulate;
  const auto [memory, out] =
      place(add ? call.before->View() : result.View(), add);
  const size_t begin = call.shift * SizeOf(call.out_dtype);
  const size_t end = begin + result.View().num_bytes();
  FillBeside(memory, begin, end);

  auto launcher = cuda::GemmLauncher::Create(
      {.max_blocks = call.max_blocks, .max_stages = call.max_stages});
  Must(launcher.status());
  const cudaStream_t stream = gpu_.stream();
  if (call.form == Form::kSwiGlu) {
    Must(launcher->GroupedGemmSwiGlu(device_x, w, row_offsets, out, stream));
  } else if (w.size() == 1) {
    Must(launcher->Gemm(device_x, *w[0], add, out, stream));
  } else {
    Must(launcher->GroupedGemm(device_x, w, row_offsets, out, stream));
  }
  const std::vector<uint8_t> bytes = gpu_.Download<uint8_t>(memory);
  for (size_t i = 0; i < bytes.size(); ++i) {
    OCTET_CHECK((i >= begin && i < end) || bytes[i] == 0xff)
        << "byte " << i << " beside out was written";
  }
  if (end > begin) {
    std::memcpy(result.MutableView().data(), &bytes[begin], end - begin);
  }
  return result;
}

Bounded GemmTestBase::ProductAt(const Matrix& x, const Matrix& w, int64_t row,
                                int64_t col, const Matrix* before) {
  Bounded expected = Dot(x, row, w, col);
  if (before != nullptr) {
    expected.value += before->At(row, col);
    expected.error += std::ldexp(std::fabs(expected.value), -23);
  }
  return expected;
}

void GemmTestBase::ExpectWithin(const Matrix& out, int64_t row, int64_t col,
                                Bounded expected) {
  if (out.dtype() == DType::kBF16) {
    expected.error += std::ldexp(std::fabs(expected.value), -8);
  }
  ASSERT_LE(std::fabs(out.At(row, col) - expected.value), expected.error)
      << "row " << row << " column " << col << ": " << out.At(row, col)
      << " instead of " << expected.value;
}

void GemmTestBase::ExpectProduct(const Matrix& out, const Matrix& x,
                                 const Matrix& w, const Matrix* before) {
  for (int64_t r = 0; r < out.rows(); ++r) {
    for (int64_t c = 0; c < out.cols(); ++c) {
      ExpectWithin(out, r, c, ProductAt(x, w, r, c, before));
      if (HasFatalFailure()) return;
    }
  }
}

void GemmTestBase::FillBeside(Tensor memory, size_t begin, size_t end) {
  char* const bytes = static_cast<char*>(memory.data());
  if (begin > 0) Must(cudaMemsetAsync(bytes, 0xff, begin, gpu_.stream()));
  Must(cudaMemsetAsync(bytes + end, 0xff, memory.num_bytes() - end,
                       gpu_.stream()));
}

Matrix RowsOf(const Matrix& matrix, int64_t begin, int64_t count) {
  Matrix rows(matrix.dtype(), count, matrix.cols());
  const ConstTensor from = matrix.ViewOf(begin, count);
  std::memcpy(rows.MutableView().data(), from.data(), from.num_bytes());
  return rows;
}

std::string FirstMismatch(const Matrix& a, const Matrix& b) {
  if (a.rows() != b.rows()) {
    return absl::StrCat(a.rows(), " rows vs ", b.rows());
  }
  for (int64_t r = 0; r < a.rows(); ++r) {
    if (a.RowBytes(r) != b.RowBytes(r)) return absl::StrCat("row ", r);
  }
  return "";
}

}  // namespace octet::test
