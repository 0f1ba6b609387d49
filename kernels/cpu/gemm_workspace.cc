#include "kernels/cpu/gemm_workspace.h"

#include "base/status_macros.h"

namespace octet::cpu {

const GemmKernels& GemmKernelsFor(Isa isa, DType dtype) {
  const bool f32 = dtype == DType::kF32;
  switch (isa) {
    case Isa::kAvx2:
      return f32 ? kAvx2F32Kernels : kAvx2Bf16Kernels;
    case Isa::kAvx512:
      return f32 ? kAvx512F32Kernels : kAvx512Bf16Kernels;
    case Isa::kAvx512Bf16:
      return f32 ? kAvx512F32Kernels : kAvx512DotBf16Kernels;
    case Isa::kAmx:
      break;
  }
  return f32 ? kAvx512F32Kernels : kAmxBf16Kernels;
}

const EpilogueKernels& EpilogueKernelsFor(Isa isa) {
  return isa == Isa::kAvx2 ? kAvx2Epilogue : kAvx512Epilogue;
}

GemmWorkspace::GemmWorkspace(Isa isa, ThreadPool* pool)
    : GemmWorkspace(GemmKernelsFor(isa, DType::kF32),
                    GemmKernelsFor(isa, DType::kBF16), EpilogueKernelsFor(isa),
                    PanelKernelsFor(isa), pool) {}

GemmWorkspace::GemmWorkspace(const GemmKernels& f32, const GemmKernels& bf16,
                             const EpilogueKernels& epilogue,
                             const PanelKernels& panels, ThreadPool* pool)
    : f32_(f32),
      bf16_(bf16),
      epilogue_(epilogue),
      panels_(panels),
      pool_(pool),
      scratch_(pool->num_threads()) {}

absl::StatusOr<std::byte*> GemmWorkspace::PackedRows(size_t num_bytes) {
  if (packed_rows_.size_bytes() < num_bytes) {
    OCTET_ASSIGN_OR_RETURN(packed_rows_, AlignedMemory::Allocate(num_bytes));
  }
  return static_cast<std::byte*>(packed_rows_.data());
}

absl::Status GemmWorkspace::ReserveSums(size_t num_bytes) {
  for (AlignedMemory& scratch : scratch_) {
    if (scratch.size_bytes() >= kPanelBlockBytes + num_bytes) continue;
    OCTET_ASSIGN_OR_RETURN(
        scratch, AlignedMemory::Allocate(kPanelBlockBytes + num_bytes));
  }
  return absl::OkStatus();
}

}  // namespace octet::cpu
