// The MoE layer over ranks against a naive double-precision one.
#include "worker/moe/moe_layer.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/support/ranks.h"
#include "tests/worker/moe/moe_case.h"

namespace octet {
namespace {

TEST(MoeLayerTest, AgreesWithDoublePrecisionAndWithItselfAtEveryWidth) {
  constexpr int64_t kTokens = 30;
  const test::MoeCase moe = test::MakeMoeCase(3, kTokens);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int top_k : {1, 2, 3}) {
      const test::Values expected = test::MoeReference(moe, top_k, dtype);
      std::vector<float> first;
      for (const int num_ranks : {1, 2, 3, 4, 7, 8, 12}) {
        for (const auto& [max_rows, max_chunks] :
             std::vector<std::pair<int64_t, int>>{
                 {2048, 1}, {5, 1}, {2048, 2}, {2048, 5}, {5, 100}}) {
          // The last rank has no tokens, the first the most.
          test::MoeJob job{.top_k = top_k,
                           .dtype = dtype,
                           .max_expert_rows = max_rows,
                           .max_chunks = max_chunks,
                           .rank_tokens = {}};
          job.rank_tokens.assign(num_ranks, num_ranks > 2 ? 2 : 0);
          job.rank_tokens.back() = num_ranks == 1 ? kTokens : 0;
          if (num_ranks > 1) {
            job.rank_tokens[0] = kTokens - std::max(0, num_ranks - 2) * 2;
          }
          const Placement placement =
              Placement::Default(test::kMoeExperts, num_ranks).value();
          std::vector<float> actual(moe.residual.size());
          const auto run = [&](Communicator& communicator) -> absl::Status {
            OCTET_ASSIGN_OR_RETURN(const auto backend, NewCpuBackend({}));
            return test::RunMoeRank(job, moe, placement, *backend, communicator,
                                    actual);
          };
          for (const absl::Status& status : test::RunRanks(num_ranks, run)) {
            ASSERT_TRUE(status.ok()) << status;
          }
          if (first.empty()) first = actual;
          EXPECT_EQ(test::FirstMismatch(actual, first), "")
              << num_ranks << " ranks, " << max_rows << " rows at a time, "
              << max_chunks << " chunks";
        }
      }
      const test::Difference difference =
          test::Compare(test::ToValues(first), expected);
      ASSERT_TRUE(difference.comparable);
      std::printf("%s, K %d: max error %.1e\n",
                  std::string(Name(dtype)).c_str(), top_k,
                  difference.max_relative);
      // bf16: products beside a rounding boundary may fall one step apart.
      EXPECT_LT(difference.max_relative, dtype == DType::kF32 ? 1e-5 : 4e-3);
    }
  }
}

}  // namespace
}  // namespace octet
