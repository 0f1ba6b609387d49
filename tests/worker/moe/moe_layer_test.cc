// The MoE layer over ranks against a naive double-precision one.
#include "worker/moe/moe_layer.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/reference/host_tensor.h"
#include "tests/reference/reference_ops.h"
#include "tests/support/ranks.h"

namespace octet {
namespace {

using test::Values;

constexpr int64_t kHidden = 24;
constexpr int64_t kFfn = 40;
constexpr int kExperts = 8;

struct Layer {
  std::vector<float> gate;              // [E, H]
  std::vector<std::vector<float>> w13;  // [E] of [2F, H]
  std::vector<std::vector<float>> w2;   // [E] of [H, F]
};

// Numbers that bf16 holds exactly.
std::vector<float> Exact(std::vector<float> values) {
  for (float& value : values) value = ToFloat(ToBF16(value));
  return values;
}

Layer MakeLayer(test::Random& random) {
  Layer layer;
  layer.gate = Exact(random.Floats(kExperts * kHidden, 0.5f));
  for (int e = 0; e < kExperts; ++e) {
    layer.w13.push_back(Exact(random.Floats(2 * kFfn * kHidden, 0.2f)));
    layer.w2.push_back(Exact(random.Floats(kHidden * kFfn, 0.2f)));
  }
  return layer;
}

// residual + sum of weight * expert for each token, x [T, H].
Values Reference(const Layer& layer, const std::vector<float>& x,
                 const std::vector<float>& residual, int top_k, bool bf16) {
  const auto rounded = [&](Values values) {
    for (double& value : values) {
      if (bf16) value = test::RoundToBF16(value);
    }
    return values;
  };
  Values out = test::ToValues(residual);
  for (size_t t = 0; t < x.size() / kHidden; ++t) {
    const Values row =
        test::ToValues(absl::MakeConstSpan(x).subspan(t * kHidden, kHidden));
    const Values logits =
        test::MatMul(row, test::ToValues(layer.gate), kHidden);
    const test::Routing routing = test::Route(logits, top_k);
    for (int k = 0; k < top_k; ++k) {
      const Values w13 = test::ToValues(layer.w13[routing.ids[k]]);
      const size_t half = kFfn * kHidden;
      const Values mid =
          rounded(test::SwiGlu(row, Values(w13.begin(), w13.begin() + half),
                               Values(w13.begin() + half, w13.end()), kHidden));
      const Values expert = rounded(
          test::MatMul(mid, test::ToValues(layer.w2[routing.ids[k]]), kFfn));
      for (int64_t h = 0; h < kHidden; ++h) {
        out[t * kHidden + h] += routing.weights[k] * expert[h];
      }
    }
  }
  return out;
}

struct Job {
  int num_ranks;
  int top_k;
  DType dtype;
  int64_t max_expert_rows;
  int max_chunks;
  std::vector<int64_t> rank_tokens;  // [R]
};

absl::StatusOr<std::unique_ptr<PackedMatrix>> Pack(
    Backend& backend, DType dtype, int64_t n, const std::vector<float>& rows) {
  const int64_t k = static_cast<int64_t>(rows.size()) / n;
  OCTET_ASSIGN_OR_RETURN(auto matrix, backend.NewPackedMatrix(dtype, n, k));
  OCTET_RETURN_IF_ERROR(backend.PackRows(
      *matrix, 0, ConstTensor(rows.data(), DType::kF32, {n, k})));
  return matrix;
}

// Rows [begin, begin + T) of x and residual on this rank; residual becomes the
// result.
absl::Status RunRank(const Job& job, const Layer& layer,
                     const Placement& placement, Communicator& communicator,
                     int64_t begin, const std::vector<float>& x,
                     std::vector<float>& residual) {
  const int rank = communicator.rank();
  const int64_t tokens = job.rank_tokens[rank];
  OCTET_ASSIGN_OR_RETURN(const auto backend, NewCpuBackend({}));
  OCTET_ASSIGN_OR_RETURN(const auto stream, backend->NewStream());
  std::vector<std::unique_ptr<PackedMatrix>> owned;
  MoeWeights weights;
  const auto pack = [&](int64_t n, const std::vector<float>& rows)
      -> absl::StatusOr<const PackedMatrix*> {
    OCTET_ASSIGN_OR_RETURN(owned.emplace_back(),
                           Pack(*backend, job.dtype, n, rows));
    return owned.back().get();
  };
  OCTET_ASSIGN_OR_RETURN(weights.gate.w, pack(kExperts, layer.gate));
  for (int e : placement.LocalExperts(rank)) {
    OCTET_ASSIGN_OR_RETURN(weights.w13.w.emplace_back(),
                           pack(2 * kFfn, layer.w13[e]));
    OCTET_ASSIGN_OR_RETURN(weights.w2.w.emplace_back(),
                           pack(kHidden, layer.w2[e]));
  }
  MoeShape shape;
  shape.num_layers = 1;
  shape.num_experts = kExperts;
  shape.top_k = job.top_k;
  shape.hidden_dim = kHidden;
  shape.ffn_dim = kFfn;
  shape.dtype = job.dtype;
  shape.max_expert_rows = job.max_expert_rows;
  shape.max_chunks = job.max_chunks;
  shape.min_chunk_tokens = 2;
  MoeLayer moe(backend.get(), &communicator, &placement, shape);

  const size_t first = begin * kHidden, count = tokens * kHidden;
  const std::vector<BF16> narrow =
      test::ToBF16(absl::MakeConstSpan(x).subspan(first, count));
  const void* rows = job.dtype == DType::kF32
                         ? static_cast<const void*>(x.data() + first)
                         : narrow.data();
  OCTET_ASSIGN_OR_RETURN(const auto x_memory, backend->Allocate(count * 4 + 1));
  OCTET_ASSIGN_OR_RETURN(const auto out_memory,
                         backend->Allocate(count * 4 + 1));
  const Tensor in(x_memory->data(), job.dtype, {tokens, kHidden});
  const Tensor out(out_memory->data(), DType::kF32, {tokens, kHidden});
  if (count > 0) {
    OCTET_RETURN_IF_ERROR(
        backend->CopyToDevice(in.data(), rows, in.num_bytes(), *stream));
    OCTET_RETURN_IF_ERROR(backend->CopyToDevice(
        out.data(), residual.data() + first, out.num_bytes(), *stream));
  }
  MoeSeconds seconds;
  OCTET_RETURN_IF_ERROR(moe.Forward(weights, in, job.rank_tokens, out,
                                    {0, 0, stream.get()}, &seconds));
  if (count > 0) {
    OCTET_RETURN_IF_ERROR(backend->CopyToHost(
        residual.data() + first, out.data(), out.num_bytes(), *stream));
  }
  return backend->Synchronize(*stream);
}

TEST(MoeLayerTest, AgreesWithDoublePrecisionAndWithItselfAtEveryWidth) {
  test::Random random(3);
  const Layer layer = MakeLayer(random);
  constexpr int64_t kTokens = 30;
  const std::vector<float> x = Exact(random.Floats(kTokens * kHidden));
  const std::vector<float> residual = random.Floats(kTokens * kHidden);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int top_k : {1, 2, 3}) {
      const Values expected =
          Reference(layer, x, residual, top_k, dtype == DType::kBF16);
      std::vector<float> first;
      for (const int num_ranks : {1, 2, 3, 4, 7, 8, 12}) {
        for (const auto& [max_rows, max_chunks] :
             std::vector<std::pair<int64_t, int>>{
                 {2048, 1}, {5, 1}, {2048, 2}, {2048, 5}, {5, 100}}) {
          // The last rank has no tokens, the first the most.
          Job job{num_ranks, top_k, dtype, max_rows, max_chunks, {}};
          job.rank_tokens.assign(num_ranks, num_ranks > 2 ? 2 : 0);
          job.rank_tokens.back() = num_ranks == 1 ? kTokens : 0;
          if (num_ranks > 1) {
            job.rank_tokens[0] = kTokens - std::max(0, num_ranks - 2) * 2;
          }
          const Placement placement =
              Placement::Default(kExperts, num_ranks).value();
          std::vector<float> actual = residual;
          const auto results =
              test::RunRanks(num_ranks, [&](Communicator& communicator) {
                int64_t begin = 0;
                for (int r = 0; r < communicator.rank(); ++r) {
                  begin += job.rank_tokens[r];
                }
                return RunRank(job, layer, placement, communicator, begin, x,
                               actual);
              });
          for (const absl::Status& status : results) {
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
