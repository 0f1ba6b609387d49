// A weight matrix W [n, k] in NF4 with double quantisation (kernels/quant/
// nf4.h), whose panels (packed_matrix.h) are dequantised where they are
// multiplied: 0.516 bytes a weight.
//
// Panels of 32 outputs as in packed_matrix.h; the codes of two neighbouring
// inputs share a byte, [panel][k / 2][32], the even input in the lower half.
// The product reads what UnpackRows gives: level times absmax in f32, rounded
// to the compute dtype.
#ifndef OCTET_KERNELS_CPU_NF4_MATRIX_H_
#define OCTET_KERNELS_CPU_NF4_MATRIX_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/cpu/aligned_memory.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/quant/nf4.h"
#include "kernels/tensor.h"

namespace octet::cpu {

// Thread-compatible: any number of readers, or one writer.
class CpuNf4Matrix : public CpuMatrix {
 public:
  // Parts of `part_rows` rows, one under the other, are quantised each as a
  // matrix of its own. Compute dtype f32 or bf16. INVALID_ARGUMENT unless k is
  // a multiple of 64, so that no block crosses rows; RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<CpuNf4Matrix>> Create(
      DType dtype, absl::Span<const int64_t> part_rows, int64_t k);

  int64_t n() const override { return n_; }
  int64_t k() const override { return k_; }
  DType dtype() const override { return dtype_; }
  // While rows are missing their absmax are kept in f32 beside this.
  size_t size_bytes() const override;

  // Every row once, in any order: the absmax of a part are quantised when its
  // last row has come. FAILED_PRECONDITION for a row that is there already.
  absl::Status PackRows(int64_t row_begin, ConstTensor rows) override;
  absl::Status UnpackRows(int64_t row_begin, Tensor rows) const override;

  // FAILED_PRECONDITION while rows are missing.
  absl::Status CheckReadable() const override;
  bool resident() const override { return false; }
  const std::byte* Block(int64_t panel, int64_t step, int64_t steps,
                         const PanelKernels& kernels,
                         std::byte* scratch) const override;

 private:
  struct Part {
    int64_t row_begin = 0;
    int64_t rows = 0;
    int64_t missing_rows = 0;
    std::vector<float> absmax;  // [rows, k / 64], until none is missing
    Nf4Scales scales;           // from then on
  };

  // Where a row's absmax are found, as Nf4Scales::Absmax does.
  struct RowScales {
    const uint8_t* codes = nullptr;  // [k / 64]
    const float* scales = nullptr;   // of the part
    int64_t first = 0;               // absmax of the part before the row
    float mean = 0;
  };

  CpuNf4Matrix(DType dtype, int64_t k, std::vector<Part> parts, int64_t n,
               AlignedMemory codes);

  int64_t blocks_per_row() const { return k_ / kNf4Block; }
  const uint8_t* codes(int64_t panel) const;
  uint8_t* codes(int64_t panel);
  int PartOf(int64_t row) const;
  RowScales ScalesOf(int64_t row) const;
  template <typename Source>
  void QuantizeRow(int64_t row, const Source* source);

  const DType dtype_;
  const int64_t n_;
  const int64_t k_;
  std::vector<Part> parts_;
  std::vector<bool> has_row_;  // until no row is missing
  int64_t missing_rows_;
  AlignedMemory codes_;
};

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_NF4_MATRIX_H_
