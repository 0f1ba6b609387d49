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

template <typename Tile, bool kAligned, int kStages>
__global__ void __launch_bounds__(kGemmThreads, kGemmBlocksPerSm)
    GemmKernel(const GemmArgs args) {
  using Map = typename Tile::Map;
  constexpr int kStageInputs =
      kGemmStageRowBytes / static_cast<int>(sizeof(typename Tile::Element));
  OCTET_DYNAMIC_SHARED(uint8_t, shared);
  GemmLoader<typename Tile::Element, Map, kAligned> loader(args);
#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    loader.LoadStage(shared + s * kGemmStageBytes);
    CpAsyncCommit();
  }
  int32_t stage = 0;
  for (GemmTileWalk<Map::kOutCols> walk(args.groups); !walk.done();
       walk.Next()) {
    const GemmTile tile = walk.tile();
    Tile part(args, tile);
    for (int32_t k = 0; k < args.k; k += kStageInputs) {
      CpAsyncWait<kStages - 2>();
      // From here on this stage is there for all threads, and none of them
      // reads the stage before it, which is the one to be filled.
      __syncthreads();
      loader.LoadStage(shared +
                       (stage + kStages - 1) % kStages * kGemmStageBytes);
      CpAsyncCommit();
      part.MultiplyStage(shared + stage * kGemmStageBytes);
      stage = stage + 1 == kStages ? 0 : stage + 1;
    }
    part.Store(args, tile);
  }
}

template <typename Tile, bool kAligned, int kStages>
cudaError_t LaunchKernel(const GemmArgs& args, int num_blocks,
                         cudaStream_t stream) {
  return OCTET_LAUNCH((GemmKernel<Tile, kAligned, kStages>), num_blocks,
                      kGemmThreads, GemmSharedBytes(kStages), stream, args);
}

template <typename Tile>
cudaError_t LaunchTile(const GemmArgs& args, int num_blocks,
                       cudaStream_t stream) {
  if (!args.x_aligned) {
    return LaunchKernel<Tile, false, kGemmStages>(args, num_blocks, stream);
  }
  return args.deep
             ? LaunchKernel<Tile, true, kGemmDeepStages>(args, num_blocks,
                                                         stream)
             : LaunchKernel<Tile, true, kGemmStages>(args, num_blocks, stream);
}

// Tile<false> is the plain product, Tile<true> the one with SwiGLU.
template <template <bool> typename Tile>
cudaError_t LaunchGemm(const GemmArgs& args, int num_blocks,
                       cudaStream_t stream) {
  return args.swiglu ? LaunchTile<Tile<true>>(args, num_blocks, stream)
                     : LaunchTile<Tile<false>>(args, num_blocks, stream);
}

template <template <bool> typename Tile>
cudaError_t ConfigureGemm(bool deep) {
  struct Kernel {
    void (*function)(GemmArgs);
    int stages;
  };
  for (const Kernel& kernel :
       {Kernel{&GemmKernel<Tile<false>, false, kGemmStages>, kGemmStages},
        Kernel{&GemmKernel<Tile<false>, true, kGemmStages>, kGemmStages},
        Kernel{&GemmKernel<Tile<true>, false, kGemmStages>, kGemmStages},
        Kernel{&GemmKernel<Tile<true>, true, kGemmStages>, kGemmStages},
        Kernel{&GemmKernel<Tile<false>, true, kGemmDeepStages>,
               kGemmDeepStages},
        Kernel{&GemmKernel<Tile<true>, true, kGemmDeepStages>,
               kGemmDeepStages}}) {
    if (kernel.stages == kGemmDeepStages && !deep) continue;
    const cudaError_t error =
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel.function),
                             cudaFuncAttributeMaxDynamicSharedMemorySize,
                             GemmSharedBytes(kernel.stages));
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_GEMM_PIPELINE_CUH_
