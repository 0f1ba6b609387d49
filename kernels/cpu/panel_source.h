// Where the second operand of a product comes from, panel by panel
// (packed_matrix.h): weights as they lie in memory, their transposes, or
// activations. Internal to kernels/cpu.
#ifndef OCTET_KERNELS_CPU_PANEL_SOURCE_H_
#define OCTET_KERNELS_CPU_PANEL_SOURCE_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/panel_kernels.h"
#include "kernels/tensor.h"

namespace octet::cpu {

// A block of this many steps (16 KiB) stays in the first-level cache while all
// row blocks of a chunk pass over it; whole tiles (16 steps) of AMX.
inline constexpr int64_t kBlockSteps = 128;

// Thread-safe: Block is called by many threads at once.
class PanelSource {
 public:
  virtual ~PanelSource() = default;
  // Of every panel of every group.
  virtual int64_t num_steps() const = 0;
  // Are whole panels in memory? Then a block may be as long as a panel, and
  // what follows it may be fetched ahead; else it is filled when asked for.
  virtual bool resident() const = 0;
  // Steps [step, step + steps) of a panel: in memory, or written to `scratch`
  // (kBlockSteps steps, 64-byte aligned). Unless resident, step is a multiple
  // of kBlockSteps and steps at most that.
  virtual const std::byte* Block(int group, int64_t panel, int64_t step,
                                 int64_t steps, std::byte* scratch) const = 0;
  // Fetches bytes [begin, end) of what Block will read into the second-level
  // cache; whole cache lines. Does nothing where they need not come from
  // memory.
  virtual void FetchAhead(int /*group*/, int64_t /*panel*/, int64_t /*step*/,
                          int64_t /*begin*/, int64_t /*end*/) const {}
};

// The panels of W [n, k], one W per group: steps run over k.
class WeightPanels : public PanelSource {
 public:
  // The matrices are CpuMatrix of one shape and dtype, at least one.
  WeightPanels(absl::Span<const PackedMatrix* const> w,
               const PanelKernels& kernels);
  int64_t num_steps() const override {
    return PanelSteps(w_[0]->dtype(), w_[0]->k());
  }
  bool resident() const override { return resident_; }
  const std::byte* Block(int group, int64_t panel, int64_t step, int64_t steps,
                         std::byte* scratch) const override;

 private:
  const absl::Span<const PackedMatrix* const> w_;
  const PanelKernels& kernels_;
  bool resident_;  // all of them
};

// The panels of W^T [k, n] from W [n, k]: steps run over n. A panel of 32
// inputs is, for every 32 outputs, one piece of a panel of W; transposing it
// takes about as long as multiplying it with 8 rows. The pieces lie far apart,
// so they are fetched ahead.
class TransposedWeightPanels : public PanelSource {
 public:
  // As above.
  TransposedWeightPanels(absl::Span<const PackedMatrix* const> w,
                         const PanelKernels& kernels)
      : w_(w), kernels_(kernels) {}
  int64_t num_steps() const override {
    return PanelSteps(w_[0]->dtype(), w_[0]->n());
  }
  bool resident() const override { return false; }
  const std::byte* Block(int group, int64_t panel, int64_t step, int64_t steps,
                         std::byte* scratch) const override;
  void FetchAhead(int group, int64_t panel, int64_t step, int64_t begin,
                  int64_t end) const override;

 private:
  const absl::Span<const PackedMatrix* const> w_;
  const PanelKernels& kernels_;
};

// The panels of x^T [k, T] from activations x [T, k] (f32 or bf16, row-major):
// steps run over T. A panel is a few bytes of every row, which are fetched
// ahead.
class ActivationPanels : public PanelSource {
 public:
  ActivationPanels(ConstTensor x, const PanelKernels& kernels)
      : x_(x), kernels_(kernels) {}
  int64_t num_steps() const override {
    return PanelSteps(x_.dtype(), x_.dim(0));
  }
  bool resident() const override { return false; }
  const std::byte* Block(int group, int64_t panel, int64_t step, int64_t steps,
                         std::byte* scratch) const override;
  void FetchAhead(int group, int64_t panel, int64_t step, int64_t begin,
                  int64_t end) const override;

 private:
  const ConstTensor x_;
  const PanelKernels& kernels_;
};

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_PANEL_SOURCE_H_
