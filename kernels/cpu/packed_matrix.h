// A weight matrix W [n, k] in the arrangement that every CPU path reads.
//
// Panels of 32 outputs. Within a panel the inputs follow each other in steps of
// 128 bytes, which hold for all 32 outputs
//   bf16: two neighbouring inputs 2s, 2s+1 (what vdpbf16ps and an AMX tile row
//         eat; the steps are padded to a multiple of 16, one tile)
//   f32:  one input s
// so that [panel][step][32][2] bf16 or [panel][step][32] f32. Outputs beyond n
// and inputs beyond k are zero. The panels of one matrix are contiguous: a
// decode step reads it as one stream.
#ifndef OCTET_KERNELS_CPU_PACKED_MATRIX_H_
#define OCTET_KERNELS_CPU_PACKED_MATRIX_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/cpu/aligned_memory.h"
#include "kernels/cpu/panel_kernels.h"
#include "kernels/tensor.h"

namespace octet::cpu {

inline constexpr int64_t kPanelOutputs = 32;
inline constexpr int64_t kStepBytes = 128;

// Of a matrix, and of whatever multiplies it.
constexpr int64_t InputsPerStep(DType dtype) {
  return dtype == DType::kF32 ? 1 : 2;
}
constexpr int64_t NumPanels(int64_t outputs) {
  return (outputs + kPanelOutputs - 1) / kPanelOutputs;
}

// Steps of a panel with k inputs of `dtype`.
int64_t PanelSteps(DType dtype, int64_t k);

// A matrix of the CPU backend: whatever it is kept as, products read panels.
class CpuMatrix : public PackedMatrix {
 public:
  // Writes rows [row_begin, row_begin + rows.rows()). rows [r, k] f32, bf16 or
  // f16. INVALID_ARGUMENT for a shape or dtype that does not fit; nothing is
  // written then.
  virtual absl::Status PackRows(int64_t row_begin, ConstTensor rows) = 0;
  // The inverse. rows [r, k] of the matrix's dtype.
  virtual absl::Status UnpackRows(int64_t row_begin, Tensor rows) const = 0;

  // May products read it?
  virtual absl::Status CheckReadable() const = 0;
  // Are its panels in memory as they are read?
  virtual bool resident() const = 0;
  // Steps [step, step + steps) of a panel, in memory or written to `scratch`
  // (room for them, 64-byte aligned). Unless resident, step is a multiple of
  // the steps of 32 inputs. Thread-safe.
  virtual const std::byte* Block(int64_t panel, int64_t step, int64_t steps,
                                 const PanelKernels& kernels,
                                 std::byte* scratch) const = 0;
};

// Thread-compatible: any number of readers, or one writer.
class CpuPackedMatrix : public CpuMatrix {
 public:
  // All zero. INVALID_ARGUMENT for a dtype other than f32 or bf16 or a negative
  // dimension; RESOURCE_EXHAUSTED names the size asked for.
  static absl::StatusOr<std::unique_ptr<CpuPackedMatrix>> Create(DType dtype,
                                                                 int64_t n,
                                                                 int64_t k);

  int64_t n() const override { return n_; }
  int64_t k() const override { return k_; }
  DType dtype() const override { return dtype_; }
  // What is allocated, padding included.
  size_t size_bytes() const override { return memory_.size_bytes(); }

  int64_t num_panels() const { return num_panels_; }
  int64_t num_steps() const { return num_steps_; }
  size_t panel_bytes() const {
    return static_cast<size_t>(num_steps_) * kStepBytes;
  }
  const std::byte* panel(int64_t index) const {
    return static_cast<const std::byte*>(memory_.data()) +
           index * panel_bytes();
  }
  std::byte* mutable_panel(int64_t index) {
    return static_cast<std::byte*>(memory_.data()) + index * panel_bytes();
  }

  // Converted (to nearest even) to the matrix's dtype.
  absl::Status PackRows(int64_t row_begin, ConstTensor rows) override;
  absl::Status UnpackRows(int64_t row_begin, Tensor rows) const override;

  absl::Status CheckReadable() const override { return absl::OkStatus(); }
  bool resident() const override { return true; }
  const std::byte* Block(int64_t panel_index, int64_t step, int64_t /*steps*/,
                         const PanelKernels& /*kernels*/,
                         std::byte* /*scratch*/) const override {
    return panel(panel_index) + step * kStepBytes;
  }

 private:
  CpuPackedMatrix(DType dtype, int64_t n, int64_t k, int64_t num_panels,
                  int64_t num_steps, AlignedMemory memory);

  const DType dtype_;
  const int64_t n_;
  const int64_t k_;
  const int64_t num_panels_;
  const int64_t num_steps_;
  AlignedMemory memory_;
};

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_PACKED_MATRIX_H_
