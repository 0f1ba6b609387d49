#include "kernels/cpu/plain_gemm_backward.h"

#include <vector>

#include "base/status_macros.h"
#include "kernels/cpu/packed_matrix.h"

namespace octet::cpu {
namespace {

std::vector<float> Widen(ConstTensor tensor) {
  std::vector<float> values(tensor.num_elements());
  for (int64_t i = 0; i < tensor.num_elements(); ++i) {
    values[i] = tensor.dtype() == DType::kF32 ? tensor.as<float>()[i]
                                              : ToFloat(tensor.as<BF16>()[i]);
  }
  return values;
}

// W [n, k] as f32.
absl::StatusOr<std::vector<float>> Unpacked(const PackedMatrix& w) {
  const auto& matrix = static_cast<const CpuPackedMatrix&>(w);
  std::vector<char> bytes(w.n() * w.k() * SizeOf(w.dtype()));
  const Tensor rows(bytes.data(), w.dtype(), {w.n(), w.k()});
  OCTET_RETURN_IF_ERROR(matrix.UnpackRows(0, rows));
  return Widen(rows);
}

}  // namespace

absl::Status GroupedGemmAccumulate(ConstTensor x,
                                   absl::Span<const PackedMatrix* const> w,
                                   absl::Span<const int64_t> row_offsets,
                                   Tensor out, GemmWorkspace& workspace) {
  for (size_t g = 0; g < w.size(); ++g) {
    const int64_t count = row_offsets[g + 1] - row_offsets[g];
    if (count == 0) continue;
    OCTET_RETURN_IF_ERROR(Gemm(x.Rows(row_offsets[g], count), *w[g],
                               /*accumulate=*/true,
                               out.Rows(row_offsets[g], count), workspace));
  }
  return absl::OkStatus();
}

absl::Status GemmBackwardInput(ConstTensor dy, const PackedMatrix& w,
                               bool accumulate, Tensor dx,
                               GemmWorkspace& workspace) {
  OCTET_ASSIGN_OR_RETURN(const std::vector<float> weights, Unpacked(w));
  const std::vector<float> from = Widen(dy);
  const int64_t n = w.n();
  const int64_t k = w.k();
  workspace.pool().ParallelFor(dy.dim(0), [&](int64_t t, int) {
    std::vector<float> sums(k);
    for (int64_t j = 0; j < n; ++j) {
      const float factor = from[t * n + j];
      for (int64_t i = 0; i < k; ++i) sums[i] += factor * weights[j * k + i];
    }
    for (int64_t i = 0; i < k; ++i) {
      if (dx.dtype() == DType::kBF16) {
        dx.as<BF16>()[t * k + i] = ToBF16(sums[i]);
      } else {
        float& to = dx.as<float>()[t * k + i];
        to = accumulate ? to + sums[i] : sums[i];
      }
    }
  });
  return absl::OkStatus();
}

absl::Status GroupedGemmBackwardInput(ConstTensor dy,
                                      absl::Span<const PackedMatrix* const> w,
                                      absl::Span<const int64_t> row_offsets,
                                      bool accumulate, Tensor dx,
                                      GemmWorkspace& workspace) {
  for (size_t g = 0; g < w.size(); ++g) {
    const int64_t count = row_offsets[g + 1] - row_offsets[g];
    if (count == 0) continue;
    OCTET_RETURN_IF_ERROR(
        GemmBackwardInput(dy.Rows(row_offsets[g], count), *w[g], accumulate,
                          dx.Rows(row_offsets[g], count), workspace));
  }
  return absl::OkStatus();
}

absl::Status GemmBackwardWeight(ConstTensor x, ConstTensor dy, float scale,
                                bool accumulate, Tensor dw,
                                GemmWorkspace& workspace) {
  const std::vector<float> a = Widen(x);
  const std::vector<float> b = Widen(dy);
  const int64_t k = x.dim(1);
  const int64_t n = dy.dim(1);
  workspace.pool().ParallelFor(n, [&](int64_t j, int) {
    std::vector<float> sums(k);
    for (int64_t t = 0; t < x.dim(0); ++t) {
      const float factor = b[t * n + j];
      for (int64_t i = 0; i < k; ++i) sums[i] += factor * a[t * k + i];
    }
    for (int64_t i = 0; i < k; ++i) {
      float& to = dw.as<float>()[j * k + i];
      to = accumulate ? to + scale * sums[i] : scale * sums[i];
    }
  });
  return absl::OkStatus();
}

}  // namespace octet::cpu
