// Every wrong argument gets one sentence that names operation, argument, what
// was found and what was expected, and nothing is written; no rows are fine
// everywhere.
#include "kernels/ops.h"

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/device.h"

namespace octet::test {
namespace {

struct Case {
  std::string sentence;
  std::function<absl::Status()> call;
};

class OpsTest : public testing::Test {
 protected:
  OpsTest() : b_(device_.backend()), s_(device_.stream()) {}

  Tensor F32(std::initializer_list<int64_t> dims) {
    return device_.New(DType::kF32, dims);
  }
  Tensor BF(std::initializer_list<int64_t> dims) {
    return device_.New(DType::kBF16, dims);
  }
  Tensor I32(std::initializer_list<int64_t> dims) {
    return device_.New(DType::kI32, dims);
  }
  Tensor I64(std::initializer_list<int64_t> dims) {
    return device_.New(DType::kI64, dims);
  }
  const PackedMatrix* Matrix(DType dtype, int64_t n, int64_t k) {
    matrices_.push_back(*b_.NewPackedMatrix(dtype, n, k));
    return matrices_.back().get();
  }
  static void Check(const std::vector<Case>& cases) {
    for (const Case& bad : cases) {
      const absl::Status status = bad.call();
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument)
          << bad.sentence;
      EXPECT_EQ(status.message(), bad.sentence);
    }
  }

  Device device_{cpu::SupportedIsas().front()};
  Backend& b_;
  Stream& s_;
  std::vector<std::unique_ptr<PackedMatrix>> matrices_;
  const Tensor none_{nullptr, DType::kF32, {2, 4}};
};

TEST_F(OpsTest, RowOperations) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor x = F32({2, 4});
  const Tensor w = F32({4});
  Check({
      {"Embedding: table is i32[3, 4], expected f32 or bf16[any, any]",
       [&] {
         return ops::Embedding(b_, I32({3, 4}), I32({2}), x, s_);
       }},
      {"Embedding: ids is i64[2], expected i32[any]",
       [&] {
         return ops::Embedding(b_, F32({3, 4}), I64({2}), x, s_);
       }},
      {"Embedding: out is f32[2, 4], expected f32[2, 5]",
       [&] {
         return ops::Embedding(b_, F32({3, 5}), I32({2}), x, s_);
       }},
      {"Embedding: table is f32[2, 4] without data, expected data",
       [&] { return ops::Embedding(b_, none_, I32({2}), x, s_); }},
      {"RmsNorm: x is f32[4], expected f32[any, any]",
       [&] { return ops::RmsNorm(b_, w, w, 0.1f, x, s_); }},
      {"RmsNorm: x is bf16[2, 4], expected f32[any, any]",
       [&] {
         return ops::RmsNorm(b_, BF({2, 4}), w, 0.1f, x, s_);
       }},
      {"RmsNorm: weight is f32[5], expected f32[4]",
       [&] { return ops::RmsNorm(b_, x, F32({5}), 0.1f, x, s_); }},
      {"RmsNorm: eps is -1, expected 0 or more",
       [&] { return ops::RmsNorm(b_, x, w, -1.0f, x, s_); }},
      {"RmsNorm: eps is nan, expected 0 or more",
       [&] { return ops::RmsNorm(b_, x, w, nan, x, s_); }},
      {"RmsNorm: out is f32[1, 4], expected f32 or bf16[2, 4]",
       [&] {
         return ops::RmsNorm(b_, x, w, 0.1f, F32({1, 4}), s_);
       }},
      {"GatherRows: out is bf16[2, 4], expected f32[2, 4]",
       [&] {
         return ops::GatherRows(b_, x, I32({2}), BF({2, 4}), s_);
       }},
      {"GatherRows: row_ids is f32[2, 4], expected i32[any]",
       [&] { return ops::GatherRows(b_, x, x, x, s_); }},
      {"CombineRows: rows is i32[2, 4], expected f32 or bf16[any, any]",
       [&] {
         return ops::CombineRows(b_, I32({2, 4}), I32({2, 1}), F32({2, 1}), x,
                                 s_);
       }},
      {"CombineRows: weights is f32[2, 1], expected f32[2, 3]",
       [&] {
         return ops::CombineRows(b_, x, I32({2, 3}), F32({2, 1}), x, s_);
       }},
      {"CombineRows: out is bf16[2, 4], expected f32[2, 4]",
       [&] {
         return ops::CombineRows(b_, x, I32({2, 1}), F32({2, 1}), BF({2, 4}),
                                 s_);
       }},
      {"Router: K is 5, expected 1 to 4, the number of experts",
       [&] {
         return ops::Router(b_, x, I32({2, 5}), F32({2, 5}), s_);
       }},
      {"Router: K is 0, expected 1 to 4, the number of experts",
       [&] {
         return ops::Router(b_, x, I32({2, 0}), F32({2, 0}), s_);
       }},
      {"Router: topk_ids is i32[1, 2], expected i32[2, any]",
       [&] {
         return ops::Router(b_, x, I32({1, 2}), F32({2, 2}), s_);
       }},
      {"Router: topk_weights is f32[2, 3], expected f32[2, 2]",
       [&] {
         return ops::Router(b_, x, I32({2, 2}), F32({2, 3}), s_);
       }},
  });
}

TEST_F(OpsTest, Products) {
  const Tensor x = F32({3, 4});
  const PackedMatrix* w = Matrix(DType::kF32, 6, 4);
  const PackedMatrix* other = Matrix(DType::kF32, 5, 4);
  const PackedMatrix* half = Matrix(DType::kBF16, 6, 4);
  const auto grouped = [&](std::vector<const PackedMatrix*> all,
                           std::vector<int64_t> offsets, Tensor out) {
    return ops::GroupedGemm(b_, x, all, offsets, out, s_);
  };
  const auto swiglu = [&](std::vector<const PackedMatrix*> all,
                          std::vector<int64_t> offsets, Tensor out) {
    return ops::GroupedGemmSwiGlu(b_, x, all, offsets, out, s_);
  };
  Check({
      {"Gemm: x is f32[3, 5], expected f32[any, 4]",
       [&] {
         return ops::Gemm(b_, F32({3, 5}), *w, false, F32({3, 6}), s_);
       }},
      {"Gemm: x is f32[3, 4], expected bf16[any, 4]",
       [&] {
         return ops::Gemm(b_, x, *half, false, F32({3, 6}), s_);
       }},
      {"Gemm: out is bf16[3, 6], expected f32[3, 6]",
       [&] {
         return ops::Gemm(b_, x, *w, true, BF({3, 6}), s_);
       }},
      {"Gemm: out is f32[3, 4], expected f32 or bf16[3, 6]",
       [&] {
         return ops::Gemm(b_, x, *w, false, F32({3, 4}), s_);
       }},
      {"GroupedGemm: w[1] is f32[5, 4], expected f32[6, 4]",
       [&] {
         return grouped({w, other}, {0, 1, 3}, F32({3, 6}));
       }},
      {"GroupedGemm: w[1] is bf16[6, 4], expected f32[6, 4]",
       [&] {
         return grouped({w, half}, {0, 1, 3}, F32({3, 6}));
       }},
      {"GroupedGemm: w[1] is null, expected a matrix",
       [&] {
         return grouped({w, nullptr}, {0, 1, 3}, F32({3, 6}));
       }},
      {"GroupedGemm: the number of row_offsets is 2, expected 3",
       [&] {
         return grouped({w, w}, {0, 3}, F32({3, 6}));
       }},
      {"GroupedGemm: row_offsets[0] is 1, expected 0",
       [&] {
         return grouped({w, w}, {1, 1, 3}, F32({3, 6}));
       }},
      {"GroupedGemm: row_offsets[2] is 1, expected at least 2",
       [&] {
         return grouped({w, w}, {0, 2, 1}, F32({3, 6}));
       }},
      {"GroupedGemm: row_offsets[2] is 4, expected 3, the rows of x",
       [&] {
         return grouped({w, w}, {0, 2, 4}, F32({3, 6}));
       }},
      {"GroupedGemm: row_offsets[0] is 3, expected 0",
       [&] {
         return grouped({}, {3}, F32({3, 6}));
       }},
      {"GroupedGemmSwiGlu: the number of rows of w13 is 5, expected even",
       [&] {
         return swiglu({other}, {0, 3}, F32({3, 3}));
       }},
      {"GroupedGemmSwiGlu: out is f32[3, 6], expected f32[3, 3]",
       [&] {
         return swiglu({w}, {0, 3}, F32({3, 6}));
       }},
      {"GroupedGemmSwiGlu: out is bf16[3, 3], expected f32[3, 3]",
       [&] {
         return swiglu({w}, {0, 3}, BF({3, 3}));
       }},
  });
}

TEST_F(OpsTest, RopeAndCache) {
  const KvCacheView good = NewCache(device_, {DType::kF32, 1, 4, 4, 2});
  const RopeParams params{1e4f, 2, 1, 4};
  const auto call = [&](const RopeParams& rope, const KvCacheView& cache,
                        ConstTensor qkv, ConstTensor positions,
                        ConstTensor slots, Tensor q_out) {
    return ops::RopeAndCache(b_, qkv, positions, slots, rope, cache, q_out, s_);
  };
  const auto with_params = [&](auto change) {
    RopeParams rope = params;
    change(rope);
    return call(rope, good, F32({2, 16}), I32({2}), I64({2}), F32({2, 8}));
  };
  const auto with_cache = [&](auto change) {
    KvCacheView cache = good;
    change(cache);
    return call(params, cache, F32({2, 16}), I32({2}), I64({2}), F32({2, 8}));
  };
  Check({
      {"RopeAndCache: params.head_dim is 3, expected an even number, 2 or more",
       [&] { return with_params([](RopeParams& p) { p.head_dim = 3; }); }},
      {"RopeAndCache: params.num_heads is 0, expected 1 or more",
       [&] { return with_params([](RopeParams& p) { p.num_heads = 0; }); }},
      {"RopeAndCache: params.theta is 0, expected more than 0",
       [&] { return with_params([](RopeParams& p) { p.theta = 0; }); }},
      {"RopeAndCache: cache.head_dim is 4, expected 6",
       [&] { return with_params([](RopeParams& p) { p.head_dim = 6; }); }},
      {"RopeAndCache: cache.num_kv_heads is 1, expected 2",
       [&] { return with_params([](RopeParams& p) { p.num_kv_heads = 2; }); }},
      {"RopeAndCache: cache.dtype is f16, expected f32 or bf16",
       [&] {
         return with_cache([](KvCacheView& c) { c.dtype = DType::kF16; });
       }},
      {"RopeAndCache: cache.num_blocks is 0, expected 1 or more",
       [&] { return with_cache([](KvCacheView& c) { c.num_blocks = 0; }); }},
      {"RopeAndCache: cache.block_tokens is -1, expected 1 or more",
       [&] { return with_cache([](KvCacheView& c) { c.block_tokens = -1; }); }},
      {"RopeAndCache: cache.keys is null, expected memory of the backend",
       [&] { return with_cache([](KvCacheView& c) { c.keys = nullptr; }); }},
      {"RopeAndCache: cache.values is null, expected memory of the backend",
       [&] { return with_cache([](KvCacheView& c) { c.values = nullptr; }); }},
      {"RopeAndCache: qkv is f32[2, 15], expected f32[any, 16]",
       [&] {
         return call(params, good, F32({2, 15}), I32({2}), I64({2}),
                     F32({2, 8}));
       }},
      {"RopeAndCache: positions is i32[3], expected i32[2]",
       [&] {
         return call(params, good, F32({2, 16}), I32({3}), I64({2}),
                     F32({2, 8}));
       }},
      {"RopeAndCache: slots is i32[2], expected i64[2]",
       [&] {
         return call(params, good, F32({2, 16}), I32({2}), I32({2}),
                     F32({2, 8}));
       }},
      {"RopeAndCache: q_out is f32[2, 16], expected f32[2, 8]",
       [&] {
         return call(params, good, F32({2, 16}), I32({2}), I64({2}),
                     F32({2, 16}));
       }},
  });
}

TEST_F(OpsTest, PagedAttention) {
  const KvCacheView cache = NewCache(device_, {DType::kF32, 2, 4, 4, 3});
  const std::vector<int32_t> table = {2, 0};
  const std::vector<int32_t> bad_table = {2, 3};
  const Tensor q = F32({5, 16});
  const auto call = [&](AttentionSequence sequence, int window = 0) {
    return ops::PagedAttention(b_, q, cache, {sequence}, window, q, s_);
  };
  Check({
      {"PagedAttention: sliding_window is -1, expected 0 (off) or more",
       [&] {
         return call({0, 5, 0, table}, -1);
       }},
      {"PagedAttention: the row length of q is 12, expected a multiple of 8, "
       "the cache's N_kv D",
       [&] {
         return ops::PagedAttention(b_, F32({5, 12}), cache, {}, 0,
                                    F32({5, 12}), s_);
       }},
      {"PagedAttention: out is f32[5, 8], expected f32 or bf16[5, 16]",
       [&] {
         return ops::PagedAttention(b_, q, cache, {}, 0, F32({5, 8}), s_);
       }},
      {"PagedAttention: the row range of sequences[0] is 1 + 5, expected "
       "within 5 rows",
       [&] {
         return call({1, 5, 0, table});
       }},
      {"PagedAttention: the row range of sequences[0] is -1 + 5, expected "
       "within 5 rows",
       [&] {
         return call({-1, 5, 0, table});
       }},
      {"PagedAttention: sequences[0].first_position is -1, expected 0 or more",
       [&] {
         return call({0, 5, -1, table});
       }},
      {"PagedAttention: the number of blocks of sequences[0] is 2, expected "
       "at least 3 for 9 positions",
       [&] {
         return call({0, 5, 4, table});
       }},
      {"PagedAttention: sequences[0].block_table[1] is 3, expected 0 to 2",
       [&] {
         return call({0, 5, 0, bad_table});
       }},
  });
  // Blocks before the window are not read.
  const std::vector<int32_t> freed = {-1, 1};
  EXPECT_TRUE(call({0, 2, 6, freed}, 2).ok());
  EXPECT_FALSE(call({0, 2, 6, freed}, 5).ok());
}

TEST_F(OpsTest, Sampling) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor logits = device_.Upload(std::vector<float>{1, 2, 3, 4}, {1, 4});
  std::vector<SampledToken> tokens;
  std::vector<TokenLogprobs> scores;
  const std::vector<int32_t> ids = {1, 4};
  const auto with = [&](auto change) {
    SamplingRow row;
    change(row);
    return ops::Sample(b_, logits, {row}, &tokens, s_);
  };
  const auto score = [&](std::vector<int32_t> targets, std::vector<int> num) {
    return ops::ScoreTokens(b_, logits, targets, num, &scores, s_);
  };
  Check({
      {"Sample: logits is f32[1, 4], expected f32[0, any]",
       [&] { return ops::Sample(b_, logits, {}, &tokens, s_); }},
      {"Sample: out is null, expected a vector",
       [&] { return ops::Sample(b_, logits, {{}}, nullptr, s_); }},
      {"Sample: rows[0].temperature is -1, expected 0 or more",
       [&] { return with([](SamplingRow& r) { r.temperature = -1; }); }},
      {"Sample: rows[0].temperature is nan, expected 0 or more",
       [&] { return with([&](SamplingRow& r) { r.temperature = nan; }); }},
      {"Sample: rows[0].top_k is -2, expected 0 (off) or more",
       [&] { return with([](SamplingRow& r) { r.top_k = -2; }); }},
      {"Sample: rows[0].top_p is 1.5, expected 0 to 1",
       [&] { return with([](SamplingRow& r) { r.top_p = 1.5f; }); }},
      {"Sample: rows[0].min_p is -0.5, expected 0 to 1",
       [&] { return with([](SamplingRow& r) { r.min_p = -0.5f; }); }},
      {"Sample: rows[0].repetition_penalty is 0, expected more than 0",
       [&] { return with([](SamplingRow& r) { r.repetition_penalty = 0; }); }},
      {"Sample: rows[0].presence_penalty is nan, expected a finite number",
       [&] { return with([&](SamplingRow& r) { r.presence_penalty = nan; }); }},
      {"Sample: rows[0].frequency_penalty is nan, expected a finite number",
       [&] {
         return with([&](SamplingRow& r) { r.frequency_penalty = nan; });
       }},
      {"Sample: rows[0].num_prompt_tokens is 3, expected 0 to 2, the length of "
       "history",
       [&] {
         return with([&](SamplingRow& r) {
           r.history = ids;
           r.num_prompt_tokens = 3;
         });
       }},
      {"Sample: rows[0].history[1] is 4, expected 0 to 3",
       [&] { return with([&](SamplingRow& r) { r.history = ids; }); }},
      {"Sample: rows[0].banned_ids[1] is 4, expected 0 to 3",
       [&] { return with([&](SamplingRow& r) { r.banned_ids = ids; }); }},
      {"Sample: rows[0].num_logprobs is -2, expected -1 (none) or more",
       [&] { return with([](SamplingRow& r) { r.num_logprobs = -2; }); }},
      {"ScoreTokens: targets[0] is 4, expected 0 to 3",
       [&] { return score({4}, {0}); }},
      {"ScoreTokens: the number of num_logprobs is 2, expected 1",
       [&] {
         return score({1}, {0, 0});
       }},
      {"ScoreTokens: num_logprobs[0] is -1, expected 0 or more",
       [&] { return score({1}, {-1}); }},
      {"ScoreTokens: logits is f32[1, 4], expected f32[2, any]",
       [&] {
         return score({1, 2}, {0, 0});
       }},
  });
  EXPECT_TRUE(tokens.empty());
  // A prompt length without a history is fine where no penalty asks for it.
  const std::vector<int32_t> ban = {3};
  EXPECT_TRUE(with([&](SamplingRow& r) {
                r.banned_ids = ban;
                r.num_prompt_tokens = 10;
              }).ok());
}

TEST_F(OpsTest, NoRowsAreFineEverywhere) {
  const PackedMatrix* w = Matrix(DType::kF32, 6, 4);
  const KvCacheView cache = NewCache(device_, {DType::kF32, 1, 4, 4, 2});
  const std::vector<const PackedMatrix*> all = {w, w};
  const std::vector<int64_t> offsets = {0, 0, 0};
  const Tensor x(nullptr, DType::kF32, {0, 4});
  const Tensor ids(nullptr, DType::kI32, {0});
  const Tensor slots(nullptr, DType::kI64, {0});
  const Tensor slot_rows(nullptr, DType::kI32, {0, 2});
  const Tensor weights(nullptr, DType::kF32, {0, 2});
  const Tensor out(nullptr, DType::kF32, {0, 6});
  const Tensor half(nullptr, DType::kF32, {0, 3});
  const Tensor qkv(nullptr, DType::kF32, {0, 12});
  std::vector<SampledToken> tokens(3);
  std::vector<TokenLogprobs> scores(3);
  EXPECT_TRUE(ops::Embedding(b_, F32({3, 4}), ids, x, s_).ok());
  EXPECT_TRUE(ops::RmsNorm(b_, x, F32({4}), 0, x, s_).ok());
  EXPECT_TRUE(ops::Gemm(b_, x, *w, true, out, s_).ok());
  EXPECT_TRUE(ops::GroupedGemm(b_, x, all, offsets, out, s_).ok());
  EXPECT_TRUE(ops::GroupedGemm(b_, x, {}, {0}, out, s_).ok());
  EXPECT_TRUE(ops::GroupedGemmSwiGlu(b_, x, all, offsets, half, s_).ok());
  EXPECT_TRUE(
      ops::RopeAndCache(b_, qkv, ids, slots, {1e4f, 1, 1, 4}, cache, x, s_)
          .ok());
  EXPECT_TRUE(ops::PagedAttention(b_, x, cache, {}, 0, x, s_).ok());
  EXPECT_TRUE(ops::Router(b_, x, slot_rows, weights, s_).ok());
  EXPECT_TRUE(ops::GatherRows(b_, F32({3, 4}), ids, x, s_).ok());
  EXPECT_TRUE(ops::CombineRows(b_, x, slot_rows, weights, x, s_).ok());
  EXPECT_TRUE(ops::Sample(b_, x, {}, &tokens, s_).ok());
  EXPECT_TRUE(ops::ScoreTokens(b_, x, {}, {}, &scores, s_).ok());
  EXPECT_TRUE(tokens.empty());
  EXPECT_TRUE(scores.empty());
}

}  // namespace
}  // namespace octet::test
