#include "kernels/cuda/launch.h"
#include "kernels/cuda/permute.h"

namespace octet::cuda {
namespace {

constexpr int kWarpsPerBlock = 8;
constexpr int kUnitsPerLane = 4;
constexpr int kUnitsPerWarp = 32 * kUnitsPerLane;

bool IsAligned(const void* pointer, int64_t row_bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && row_bytes % 16 == 0;
}

// The row of this warp.
__device__ int64_t WarpRow() {
  return int64_t{blockIdx.x} * kWarpsPerBlock + threadIdx.x / 32;
}
// The first unit of this lane; the others follow at distances of 32.
__device__ int64_t FirstUnit() {
  return int64_t{blockIdx.y} * kUnitsPerWarp + threadIdx.x % 32;
}
dim3 GridFor(int64_t num_rows, int64_t units_per_row) {
  return dim3(
      static_cast<unsigned>((num_rows + kWarpsPerBlock - 1) / kWarpsPerBlock),
      static_cast<unsigned>((units_per_row + kUnitsPerWarp - 1) /
                            kUnitsPerWarp));
}

template <typename Unit>
__global__ void __launch_bounds__(32 * kWarpsPerBlock)
    GatherRowsKernel(const GatherRowsArgs args) {
  const int64_t row = WarpRow();
  if (row >= args.num_rows) return;
  const int64_t row_units = args.row_bytes / sizeof(Unit);
  const Unit* from =
      static_cast<const Unit*>(args.src) + args.row_ids[row] * row_units;
  Unit* to = static_cast<Unit*>(args.out) + row * row_units;
  Unit units[kUnitsPerLane];
#pragma unroll
  for (int i = 0; i < kUnitsPerLane; ++i) {
    const int64_t at = FirstUnit() + 32 * i;
    if (at < row_units) units[i] = from[at];
  }
#pragma unroll
  for (int i = 0; i < kUnitsPerLane; ++i) {
    const int64_t at = FirstUnit() + 32 * i;
    if (at < row_units) to[at] = units[i];
  }
}

// 16 bytes, or one element, of a row as f32.
struct F32Unit {
  static constexpr int kSize = 1;
  using Word = float;
  __device__ static void Unpack(Word word, float* values) { values[0] = word; }
};
struct F32x4Unit {
  static constexpr int kSize = 4;
  using Word = float4;
  __device__ static void Unpack(Word word, float* values) {
    values[0] = word.x;
    values[1] = word.y;
    values[2] = word.z;
    values[3] = word.w;
  }
};
struct Bf16Unit {
  static constexpr int kSize = 1;
  using Word = uint16_t;
  __device__ static void Unpack(Word word, float* values) {
    values[0] = __uint_as_float(uint32_t{word} << 16);
  }
};
struct Bf16x8Unit {
  static constexpr int kSize = 8;
  using Word = uint4;
  __device__ static void Unpack(Word word, float* values) {
    const uint32_t pairs[4] = {word.x, word.y, word.z, word.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      values[2 * i] = __uint_as_float(pairs[i] << 16);
      values[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
    }
  }
};

template <int kSize>
__device__ void AddTo(float* out, const float* sums) {
  if constexpr (kSize == 1) {
    *out += *sums;
  } else {
#pragma unroll
    for (int i = 0; i < kSize; i += 4) {
      float4 value = *reinterpret_cast<const float4*>(out + i);
      value.x += sums[i];
      value.y += sums[i + 1];
      value.z += sums[i + 2];
      value.w += sums[i + 3];
      *reinterpret_cast<float4*>(out + i) = value;
    }
  }
}

template <typename Unit>
__global__ void __launch_bounds__(32 * kWarpsPerBlock)
    CombineRowsKernel(const CombineRowsArgs args) {
  using Word = typename Unit::Word;
  const int64_t token = WarpRow();
  if (token >= args.num_tokens) return;
  const int64_t row_units = args.hidden / Unit::kSize;
  float sums[kUnitsPerLane][Unit::kSize] = {};
#pragma unroll 2
  for (int32_t k = 0; k < args.top_k; ++k) {
    const float weight = args.weights[token * args.top_k + k];
    const Word* from = static_cast<const Word*>(args.rows) +
                       args.slot_rows[token * args.top_k + k] * row_units;
#pragma unroll
    for (int i = 0; i < kUnitsPerLane; ++i) {
      const int64_t at = FirstUnit() + 32 * i;
      if (at >= row_units) break;
      float values[Unit::kSize];
      Unit::Unpack(from[at], values);
#pragma unroll
      for (int c = 0; c < Unit::kSize; ++c) {
        sums[i][c] = fmaf(weight, values[c], sums[i][c]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kUnitsPerLane; ++i) {
    const int64_t at = FirstUnit() + 32 * i;
    if (at >= row_units) break;
    AddTo<Unit::kSize>(args.out + token * args.hidden + at * Unit::kSize,
                       sums[i]);
  }
}

template <typename Unit>
cudaError_t LaunchGather(const GatherRowsArgs& args, cudaStream_t stream) {
  const int64_t row_units = args.row_bytes / sizeof(Unit);
  return OCTET_LAUNCH((GatherRowsKernel<Unit>),
                      GridFor(args.num_rows, row_units), 32 * kWarpsPerBlock, 0,
                      stream, args);
}

template <typename Unit>
cudaError_t LaunchCombine(const CombineRowsArgs& args, cudaStream_t stream) {
  return OCTET_LAUNCH((CombineRowsKernel<Unit>),
                      GridFor(args.num_tokens, args.hidden / Unit::kSize),
                      32 * kWarpsPerBlock, 0, stream, args);
}

}  // namespace

cudaError_t LaunchGatherRows(const GatherRowsArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0 || args.row_bytes == 0) return cudaSuccess;
  if (IsAligned(args.src, args.row_bytes) &&
      IsAligned(args.out, args.row_bytes)) {
    return LaunchGather<uint4>(args, stream);
  }
  const auto address = reinterpret_cast<uintptr_t>(args.src) |
                       reinterpret_cast<uintptr_t>(args.out) |
                       static_cast<uintptr_t>(args.row_bytes);
  if (address % 4 == 0) return LaunchGather<uint32_t>(args, stream);
  if (address % 2 == 0) return LaunchGather<uint16_t>(args, stream);
  return LaunchGather<uint8_t>(args, stream);
}

cudaError_t LaunchCombineRows(const CombineRowsArgs& args,
                              cudaStream_t stream) {
  if (args.num_tokens == 0 || args.hidden == 0) return cudaSuccess;
  const int64_t row_bytes = int64_t{args.hidden} * (args.rows_are_bf16 ? 2 : 4);
  const bool aligned =
      IsAligned(args.rows, row_bytes) && IsAligned(args.out, row_bytes);
  if (args.rows_are_bf16) {
    return aligned ? LaunchCombine<Bf16x8Unit>(args, stream)
                   : LaunchCombine<Bf16Unit>(args, stream);
  }
  return aligned ? LaunchCombine<F32x4Unit>(args, stream)
                 : LaunchCombine<F32Unit>(args, stream);
}

}  // namespace octet::cuda
