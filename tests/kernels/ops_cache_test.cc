// Wrong arguments of the two operations on the K/V cache.
#include <cstdint>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/ops.h"
#include "tests/kernels/ops_cases.h"

namespace octet::test {
namespace {

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

}  // namespace
}  // namespace octet::test
