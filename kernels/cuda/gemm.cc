#include "kernels/cuda/gemm.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/gemm_kernels.h"
#include "kernels/cuda/packed_matrix.h"

namespace octet::cuda {
namespace {

constexpr int64_t kVectorBytes = 16;

bool RowsAligned(ConstTensor rows) {
  return reinterpret_cast<uintptr_t>(rows.data()) % kVectorBytes == 0 &&
         rows.dim(1) * SizeOf(rows.dtype()) % kVectorBytes == 0;
}

int32_t TilesOf(int64_t num_rows, const GemmArgs& args) {
  const int64_t tile_cols =
      args.swiglu ? kGemmTileCols / 2 : int64_t{kGemmTileCols};
  return static_cast<int32_t>((num_rows + kGemmTileRows - 1) / kGemmTileRows *
                              ((args.n + tile_cols - 1) / tile_cols));
}

void AddGroup(const PackedMatrix& w, int64_t row_begin, int64_t row_end,
              GemmArgs& args) {
  GemmGroups& groups = args.groups;
  const int32_t g = groups.num_groups++;
  if (g == 0) {
    groups.row_begin[0] = static_cast<int32_t>(row_begin);
    groups.tile_begin[0] = 0;
  }
  groups.weights[g] = static_cast<const CudaPackedMatrix&>(w).data();
  groups.row_begin[g + 1] = static_cast<int32_t>(row_end);
  groups.tile_begin[g + 1] =
      groups.tile_begin[g] + TilesOf(row_end - row_begin, args);
}

// Launches the groups that were added, and empties the list.
absl::Status Flush(DType dtype, int max_blocks, GemmArgs& args,
                   cudaStream_t stream) {
  GemmGroups& groups = args.groups;
  if (groups.num_groups == 0) return absl::OkStatus();
  const int blocks = std::min(max_blocks, groups.tile_begin[groups.num_groups]);
  const cudaError_t error = dtype == DType::kF32
                                ? LaunchGemmF32(args, blocks, stream)
                                : LaunchGemmBf16(args, blocks, stream);
  groups.num_groups = 0;
  return CudaStatus(
      error, absl::StrCat("launch of the ", Name(dtype), " matrix product"));
}

absl::StatusOr<int> Attribute(cudaDeviceAttr attribute, int device) {
  int value = 0;
  OCTET_RETURN_IF_ERROR(
      CudaStatus(cudaDeviceGetAttribute(&value, attribute, device),
                 absl::StrCat("cudaDeviceGetAttribute ", attribute)));
  return value;
}

}  // namespace

absl::StatusOr<GemmLauncher> GemmLauncher::Create(
    const GemmLauncherOptions& options) {
  int device = 0;
  OCTET_RETURN_IF_ERROR(CudaStatus(cudaGetDevice(&device), "cudaGetDevice"));
  GemmLauncher launcher;
  OCTET_ASSIGN_OR_RETURN(
      const int shared_bytes,
      Attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  launcher.deep_ = options.max_stages >= kGemmDeepStages &&
                   shared_bytes >= GemmSharedBytes(kGemmDeepStages);
  const std::string call =
      absl::StrCat("cudaFuncSetAttribute of ", GemmSharedBytes(kGemmStages),
                   " bytes of shared memory for the matrix product");
  OCTET_RETURN_IF_ERROR(CudaStatus(ConfigureGemmBf16(launcher.deep_), call));
  OCTET_RETURN_IF_ERROR(CudaStatus(ConfigureGemmF32(launcher.deep_), call));
  launcher.max_blocks_ = options.max_blocks;
  if (launcher.max_blocks_ == 0) {
    OCTET_ASSIGN_OR_RETURN(const int multiprocessors,
                           Attribute(cudaDevAttrMultiProcessorCount, device));
    launcher.max_blocks_ = multiprocessors * kGemmBlocksPerSm;
  }
  return launcher;
}

absl::Status GemmLauncher::Run(ConstTensor x,
                               absl::Span<const PackedMatrix* const> w,
                               absl::Span<const int64_t> row_offsets, Form form,
                               Tensor out, cudaStream_t stream) const {
  if (x.dim(0) > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(
        absl::StrCat("matrix product: x has ", x.dim(0),
                     " rows, expected at most 2147483647"));
  }
  if (out.num_elements() == 0) return absl::OkStatus();
  if (x.dim(1) == 0) {  // empty sums
    if (form == Form::kAccumulate) return absl::OkStatus();
    return CudaStatus(cudaMemsetAsync(out.data(), 0, out.num_bytes(), stream),
                      "cudaMemsetAsync of an empty matrix product");
  }
  GemmArgs args;
  args.x = x.data();
  args.out = out.data();
  args.n = static_cast<int32_t>(out.dim(1));
  args.k = static_cast<int32_t>(x.dim(1));
  args.ld = static_cast<const CudaPackedMatrix*>(w[0])->ld();
  args.output = form == Form::kAccumulate     ? GemmOutput::kAddF32
                : out.dtype() == DType::kBF16 ? GemmOutput::kBF16
                                              : GemmOutput::kF32;
  args.x_aligned = RowsAligned(x);
  args.out_aligned = RowsAligned(out);
  args.swiglu = form == Form::kSwiGlu;
  args.deep = deep_;
  for (size_t g = 0; g < w.size(); ++g) {
    if (row_offsets[g] == row_offsets[g + 1]) continue;
    AddGroup(*w[g], row_offsets[g], row_offsets[g + 1], args);
    if (args.groups.num_groups == kGemmMaxGroups) {
      OCTET_RETURN_IF_ERROR(Flush(x.dtype(), max_blocks_, args, stream));
    }
  }
  return Flush(x.dtype(), max_blocks_, args, stream);
}

absl::Status GemmLauncher::Gemm(ConstTensor x, const PackedMatrix& w,
                                bool accumulate, Tensor out,
                                cudaStream_t stream) const {
  const PackedMatrix* const matrices[] = {&w};
  const int64_t offsets[] = {0, x.dim(0)};
  return Run(x, matrices, offsets,
             accumulate ? Form::kAccumulate : Form::kPlain, out, stream);
}

absl::Status GemmLauncher::GroupedGemm(ConstTensor x,
                                       absl::Span<const PackedMatrix* const> w,
                                       absl::Span<const int64_t> row_offsets,
                                       Tensor out, cudaStream_t stream) const {
  return Run(x, w, row_offsets, Form::kPlain, out, stream);
}

absl::Status GemmLauncher::GroupedGemmAccumulate(
    ConstTensor x, absl::Span<const PackedMatrix* const> w,
    absl::Span<const int64_t> row_offsets, Tensor out,
    cudaStream_t stream) const {
  return Run(x, w, row_offsets, Form::kAccumulate, out, stream);
}

absl::Status GemmLauncher::GroupedGemmSwiGlu(
    ConstTensor x, absl::Span<const PackedMatrix* const> w13,
    absl::Span<const int64_t> row_offsets, Tensor out,
    cudaStream_t stream) const {
  return Run(x, w13, row_offsets, Form::kSwiGlu, out, stream);
}

}  // namespace octet::cuda
