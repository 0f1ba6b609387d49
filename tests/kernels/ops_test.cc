// Every wrong argument gets one sentence that names operation, argument, what
// was found and what was expected, and nothing is written; no rows are fine
// everywhere.
#include "kernels/ops.h"

#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/ops_cases.h"

namespace octet::test {
namespace {

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
