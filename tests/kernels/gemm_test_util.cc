#include "tests/kernels/gemm_test_util.h"

#include <cmath>

#include "base/logging.h"
#include "kernels/cpu/gemm_amx-inl.h"
#include "kernels/cpu/gemm_kernels.h"

namespace octet::test {

std::vector<GemmPath> AllGemmPaths() {
  std::vector<GemmPath> paths;
  for (cpu::Isa isa : cpu::SupportedIsas()) {
    paths.push_back(
        {std::string(cpu::Name(isa)), &cpu::GemmKernelsFor(isa, DType::kF32),
         &cpu::GemmKernelsFor(isa, DType::kBF16), &cpu::EpilogueKernelsFor(isa),
         &cpu::PanelKernelsFor(isa)});
  }
  static const cpu::GemmKernels software =
      cpu::AmxKernels<cpu::SoftwareTiles>("amx_software");
  const cpu::Isa best = cpu::BestIsa();
  paths.push_back({"amx_software", &cpu::GemmKernelsFor(best, DType::kF32),
                   &software, &cpu::EpilogueKernelsFor(best),
                   &cpu::PanelKernelsFor(best)});
  return paths;
}

Matrix::Matrix(DType dtype, int64_t rows, int64_t cols)
    : dtype_(dtype), rows_(rows), cols_(cols) {
  if (dtype == DType::kF32) {
    f32_.resize(rows * cols);
  } else {
    bf16_.resize(rows * cols);
  }
}

Matrix Matrix::Random(DType dtype, int64_t rows, int64_t cols, uint32_t seed) {
  Matrix matrix(dtype, rows, cols);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) matrix.Set(r, c, normal(random));
  }
  return matrix;
}

double Matrix::At(int64_t row, int64_t col) const {
  return dtype_ == DType::kF32 ? f32_[Index(row, col)]
                               : ToFloat(bf16_[Index(row, col)]);
}

void Matrix::Set(int64_t row, int64_t col, float value) {
  if (dtype_ == DType::kF32) {
    f32_[Index(row, col)] = value;
  } else {
    bf16_[Index(row, col)] = ToBF16(value);
  }
}

ConstTensor Matrix::ViewOf(int64_t row_begin, int64_t num_rows) const {
  const void* data = f32_.data() + row_begin * cols_;
  if (dtype_ == DType::kBF16) data = bf16_.data() + row_begin * cols_;
  return ConstTensor(data, dtype_, {num_rows, cols_});
}

Tensor Matrix::MutableView() {
  void* data = f32_.data();
  if (dtype_ == DType::kBF16) data = bf16_.data();
  return Tensor(data, dtype_, {rows_, cols_});
}

std::string Matrix::RowBytes(int64_t row) const {
  const ConstTensor view = ViewOf(row, 1);
  return std::string(static_cast<const char*>(view.data()), view.num_bytes());
}

std::unique_ptr<cpu::CpuPackedMatrix> Matrix::Pack() const {
  auto packed = cpu::CpuPackedMatrix::Create(dtype_, rows_, cols_);
  OCTET_CHECK(packed.ok()) << packed.status();
  const absl::Status status = (*packed)->PackRows(0, View());
  OCTET_CHECK(status.ok()) << status;
  return *std::move(packed);
}

Bounded Dot(const Matrix& x, int64_t row, const Matrix& w, int64_t col) {
  double sum = 0;
  double magnitude = 0;
  for (int64_t k = 0; k < x.cols(); ++k) {
    const double product = x.At(row, k) * w.At(col, k);
    sum += product;
    magnitude += std::fabs(product);
  }
  const double k = static_cast<double>(x.cols());
  return {sum, 2 * k * std::ldexp(1.0, -24) * magnitude + 1e-36};
}

Bounded SwiGlu(const Bounded& gate, const Bounded& up) {
  const double silu = gate.value / (1 + std::exp(-gate.value));
  const double value = silu * up.value;
  const double error = 1.1 * gate.error * (std::fabs(up.value) + up.error) +
                       std::fabs(silu) * up.error +
                       16 * std::ldexp(1.0, -24) * std::fabs(value);
  return {value, error + 1e-36};
}

}  // namespace octet::test
