#include "kernels/cuda/launch.h"
#include "kernels/cuda/sampling_kernels.h"
#include "kernels/cuda/token_search.cuh"

namespace octet::cuda {
namespace {

constexpr int kEditThreads = 128;
constexpr float kNever = -__builtin_inff();

__global__ void __launch_bounds__(kEditThreads)
    LogitEditKernel(const LogitEditArgs args) {
  const int64_t i = int64_t{blockIdx.x} * kEditThreads + threadIdx.x;
  if (i >= args.num_edits) return;
  const LogitEdit edit = args.edits[i];
  const LogitPenalties penalties = args.penalties[edit.row];
  float* logit = args.logits + edit.row * args.vocab + edit.id;
  float value = edit.banned ? kNever : *logit;
  if (edit.repeated) {
    value = value > 0.0f ? value / penalties.repetition
                         : value * penalties.repetition;
  }
  if (edit.count > 0) {
    value -= penalties.frequency * static_cast<float>(edit.count);
    value -= penalties.presence;
  }
  *logit = value;
}

// The row's largest key; NaN and plus infinity in `status`.
__device__ __forceinline__ TokenKey LargestKey(const TokenSet& set,
                                               TokenStatus* status) {
  TokenKey largest = 0;
  int nan = 0;
  for (int32_t id = threadIdx.x; id < set.vocab; id += kTokenThreads) {
    const float logit = set.logits[id];
    nan |= logit != logit;
    largest = LargerKey()(largest, KeyOf(logit, id));
  }
  largest = BlockReduce(largest, LargerKey());
  constexpr TokenKey kInfinityRank = 0xff800000u;
  if (__syncthreads_or(nan)) {
    *status = TokenStatus::kNan;
  } else if (largest >> 32 == kInfinityRank) {
    *status = TokenStatus::kInfinity;
  }
  return largest;
}

__device__ __forceinline__ int32_t IdOf(TokenKey key) {
  return static_cast<int32_t>(~static_cast<uint32_t>(key));
}

__device__ __forceinline__ TokenMass MassOfLogit(float logit, float max,
                                                 double factor, double scale) {
  const double distance = static_cast<double>(logit) - static_cast<double>(max);
  return static_cast<TokenMass>(exp(distance * factor) * scale + 0.5);
}

// floor(mass * fraction / 2^64).
__device__ __forceinline__ TokenMass Part(TokenMass mass, uint64_t fraction) {
  return static_cast<TokenMass>(
      static_cast<unsigned __int128>(mass) * fraction >> 64);
}

// The key of the drawn token: filters, then the inverse of the cumulative
// distribution, likeliest first.
__device__ __forceinline__ TokenKey Draw(TokenSet& set, const TokenRow& row) {
  if (row.top_k > 0 &&
      Total(set, DrawableCount()) > static_cast<TokenMass>(row.top_k)) {
    set.limit = FindKey(set, DrawableCount(), row.top_k);
  }
  if (row.top_p > 0) {
    const TokenMass mass = Total(set, MassOf());
    // The smallest integer that is at least mass * top_p.
    const bool exact =
        static_cast<TokenMass>(mass * row.top_p) == 0;  // low 64 bits
    const TokenMass target = Part(mass, row.top_p) + (exact ? 0 : 1);
    set.limit = FindKey(set, MassOf(), target);
  }
  if (row.min_mass > 0) {
    TokenKey smallest = ~TokenKey{0};
    for (int32_t id = threadIdx.x; id < set.vocab; id += kTokenThreads) {
      const TokenKey key = KeyOf(set.logits[id], id);
      if (set.Has(key) && set.weights[id] >= row.min_mass) {
        smallest = SmallerKey()(smallest, key);
      }
    }
    set.limit = BlockReduce(smallest, SmallerKey());
  }
  const TokenMass mass = Total(set, MassOf());
  return FindKey(set, MassOf(), Part(mass, row.uniform) + 1);
}

// Lists the keys of the row.num_top likeliest tokens.
__device__ __forceinline__ void ListTop(const TokenArgs& args,
                                        const TokenRow& row, TokenSet set) {
  __shared__ int listed;
  if (threadIdx.x == 0) listed = 0;
  set.limit = FindKey(set, PlainCount(), row.num_top);
  for (int32_t id = threadIdx.x; id < set.vocab; id += kTokenThreads) {
    const TokenKey key = KeyOf(set.logits[id], id);
    if (set.Has(key)) {
      args.top_keys[row.top_begin + atomicAdd(&listed, 1)] = key;
    }
  }
}

__global__ void __launch_bounds__(kTokenThreads, 2)
    ChooseTokensKernel(const TokenArgs args) {
  const TokenRow row = args.rows[blockIdx.x];
  const int64_t at = int64_t{blockIdx.x} * args.vocab;
  const double scale = static_cast<double>(TokenMass{1} << args.mass_bits);
  TokenMass* weights = args.weights + at;
  TokenSet plain{args.logits + at, weights, args.vocab, 0};
  TokenSet set = plain;
  if (row.adjusted >= 0) {
    set.logits = args.adjusted + int64_t{row.adjusted} * args.vocab;
  }

  TokenResult result;
  const int32_t likeliest = IdOf(LargestKey(plain, &result.status));
  result.max = plain.logits[likeliest];
  TokenStatus ignored = TokenStatus::kOk;
  const TokenKey largest = LargestKey(set, &ignored);
  const float set_max = set.logits[IdOf(largest)];
  if (result.status == TokenStatus::kOk && set_max == kNever) {
    result.status = TokenStatus::kNothingLeft;
  }
  if (result.status == TokenStatus::kOk) {
    TokenKey chosen = largest;
    if (row.choice == TokenChoice::kDraw) {
      for (int32_t id = threadIdx.x; id < set.vocab; id += kTokenThreads) {
        weights[id] = MassOfLogit(set.logits[id], set_max, row.factor, scale);
      }
      chosen = Draw(set, row);
    }
    result.token = row.choice == TokenChoice::kGiven ? row.token : IdOf(chosen);
    result.logit = plain.logits[result.token];
    if (row.score != 0) {
      TokenMass sum = 0;
      for (int32_t id = threadIdx.x; id < plain.vocab; id += kTokenThreads) {
        sum += MassOfLogit(plain.logits[id], result.max, 1.0, scale);
      }
      result.sum = BlockReduce(sum, AddMass());
    }
    if (row.num_top > 0) ListTop(args, row, plain);
  }
  if (threadIdx.x == 0) args.results[blockIdx.x] = result;
}

}  // namespace

cudaError_t LaunchLogitEdits(const LogitEditArgs& args, cudaStream_t stream) {
  if (args.num_edits == 0) return cudaSuccess;
  const int64_t blocks = (args.num_edits + kEditThreads - 1) / kEditThreads;
  return OCTET_LAUNCH(LogitEditKernel, static_cast<unsigned>(blocks),
                      kEditThreads, 0, stream, args);
}

cudaError_t LaunchChooseTokens(const TokenArgs& args, cudaStream_t stream) {
  if (args.num_rows == 0) return cudaSuccess;
  return OCTET_LAUNCH(ChooseTokensKernel, static_cast<unsigned>(args.num_rows),
                      kTokenThreads, 0, stream, args);
}

}  // namespace octet::cuda
