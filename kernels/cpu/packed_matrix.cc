#include "kernels/cpu/packed_matrix.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/status_macros.h"
#include "kernels/weight_rows.h"

namespace octet::cpu {
namespace {

constexpr int64_t kTileSteps = 16;  // rows of an AMX tile of weights
constexpr int64_t kBlock = 64;      // inputs per visit of a row: stays in L1

// Elements between inputs k and k + 1 of one output in a panel.
struct F32Place {
  using Element = float;
  static int64_t Offset(int64_t column, int64_t k) {
    return k * kPanelOutputs + column;
  }
};
struct BF16Place {
  using Element = BF16;
  static int64_t Offset(int64_t column, int64_t k) {
    return (k / 2 * kPanelOutputs + column) * 2 + k % 2;
  }
};

// Calls visit(row, k_begin, k_end, panel, column) over the rows in an order in
// which the written part of a panel stays in the cache.
template <typename Visit>
void ForEachRowBlock(int64_t row_begin, int64_t num_rows, int64_t k,
                     Visit visit) {
  for (int64_t row = row_begin; row < row_begin + num_rows;) {
    const int64_t panel = row / kPanelOutputs;
    const int64_t end =
        std::min(row_begin + num_rows, (panel + 1) * kPanelOutputs);
    for (int64_t k_begin = 0; k_begin < k; k_begin += kBlock) {
      const int64_t k_end = std::min(k, k_begin + kBlock);
      for (int64_t r = row; r < end; ++r) {
        visit(r - row_begin, k_begin, k_end, panel, r % kPanelOutputs);
      }
    }
    row = end;
  }
}

template <typename Place, typename Source>
void Pack(CpuPackedMatrix& matrix, int64_t row_begin, ConstTensor rows) {
  const int64_t k = matrix.k();
  const Source* source = static_cast<const Source*>(rows.data());
  ForEachRowBlock(row_begin, rows.rows(), k,
                  [&](int64_t row, int64_t k_begin, int64_t k_end,
                      int64_t panel, int64_t column) {
                    auto* to = reinterpret_cast<typename Place::Element*>(
                        matrix.mutable_panel(panel));
                    const Source* from = source + row * k;
                    for (int64_t i = k_begin; i < k_end; ++i) {
                      ConvertElement(from[i], &to[Place::Offset(column, i)]);
                    }
                  });
}

template <typename Place>
void Unpack(const CpuPackedMatrix& matrix, int64_t row_begin, Tensor rows) {
  using Element = typename Place::Element;
  const int64_t k = matrix.k();
  Element* out = static_cast<Element*>(rows.data());
  ForEachRowBlock(row_begin, rows.rows(), k,
                  [&](int64_t row, int64_t k_begin, int64_t k_end,
                      int64_t panel, int64_t column) {
                    const auto* from =
                        reinterpret_cast<const Element*>(matrix.panel(panel));
                    Element* to = out + row * k;
                    for (int64_t i = k_begin; i < k_end; ++i) {
                      to[i] = from[Place::Offset(column, i)];
                    }
                  });
}

template <typename Source>
void PackAs(CpuPackedMatrix& matrix, int64_t row_begin, ConstTensor rows) {
  if (matrix.dtype() == DType::kF32) {
    Pack<F32Place, Source>(matrix, row_begin, rows);
  } else {
    Pack<BF16Place, Source>(matrix, row_begin, rows);
  }
}

}  // namespace

int64_t PanelSteps(DType dtype, int64_t k) {
  if (dtype == DType::kF32) return k;
  const int64_t pairs = (k + 1) / 2;
  return (pairs + kTileSteps - 1) / kTileSteps * kTileSteps;
}

CpuPackedMatrix::CpuPackedMatrix(DType dtype, int64_t n, int64_t k,
                                 int64_t num_panels, int64_t num_steps,
                                 AlignedMemory memory)
    : dtype_(dtype),
      n_(n),
      k_(k),
      num_panels_(num_panels),
      num_steps_(num_steps),
      memory_(std::move(memory)) {}

absl::StatusOr<std::unique_ptr<CpuPackedMatrix>> CpuPackedMatrix::Create(
    DType dtype, int64_t n, int64_t k) {
  OCTET_RETURN_IF_ERROR(CheckPackedMatrix(dtype, n, k));
  const int64_t num_panels = NumPanels(n);
  const int64_t num_steps = PanelSteps(dtype, k);
  // Below 2^26 * 2^31 * 2^7: no overflow of size_t.
  const size_t num_bytes =
      static_cast<size_t>(num_panels) * num_steps * kStepBytes;
  OCTET_ASSIGN_OR_RETURN(AlignedMemory memory,
                         AlignedMemory::Allocate(num_bytes));
  return std::unique_ptr<CpuPackedMatrix>(new CpuPackedMatrix(
      dtype, n, k, num_panels, num_steps, std::move(memory)));
}

absl::Status CpuPackedMatrix::PackRows(int64_t row_begin, ConstTensor rows) {
  OCTET_RETURN_IF_ERROR(CheckRowsToPack(*this, row_begin, rows));
  if (rows.dtype() == DType::kF32) {
    PackAs<float>(*this, row_begin, rows);
  } else if (rows.dtype() == DType::kBF16) {
    PackAs<BF16>(*this, row_begin, rows);
  } else {
    PackAs<Half>(*this, row_begin, rows);
  }
  return absl::OkStatus();
}

absl::Status CpuPackedMatrix::UnpackRows(int64_t row_begin, Tensor rows) const {
  OCTET_RETURN_IF_ERROR(CheckRowsToUnpack(*this, row_begin, rows));
  if (dtype_ == DType::kF32) {
    Unpack<F32Place>(*this, row_begin, rows);
  } else {
    Unpack<BF16Place>(*this, row_begin, rows);
  }
  return absl::OkStatus();
}

}  // namespace octet::cpu
