// A small MoE layer on any backend, and the naive double-precision one that it
// is compared with.
#ifndef OCTET_TESTS_WORKER_MOE_MOE_CASE_H_
#define OCTET_TESTS_WORKER_MOE_MOE_CASE_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "tests/reference/host_tensor.h"
#include "worker/comm/communicator.h"
#include "worker/moe/placement.h"

namespace octet::test {

constexpr int64_t kMoeHidden = 24;
constexpr int64_t kMoeFfn = 40;
constexpr int kMoeExperts = 8;

struct MoeCase {
  std::vector<float> gate;              // [E, H]
  std::vector<std::vector<float>> w13;  // [E] of [2F, H]
  std::vector<std::vector<float>> w2;   // [E] of [H, F]
  std::vector<float> x;                 // [all ranks' tokens, H]
  std::vector<float> residual;          // [all ranks' tokens, H]
};

// Weights and x are numbers that bf16 holds exactly.
MoeCase MakeMoeCase(uint64_t seed, int64_t num_tokens);

// [tokens, H]: residual + sum of weight * expert for each token.
Values MoeReference(const MoeCase& moe, int top_k, DType dtype);

struct MoeJob {
  int top_k = 2;
  DType dtype = DType::kF32;
  int64_t max_expert_rows = 2048;
  int max_chunks = 1;
  std::vector<int64_t> rank_tokens;  // [R]
  // Forward is called so often, each time with the same residual.
  int num_calls = 1;
};

// Runs this rank's part of `job` and puts its rows of the result where they
// belong in `out` [all ranks' tokens, H], after every call. The group makes the
// same call on every rank.
absl::Status RunMoeRank(const MoeJob& job, const MoeCase& moe,
                        const Placement& placement, Backend& backend,
                        Communicator& communicator, std::vector<float>& out);

}  // namespace octet::test

#endif  // OCTET_TESTS_WORKER_MOE_MOE_CASE_H_
