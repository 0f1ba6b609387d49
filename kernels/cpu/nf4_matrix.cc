#include "kernels/cpu/nf4_matrix.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/weight_rows.h"

namespace octet::cpu {
namespace {

// Bytes of a pair of inputs of all outputs of a panel.
constexpr int64_t kPairBytes = kPanelOutputs;
constexpr int64_t kBlockPairs = kNf4Block / 2;

}  // namespace

CpuNf4Matrix::CpuNf4Matrix(DType dtype, int64_t k, std::vector<Part> parts,
                           int64_t n, AlignedMemory codes)
    : dtype_(dtype),
      n_(n),
      k_(k),
      parts_(std::move(parts)),
      has_row_(n),
      missing_rows_(n),
      codes_(std::move(codes)) {}

absl::StatusOr<std::unique_ptr<CpuNf4Matrix>> CpuNf4Matrix::Create(
    DType dtype, absl::Span<const int64_t> part_rows, int64_t k) {
  std::vector<Part> parts;
  int64_t n = 0;
  for (int64_t rows : part_rows) {
    OCTET_RETURN_IF_ERROR(CheckPackedMatrix(dtype, rows, k));
    Part part;
    part.row_begin = n;
    part.rows = part.missing_rows = rows;
    n += rows;
    parts.push_back(std::move(part));
  }
  OCTET_RETURN_IF_ERROR(CheckPackedMatrix(dtype, n, k));
  if (k % kNf4Block != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("NF4 matrix: k is ", k, ", expected a multiple of ",
                     kNf4Block, ", the weights of a block"));
  }
  const int64_t num_panels = NumPanels(n);
  OCTET_ASSIGN_OR_RETURN(
      AlignedMemory codes,
      AlignedMemory::Allocate(static_cast<size_t>(num_panels) * (k / 2) *
                              kPairBytes));
  for (Part& part : parts) part.absmax.resize(part.rows * (k / kNf4Block));
  return std::unique_ptr<CpuNf4Matrix>(
      new CpuNf4Matrix(dtype, k, std::move(parts), n, std::move(codes)));
}

size_t CpuNf4Matrix::size_bytes() const {
  size_t total = codes_.size_bytes();
  for (const Part& part : parts_) {
    const size_t blocks = part.rows * blocks_per_row();
    total += blocks + (blocks + kNf4NestedBlock - 1) / kNf4NestedBlock * 4;
  }
  return total;
}

const uint8_t* CpuNf4Matrix::codes(int64_t panel) const {
  return static_cast<const uint8_t*>(codes_.data()) +
         panel * (k_ / 2) * kPairBytes;
}
uint8_t* CpuNf4Matrix::codes(int64_t panel) {
  return static_cast<uint8_t*>(codes_.data()) + panel * (k_ / 2) * kPairBytes;
}

int CpuNf4Matrix::PartOf(int64_t row) const {
  int part = 0;
  while (row >= parts_[part].row_begin + parts_[part].rows) ++part;
  return part;
}

template <typename Source>
void CpuNf4Matrix::QuantizeRow(int64_t row, const Source* source) {
  Part& part = parts_[PartOf(row)];
  float* absmax =
      part.absmax.data() + (row - part.row_begin) * blocks_per_row();
  uint8_t* column = codes(row / kPanelOutputs) + row % kPanelOutputs;
  for (int64_t block = 0; block < blocks_per_row(); ++block) {
    float weights[kNf4Block];
    uint8_t quantized[kNf4Block];
    for (int64_t i = 0; i < kNf4Block; ++i) {
      ConvertElement(source[block * kNf4Block + i], &weights[i]);
    }
    absmax[block] = QuantizeNf4Block(weights, quantized);
    uint8_t* to = column + block * kBlockPairs * kPairBytes;
    for (int64_t pair = 0; pair < kBlockPairs; ++pair) {
      to[pair * kPairBytes] = static_cast<uint8_t>(
          quantized[2 * pair] | quantized[2 * pair + 1] << 4);
    }
  }
  has_row_[row] = true;
  --missing_rows_;
  if (--part.missing_rows == 0) {
    part.scales = QuantizeNf4Scales(part.absmax);
    part.absmax = {};
  }
}

absl::Status CpuNf4Matrix::PackRows(int64_t row_begin, ConstTensor rows) {
  OCTET_RETURN_IF_ERROR(CheckRowsToPack(*this, row_begin, rows));
  for (int64_t r = row_begin; r < row_begin + rows.rows(); ++r) {
    if (has_row_[r]) {
      return absl::FailedPreconditionError(absl::StrCat(
          "NF4 matrix: row ", r, " is written again, expected once"));
    }
  }
  for (int64_t r = 0; r < rows.rows(); ++r) {
    if (rows.dtype() == DType::kF32) {
      QuantizeRow(row_begin + r, rows.as<float>() + r * k_);
    } else if (rows.dtype() == DType::kBF16) {
      QuantizeRow(row_begin + r, rows.as<BF16>() + r * k_);
    } else {
      QuantizeRow(row_begin + r, rows.as<Half>() + r * k_);
    }
  }
  return absl::OkStatus();
}

absl::Status CpuNf4Matrix::CheckReadable() const {
  return missing_rows_ == 0 ? absl::OkStatus()
                            : absl::FailedPreconditionError(absl::StrCat(
                                  "NF4 matrix: ", missing_rows_, " of ", n_,
                                  " rows are missing, expected none"));
}

absl::Status CpuNf4Matrix::UnpackRows(int64_t row_begin, Tensor rows) const {
  OCTET_RETURN_IF_ERROR(CheckRowsToUnpack(*this, row_begin, rows));
  OCTET_RETURN_IF_ERROR(CheckReadable());
  for (int64_t r = 0; r < rows.rows(); ++r) {
    const int64_t row = row_begin + r;
    const Part& part = parts_[PartOf(row)];
    const uint8_t* column = codes(row / kPanelOutputs) + row % kPanelOutputs;
    for (int64_t i = 0; i < k_; ++i) {
      const float absmax = part.scales.Absmax(
          (row - part.row_begin) * blocks_per_row() + i / kNf4Block);
      const int code = column[i / 2 * kPairBytes] >> i % 2 * 4 & 15;
      const float value = kNf4Levels[code] * absmax;
      if (dtype_ == DType::kF32) {
        rows.as<float>()[r * k_ + i] = value;
      } else {
        rows.as<BF16>()[r * k_ + i] = ToBF16(value);
      }
    }
  }
  return absl::OkStatus();
}

CpuNf4Matrix::RowScales CpuNf4Matrix::ScalesOf(int64_t row) const {
  const Part& part = parts_[PartOf(row)];
  const int64_t first = (row - part.row_begin) * blocks_per_row();
  return {part.scales.codes.data() + first, part.scales.scales.data(), first,
          part.scales.mean};
}

const std::byte* CpuNf4Matrix::Block(int64_t panel, int64_t step, int64_t steps,
                                     const PanelKernels& kernels,
                                     std::byte* scratch) const {
  const int64_t steps_per_pair = dtype_ == DType::kF32 ? 2 : 1;
  const auto dequantize = dtype_ == DType::kF32 ? kernels.dequantize_nf4_f32
                                                : kernels.dequantize_nf4_bf16;
  const std::array<float, 256>& map = DynamicMap();
  const int64_t rows = std::min(kPanelOutputs, n_ - panel * kPanelOutputs);
  RowScales scales[kPanelOutputs];
  for (int64_t r = 0; r < rows; ++r) {
    scales[r] = ScalesOf(panel * kPanelOutputs + r);
  }
  alignas(64) float absmax[kPanelOutputs] = {};
  const int64_t end = (step + steps) / steps_per_pair;
  std::byte* to = scratch;
  for (int64_t pair = step / steps_per_pair; pair < end;) {
    const int64_t block = pair / kBlockPairs;
    const int64_t pairs = std::min(end, (block + 1) * kBlockPairs) - pair;
    for (int64_t r = 0; r < rows; ++r) {
      const RowScales& row = scales[r];
      absmax[r] = map[row.codes[block]] *
                      row.scales[(row.first + block) / kNf4NestedBlock] +
                  row.mean;
    }
    dequantize(codes(panel) + pair * kPairBytes, absmax, pairs, to);
    pair += pairs;
    to += pairs * steps_per_pair * kStepBytes;
  }
  return scratch;
}

}  // namespace octet::cpu
