// The product kernels as their launcher (gemm.h) sees them: plain arguments,
// tile sizes, and one launch function per compute dtype.
#ifndef OCTET_KERNELS_CUDA_GEMM_KERNELS_H_
#define OCTET_KERNELS_CUDA_GEMM_KERNELS_H_

#include <cuda_runtime.h>

#include <cstdint>

namespace octet::cuda {

// A block computes tiles of 128 rows by 128 columns of x W^T, whatever the
// number of rows. In the SwiGLU form the columns are 64 gate columns and the 64
// up columns of the same indices: 64 columns of out.
inline constexpr int kGemmTileRows = 128;
inline constexpr int kGemmTileCols = 128;
inline constexpr int kGemmThreads = 256;
// Operands go through shared memory in stages of 128 bytes of every row and
// every column of the tile (64 bf16 or 32 f32 inputs): all but one are under
// way while that one is multiplied.
inline constexpr int kGemmStageRowBytes = 128;
inline constexpr int kGemmStageBytes =
    (kGemmTileRows + kGemmTileCols) * kGemmStageRowBytes;
// 96 KiB fit every GPU from sm_80 on (sm_86 and sm_89 allow 99), 160 KiB those
// of data centres (sm_80 allows 163). In decode a multiprocessor then has 32 or
// 64 KiB of W under way; bandwidth * latency / multiprocessors is what it takes
// (8 TB/s * 0.9 us / 148 = 49 KB).
inline constexpr int kGemmStages = 3;
inline constexpr int kGemmDeepStages = 5;
constexpr int GemmSharedBytes(int stages) { return stages * kGemmStageBytes; }
// One block fills a multiprocessor: the sums and the operands in registers are
// worth more than a second block, since the copies run on while a tile ends.
inline constexpr int kGemmBlocksPerSm = 1;

// Groups travel in the kernel's arguments (4 KiB), so a call copies nothing to
// the device beforehand.
inline constexpr int kGemmMaxGroups = 128;

enum class GemmOutput : int32_t {
  kF32,     // out = x W^T, f32
  kBF16,    // the same, rounded to nearest even
  kAddF32,  // out += x W^T, f32
};

// Groups with at least one row, in the order of their rows.
struct GemmGroups {
  int32_t num_groups = 0;
  int32_t row_begin[kGemmMaxGroups + 1];   // of x and out
  int32_t tile_begin[kGemmMaxGroups + 1];  // in the work list
  const void* weights[kGemmMaxGroups];     // W [n, ld] of each group
};

struct GemmArgs {
  const void* x = nullptr;  // [T, k] bf16 or f32, rows contiguous
  void* out = nullptr;      // [T, n]
  int32_t n = 0;            // columns of out: W has n rows, or 2 n with SwiGLU
  int32_t k = 0;            // 1 or more
  int64_t ld = 0;           // elements from row to row of W, a multiple of 128
                            // bytes, zero from k on
  GemmOutput output = GemmOutput::kF32;
  bool x_aligned = false;    // every row of x begins at a multiple of 16 bytes
  bool out_aligned = false;  // the same for out
  bool swiglu = false;
  bool deep = false;  // kGemmDeepStages, if x is aligned; else kGemmStages
  GemmGroups groups;
};

// The work list is walked by `num_blocks` blocks, 1 or more.
cudaError_t LaunchGemmBf16(const GemmArgs& args, int num_blocks,
                           cudaStream_t stream);
cudaError_t LaunchGemmF32(const GemmArgs& args, int num_blocks,
                          cudaStream_t stream);

// Once per device, before the first launch: shared memory beyond 48 KiB.
// `deep`: also for deep launches.
cudaError_t ConfigureGemmBf16(bool deep);
cudaError_t ConfigureGemmF32(bool deep);

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_GEMM_KERNELS_H_
