// What the matrix products need besides their operands: kernels, threads, and
// scratch memory that is kept between calls. Used by one call at a time.
#ifndef OCTET_KERNELS_CPU_GEMM_WORKSPACE_H_
#define OCTET_KERNELS_CPU_GEMM_WORKSPACE_H_

#include <cstddef>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cpu/aligned_memory.h"
#include "kernels/cpu/gemm_kernels.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/panel_kernels.h"
#include "kernels/cpu/panel_source.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/dtype.h"

namespace octet::cpu {

class GemmWorkspace {
 public:
  // REQUIRES: `isa` is in SupportedIsas(). The pool must outlive the workspace.
  GemmWorkspace(Isa isa, ThreadPool* pool);
  // With given kernels, for tests.
  GemmWorkspace(const GemmKernels& f32, const GemmKernels& bf16,
                const EpilogueKernels& epilogue, const PanelKernels& panels,
                ThreadPool* pool);

  ThreadPool& pool() { return *pool_; }
  const GemmKernels& kernels(DType dtype) const {
    return dtype == DType::kF32 ? f32_ : bf16_;
  }
  const EpilogueKernels& epilogue() const { return epilogue_; }
  const PanelKernels& panels() const { return panels_; }

  // At least num_bytes, contents undefined, valid until the next call.
  absl::StatusOr<std::byte*> PackedRows(size_t num_bytes);
  // For each thread of the pool: sums, and a block of a panel beside them.
  absl::Status ReserveSums(size_t num_bytes);
  float* Sums(int thread) {
    return reinterpret_cast<float*>(PanelBlock(thread) + kPanelBlockBytes);
  }
  std::byte* PanelBlock(int thread) {
    return static_cast<std::byte*>(scratch_[thread].data());
  }

 private:
  static constexpr size_t kPanelBlockBytes = kBlockSteps * kStepBytes;

  const GemmKernels& f32_;
  const GemmKernels& bf16_;
  const EpilogueKernels& epilogue_;
  const PanelKernels& panels_;
  ThreadPool* const pool_;
  AlignedMemory packed_rows_;
  std::vector<AlignedMemory> scratch_;
};

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_GEMM_WORKSPACE_H_
