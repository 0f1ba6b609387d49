// The product kernel, for any way to multiply a stage: a Tile is what a thread
// holds of the block's tile,
//   Element, Map                 see GemmLoader
//   Tile(args, tile)             all sums zero
//   MultiplyStage(stage)         adds the products of one stage
//   Store(args, tile)            writes what the thread has of out
#ifndef OCTET_KERNELS_CUDA_GEMM_PIPELINE_CUH_
#define OCTET_KERNELS_CUDA_GEMM_PIPELINE_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/gemm_kernels.h"
#include "kernels/cuda/gemm_tiles.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"

namespace octet::cuda {

template <typename Tile, bool kAligned>
__global__ void __launch_bounds__(kGemmThreads, kGemmBlocksPerSm)
    GemmKernel(const GemmArgs args) {
  using Map = typename Tile::Map;
  constexpr int kStageInputs =
      kGemmStageRowBytes / static_cast<int>(sizeof(typename Tile::Element));
  OCTET_DYNAMIC_SHARED(uint8_t, shared);
  GemmLoader<typename Tile::Element, Map, kAligned> loader(args);
#pragma unroll
  for (int s = 0; s < kGemmStages - 1; ++s) {
    loader.LoadStage(shared + s * kGemmStageBytes);
    CpAsyncCommit();
  }
  int32_t stage = 0;
  for (GemmTileWalk<Map::kOutCols> walk(args.groups); !walk.done();
       walk.Next()) {
    const GemmTile tile = walk.tile();
    Tile part(args, tile);
    for (int32_t k = 0; k < args.k; k += kStageInputs) {
      CpAsyncWait<kGemmStages - 2>();
      // From here on this stage is there for all threads, and none of them
      // reads the stage before it, which is the one to be filled.
      __syncthreads();
      loader.LoadStage(shared + (stage + kGemmStages - 1) % kGemmStages *
                                    kGemmStageBytes);
      CpAsyncCommit();
      part.MultiplyStage(shared + stage * kGemmStageBytes);
      stage = stage + 1 == kGemmStages ? 0 : stage + 1;
    }
    part.Store(args, tile);
  }
}

template <typename Tile, bool kAligned>
cudaError_t LaunchTile(const GemmArgs& args, int num_blocks,
                       cudaStream_t stream) {
  return OCTET_LAUNCH((GemmKernel<Tile, kAligned>), num_blocks, kGemmThreads,
                      kGemmSharedBytes, stream, args);
}

// Tile<false> is the plain product, Tile<true> the one with SwiGLU.
template <template <bool> typename Tile>
cudaError_t LaunchGemm(const GemmArgs& args, int num_blocks,
                       cudaStream_t stream) {
  if (args.swiglu) {
    return args.x_aligned
               ? LaunchTile<Tile<true>, true>(args, num_blocks, stream)
               : LaunchTile<Tile<true>, false>(args, num_blocks, stream);
  }
  return args.x_aligned
             ? LaunchTile<Tile<false>, true>(args, num_blocks, stream)
             : LaunchTile<Tile<false>, false>(args, num_blocks, stream);
}

template <template <bool> typename Tile>
cudaError_t ConfigureGemm() {
  for (const auto kernel :
       {&GemmKernel<Tile<false>, false>, &GemmKernel<Tile<false>, true>,
        &GemmKernel<Tile<true>, false>, &GemmKernel<Tile<true>, true>}) {
    const cudaError_t error = cudaFuncSetAttribute(
        reinterpret_cast<const void*>(kernel),
        cudaFuncAttributeMaxDynamicSharedMemorySize, kGemmSharedBytes);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_GEMM_PIPELINE_CUH_
