// The kernels of sampling.h as their launcher sees them: plain arguments.
//
// One block of 256 threads a row. A token's key orders tokens as draws do:
// larger logit first, lower id on a tie; every filter keeps the tokens from
// some key on. Weights are e^((logit - max) / temperature) in double, times
// 2^kept bits as integers: integer sums have no order, so masses are equal
// whatever the block does, and comparisons of masses are exact. The key at
// which a count or a mass is reached is found three bits at a time: each pass
// over the row sums what lies above seven thresholds; tokens outside the
// interval that is left cost a comparison. Logits and weights of a row (12 V
// bytes, 384 KB at V 32000) stay in the second-level cache, so that the passes
// (12 to 45 a row) run at its speed; a step's rows run side by side.
#ifndef OCTET_KERNELS_CUDA_SAMPLING_KERNELS_H_
#define OCTET_KERNELS_CUDA_SAMPLING_KERNELS_H_

#include <cuda_runtime.h>

#include <cstdint>

namespace octet::cuda {

using TokenKey = unsigned long long;
using TokenMass = unsigned long long;

// What penalties and bans do to one logit.
struct LogitEdit {
  int32_t row = 0;  // of the adjusted copies
  int32_t id = 0;
  int32_t count = 0;  // among generated tokens
  int32_t repeated = 0;
  int32_t banned = 0;
};

struct LogitPenalties {
  float repetition = 1.0f;
  float presence = 0.0f;
  float frequency = 0.0f;
};

struct LogitEditArgs {
  const LogitEdit* edits = nullptr;           // each of another logit
  const LogitPenalties* penalties = nullptr;  // [adjusted rows]
  float* logits = nullptr;                    // [adjusted rows, V]
  int64_t num_edits = 0;
  int64_t vocab = 0;  // V
};

enum class TokenChoice : int32_t {
  kGreedy,
  kDraw,
  kGiven,  // `token`
};

struct TokenRow {
  TokenChoice choice = TokenChoice::kGreedy;
  int32_t token = -1;      // kGiven
  int32_t adjusted = -1;   // row of the adjusted copies, -1: logits as they are
  int32_t top_k = 0;       // 0: off
  TokenMass top_p = 0;     // times 2^64; 0: off
  TokenMass min_mass = 0;  // 0: off
  uint64_t uniform = 0;    // times 2^64
  double factor = 1.0;     // 1 / temperature
  int32_t score = 0;       // 1: log-probabilities are wanted
  int32_t num_top = 0;     // tokens to list, at most V
  int64_t top_begin = 0;   // in top_keys
};

enum class TokenStatus : int32_t { kOk, kNan, kInfinity, kNothingLeft };

struct TokenResult {
  TokenStatus status = TokenStatus::kOk;
  int32_t token = -1;
  float max = 0.0f;    // of the logits as they are
  float logit = 0.0f;  // of the token
  TokenMass sum = 0;   // of e^(logit - max), times 2^mass_bits
};

struct TokenArgs {
  const float* logits = nullptr;    // [N, V]
  const float* adjusted = nullptr;  // [adjusted rows, V]
  const TokenRow* rows = nullptr;   // [N]
  TokenMass* weights = nullptr;     // [N, V] scratch
  TokenKey* top_keys = nullptr;     // the listed tokens' keys, in any order
  TokenResult* results = nullptr;   // [N]
  int32_t num_rows = 0;             // N
  int32_t vocab = 0;                // V
  int32_t mass_bits = 0;            // V * 2^mass_bits < 2^63
};

// Asynchronous. Return the error of the launch.
cudaError_t LaunchLogitEdits(const LogitEditArgs& args, cudaStream_t stream);
cudaError_t LaunchChooseTokens(const TokenArgs& args, cudaStream_t stream);

// The parts of a key.
inline int32_t IdOfKey(TokenKey key) {
  return static_cast<int32_t>(~static_cast<uint32_t>(key));
}
inline uint32_t LogitBitsOfKey(TokenKey key) {
  const auto rank = static_cast<uint32_t>(key >> 32);
  return rank & 0x80000000u ? rank & 0x7fffffffu : ~rank;
}

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_SAMPLING_KERNELS_H_
