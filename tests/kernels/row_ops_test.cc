// Embedding, RMS norm, rotary embedding with the cache write, router, gather
// and combine: against the plain formulas on random shapes, and bit by bit over
// batch compositions and threads.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/ops.h"
#include "tests/kernels/device.h"
#include "tests/kernels/shape_count.h"
#include "tests/reference/reference_ops.h"

namespace octet::test {
namespace {

using testing::HasSubstr;

constexpr int kNumShapes = 40;

class RowOpsTest : public testing::TestWithParam<BackendCase> {
 protected:
  // 0 rows first, then one.
  static int64_t NumRows(Random& random, uint64_t seed, int64_t limit = 40) {
    return seed == 0 ? 0 : seed == 1 ? 1 : Size(random, seed, limit);
  }
  static int64_t Size(Random& random, uint64_t seed, int64_t limit) {
    return random.Integer(1, GetParam().Largest(limit, seed));
  }

  Device device_{GetParam(), 3};
  Device single_{GetParam(), 1};
};

TEST_P(RowOpsTest, EmbeddingOfRandomShapes) {
  ShapeCount shapes;
  const uint64_t num_shapes = GetParam().NumShapes(kNumShapes);
  for (uint64_t seed = 0; seed < num_shapes; ++seed) {
    Random random(seed);
    const int64_t vocab = random.Integer(1, 50);
    const int64_t hidden = Size(random, seed, 3000);
    const int64_t num_rows = NumRows(random, seed);
    const DType dtype = random.Integer(0, 1) ? DType::kF32 : DType::kBF16;
    shapes.Add(num_rows, {vocab, hidden});
    const std::vector<float> table =
        RoundTo(dtype, random.Floats(vocab * hidden));
    std::vector<int32_t> ids;
    std::vector<float> expected;
    for (int64_t t = 0; t < num_rows; ++t) {
      ids.push_back(static_cast<int32_t>(random.Integer(0, vocab - 1)));
      expected.insert(expected.end(), table.begin() + ids[t] * hidden,
                      table.begin() + (ids[t] + 1) * hidden);
    }
    const Tensor out = device_.New(DType::kF32, {num_rows, hidden});
    ASSERT_TRUE(ops::Embedding(device_.backend(),
                               device_.UploadAs(dtype, table, {vocab, hidden}),
                               device_.Upload(ids, {num_rows}), out,
                               device_.stream())
                    .ok());
    EXPECT_EQ(FirstMismatch(device_.Floats(out), expected), "") << seed;
  }
  shapes.Check();
}

TEST_P(RowOpsTest, RmsNormOfRandomShapesInEveryBatch) {
  ShapeCount shapes;
  const uint64_t num_shapes = GetParam().NumShapes(kNumShapes);
  for (uint64_t seed = 0; seed < num_shapes; ++seed) {
    Random random(seed);
    const int64_t hidden = Size(random, seed, 600);
    const int64_t num_rows = NumRows(random, seed, seed % 3 ? 40 : 360);
    const DType dtype = random.Integer(0, 1) ? DType::kF32 : DType::kBF16;
    shapes.Add(num_rows, {hidden});
    const std::vector<float> x = random.Floats(num_rows * hidden, 3.0f);
    const std::vector<float> weight = random.Floats(hidden);
    const Tensor x_tensor = device_.Upload(x, {num_rows, hidden});
    const Tensor weight_tensor = device_.Upload(weight, {hidden});
    const Tensor out = device_.New(dtype, {num_rows, hidden});
    ASSERT_TRUE(ops::RmsNorm(device_.backend(), x_tensor, weight_tensor, 1e-5f,
                             out, device_.stream())
                    .ok());
    const std::vector<float> result = device_.Floats(out);
    const Difference difference =
        Compare(ToValues(result), RmsNorm(ToValues(x), ToValues(weight), 1e-5));
    EXPECT_TRUE(difference.comparable);
    EXPECT_LT(difference.max_relative, dtype == DType::kF32 ? 1e-6 : 1.0 / 256);
    // Row by row, on one thread.
    const Tensor alone = single_.New(dtype, {1, hidden});
    for (int64_t t = 0; t < num_rows; t += GetParam().thinned_repeats) {
      const auto part = [&](const std::vector<float>& all) {
        return absl::MakeConstSpan(all).subspan(t * hidden, hidden);
      };
      ASSERT_TRUE(ops::RmsNorm(single_.backend(),
                               single_.Upload(part(x), {1, hidden}),
                               single_.Upload(weight, {hidden}), 1e-5f, alone,
                               single_.stream())
                      .ok());
      EXPECT_EQ(FirstMismatch(part(result), single_.Floats(alone)), "") << seed;
    }
  }
  shapes.Check();
}

// Positions of every size, the ones past the table included.
TEST_P(RowOpsTest, RopeAndCacheOfRandomShapes) {
  const int dims[] = {2, 6, 8, 24, 32, 80, 128};
  ShapeCount shapes;
  const uint64_t num_shapes = GetParam().NumShapes(kNumShapes);
  for (uint64_t seed = 0; seed < num_shapes; ++seed) {
    Random random(seed);
    RopeParams params;
    params.theta = random.Integer(0, 1) ? 1e6f : 1e4f;
    params.head_dim = dims[random.Integer(0, 6)];
    params.num_kv_heads = static_cast<int>(random.Integer(1, 3));
    params.num_heads =
        params.num_kv_heads * static_cast<int>(random.Integer(1, 4));
    const DType dtype = random.Integer(0, 1) ? DType::kF32 : DType::kBF16;
    const int block_tokens = static_cast<int>(random.Integer(1, 20));
    const int64_t num_rows = NumRows(random, seed);
    const int64_t dim = params.head_dim;
    const int64_t q_row = params.num_heads * dim;
    const int64_t kv_row = params.num_kv_heads * dim;
    const int64_t row = q_row + 2 * kv_row;
    shapes.Add(num_rows,
               {dim, params.num_heads, params.num_kv_heads, block_tokens});
    const int64_t num_blocks = num_rows / block_tokens + 2;
    const KvCacheView cache =
        FilledCache(device_, {dtype, params.num_kv_heads, block_tokens,
                              params.head_dim, num_blocks});
    std::vector<int64_t> slots;
    for (int32_t slot :
         random.Permutation(static_cast<int32_t>(num_blocks * block_tokens))) {
      if (static_cast<int64_t>(slots.size()) < num_rows) slots.push_back(slot);
    }
    const std::vector<float> qkv = random.Floats(num_rows * row);
    std::vector<int32_t> positions;
    Values q, keys, values;  // expected, rows in the order of qkv
    for (int64_t t = 0; t < num_rows; ++t) {
      positions.push_back(static_cast<int32_t>(
          random.Integer(0, seed % 5 == 4 ? 1000000 : 5000)));
      Values rotated(qkv.begin() + t * row, qkv.begin() + (t + 1) * row);
      for (int64_t at = 0; at < q_row + kv_row; at += dim) {
        Rotate(absl::MakeSpan(rotated).subspan(at, dim), positions[t],
               params.theta);
      }
      q.insert(q.end(), rotated.begin(), rotated.begin() + q_row);
      keys.insert(keys.end(), rotated.begin() + q_row, rotated.end() - kv_row);
      values.insert(values.end(), rotated.end() - kv_row, rotated.end());
    }
    const Tensor q_out = device_.New(DType::kF32, {num_rows, q_row});
    ASSERT_TRUE(ops::RopeAndCache(device_.backend(),
                                  device_.Upload(qkv, {num_rows, row}),
                                  device_.Upload(positions, {num_rows}),
                                  device_.Upload(slots, {num_rows}), params,
                                  cache, q_out, device_.stream())
                    .ok());
    const Difference difference = Compare(ToValues(device_.Floats(q_out)), q);
    EXPECT_TRUE(difference.comparable) << seed;
    EXPECT_LT(difference.max_relative, 1e-6) << seed;
    const int64_t count = num_blocks * block_tokens * kv_row;
    const std::vector<float> cached_keys =
        device_.Floats(ConstTensor(cache.keys, dtype, {count}));
    const std::vector<float> cached_values =
        device_.Floats(ConstTensor(cache.values, dtype, {count}));
    Values found_keys, found_values;
    for (int64_t t = 0; t < num_rows; ++t) {
      for (int64_t i = 0; i < kv_row; ++i) {
        const int64_t at =
            ((slots[t] / block_tokens * params.num_kv_heads + i / dim) *
                 block_tokens +
             slots[t] % block_tokens) *
                dim +
            i % dim;
        found_keys.push_back(cached_keys[at]);
        found_values.push_back(cached_values[at]);
      }
    }
    EXPECT_LT(Compare(found_keys, keys).max_relative,
              dtype == DType::kF32 ? 1e-6 : 1.0 / 256);
    EXPECT_LT(Compare(found_values, values).max_absolute,
              dtype == DType::kF32 ? 1e-30 : 4.0 / 256);
    EXPECT_EQ(std::count_if(cached_keys.begin(), cached_keys.end(),
                            [](float x) { return !std::isnan(x); }),
              num_rows * kv_row)
        << "written outside the slots";
  }
  shapes.Check();
}

TEST_P(RowOpsTest, RouterOfRandomShapes) {
  const int64_t experts[] = {1, 3, 4, 5, 7, 8, 16, 60, 128};
  ShapeCount shapes;
  const uint64_t num_shapes = GetParam().NumShapes(kNumShapes);
  for (uint64_t seed = 0; seed < num_shapes; ++seed) {
    Random random(seed);
    const int64_t num_experts = experts[random.Integer(0, 8)];
    const int64_t top_k =
        random.Integer(1, std::min<int64_t>(num_experts, seed % 2 ? 4 : 20));
    const int64_t num_rows = NumRows(random, seed, 400);
    shapes.Add(num_rows, {num_experts, top_k});
    std::vector<float> logits = random.Floats(num_rows * num_experts, 4.0f);
    if (seed % 3 == 0) {  // ties everywhere
      for (float& logit : logits) logit = std::round(logit / 4.0f);
    }
    const Tensor ids = device_.New(DType::kI32, {num_rows, top_k});
    const Tensor weights = device_.New(DType::kF32, {num_rows, top_k});
    ASSERT_TRUE(ops::Router(device_.backend(),
                            device_.Upload(logits, {num_rows, num_experts}),
                            ids, weights, device_.stream())
                    .ok());
    std::vector<int32_t> expected_ids;
    Values expected_weights;
    for (int64_t t = 0; t < num_rows; ++t) {
      const Values row(logits.begin() + t * num_experts,
                       logits.begin() + (t + 1) * num_experts);
      const Routing routing = Route(row, top_k);
      expected_ids.insert(expected_ids.end(), routing.ids.begin(),
                          routing.ids.end());
      expected_weights.insert(expected_weights.end(), routing.weights.begin(),
                              routing.weights.end());
    }
    EXPECT_EQ(device_.Integers(ids), expected_ids);
    EXPECT_LT(Compare(ToValues(device_.Floats(weights)), expected_weights)
                  .max_absolute,
              3e-7);
  }
  shapes.Check();
}

TEST_P(RowOpsTest, RouterKeepsIdsValidWhenLogitsAreNot) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> logits = {nan, nan, nan, nan, 1, nan, 2, -inf};
  const Tensor ids = device_.New(DType::kI32, {2, 3});
  const Tensor weights = device_.New(DType::kF32, {2, 3});
  ASSERT_TRUE(ops::Router(device_.backend(), device_.Upload(logits, {2, 4}),
                          ids, weights, device_.stream())
                  .ok());
  const std::vector<int32_t> result = device_.Integers(ids);
  for (int t = 0; t < 2; ++t) {
    std::vector<int32_t> row(result.begin() + 3 * t,
                             result.begin() + 3 * t + 3);
    std::sort(row.begin(), row.end());
    EXPECT_GE(row.front(), 0);
    EXPECT_LT(row.back(), 4);
    EXPECT_EQ(std::unique(row.begin(), row.end()), row.end());
  }
  EXPECT_TRUE(std::isnan(device_.Floats(weights)[0]));
}

TEST_P(RowOpsTest, GatherRowsOfRandomShapes) {
  ShapeCount shapes;
  const uint64_t num_shapes = GetParam().NumShapes(kNumShapes);
  for (uint64_t seed = 0; seed < num_shapes; ++seed) {
    Random random(seed);
    const int64_t num_sources = random.Integer(1, 60);
    const int64_t hidden = Size(random, seed, 2000);
    const int64_t num_rows = NumRows(random, seed);
    shapes.Add(num_rows, {num_sources, hidden});
    const DType dtype = random.Integer(0, 1) ? DType::kF32 : DType::kBF16;
    std::vector<float> src = random.Floats(num_sources * hidden);
    src[0] = -0.0f;
    std::vector<int32_t> ids;
    std::vector<float> expected;
    const std::vector<float> rounded = RoundTo(dtype, src);
    for (int64_t t = 0; t < num_rows; ++t) {
      ids.push_back(static_cast<int32_t>(random.Integer(0, num_sources - 1)));
      expected.insert(expected.end(), rounded.begin() + ids[t] * hidden,
                      rounded.begin() + (ids[t] + 1) * hidden);
    }
    const Tensor out = device_.New(dtype, {num_rows, hidden});
    ASSERT_TRUE(
        ops::GatherRows(device_.backend(),
                        device_.UploadAs(dtype, src, {num_sources, hidden}),
                        device_.Upload(ids, {num_rows}), out, device_.stream())
            .ok());
    EXPECT_EQ(FirstMismatch(device_.Floats(out), expected), "") << seed;
  }
  shapes.Check();
}

TEST_P(RowOpsTest, CombineRowsOfRandomShapesInEveryBatch) {
  ShapeCount shapes;
  const uint64_t num_shapes = GetParam().NumShapes(kNumShapes);
  for (uint64_t seed = 0; seed < num_shapes; ++seed) {
    Random random(seed);
    const int64_t num_sources = random.Integer(1, 60);
    const int64_t hidden = Size(random, seed, 900);
    const int64_t top_k = random.Integer(1, 4);
    const int64_t num_rows = NumRows(random, seed);
    shapes.Add(num_rows, {num_sources, hidden, top_k});
    const DType dtype = random.Integer(0, 1) ? DType::kF32 : DType::kBF16;
    const std::vector<float> rows =
        RoundTo(dtype, random.Floats(num_sources * hidden));
    const std::vector<float> weights = random.Floats(num_rows * top_k);
    const std::vector<float> before = random.Floats(num_rows * hidden);
    std::vector<int32_t> slot_rows;
    for (int64_t i = 0; i < num_rows * top_k; ++i) {
      slot_rows.push_back(
          static_cast<int32_t>(random.Integer(0, num_sources - 1)));
    }
    const auto combine = [&](Device& device, int64_t begin, int64_t count) {
      const auto part = [&](const auto& all, int64_t width) {
        return absl::MakeConstSpan(all).subspan(begin * width, count * width);
      };
      const Tensor out = device.Upload(part(before, hidden), {count, hidden});
      EXPECT_TRUE(ops::CombineRows(
                      device.backend(),
                      device.UploadAs(dtype, rows, {num_sources, hidden}),
                      device.Upload(part(slot_rows, top_k), {count, top_k}),
                      device.Upload(part(weights, top_k), {count, top_k}), out,
                      device.stream())
                      .ok());
      return device.Floats(out);
    };
    const std::vector<float> result = combine(device_, 0, num_rows);
    Values expected =
        Combine(ToValues(rows), slot_rows, ToValues(weights), top_k, hidden);
    for (size_t i = 0; i < expected.size(); ++i) expected[i] += before[i];
    EXPECT_LT(Compare(ToValues(result), expected).max_absolute, 4e-6);
    for (int64_t t = 0; t < num_rows; t += 7 * GetParam().thinned_repeats) {
      EXPECT_EQ(
          FirstMismatch(absl::MakeConstSpan(result).subspan(t * hidden, hidden),
                        combine(single_, t, 1)),
          "")
          << seed;
    }
  }
  shapes.Check();
}

TEST_P(RowOpsTest, IndicesInBackendMemoryAreChecked) {
  if (!GetParam().checks_indices) GTEST_SKIP() << "the caller's duty there";
  Backend& backend = device_.backend();
  Stream& stream = device_.stream();
  const Tensor table = device_.Upload(std::vector<float>(12, 1.0f), {3, 4});
  const Tensor ids = device_.Upload(std::vector<int32_t>{0, 3}, {2});
  const Tensor out = device_.New(DType::kF32, {2, 4});
  EXPECT_THAT(ops::Embedding(backend, table, ids, out, stream).message(),
              HasSubstr("Embedding: ids[1] is 3, expected 0 to 2"));
  EXPECT_THAT(ops::GatherRows(backend, table, ids, out, stream).message(),
              HasSubstr("GatherRows: row_ids[1] is 3, expected 0 to 2"));
  const Tensor slots = device_.Upload(std::vector<int32_t>{0, -1}, {2, 1});
  const Tensor weights = device_.Upload(std::vector<float>{1, 1}, {2, 1});
  EXPECT_THAT(
      ops::CombineRows(backend, table, slots, weights, out, stream).message(),
      HasSubstr("CombineRows: slot_rows[1] is -1, expected 0 to 2"));
  const KvCacheView cache = NewCache(device_, {DType::kF32, 1, 4, 4, 2});
  const RopeParams params{1e4f, 1, 1, 4};
  const Tensor qkv = device_.Upload(std::vector<float>(24, 1.0f), {2, 12});
  EXPECT_THAT(
      ops::RopeAndCache(backend, qkv,
                        device_.Upload(std::vector<int32_t>{0, -5}, {2}),
                        device_.Upload(std::vector<int64_t>{0, 1}, {2}), params,
                        cache, out, stream)
          .message(),
      HasSubstr("RopeAndCache: positions[1] is -5"));
  EXPECT_THAT(ops::RopeAndCache(backend, qkv,
                                device_.Upload(std::vector<int32_t>{0, 5}, {2}),
                                device_.Upload(std::vector<int64_t>{8, 1}, {2}),
                                params, cache, out, stream)
                  .message(),
              HasSubstr("RopeAndCache: slots[0] is 8, expected 0 to 7"));
}

INSTANTIATE_TEST_SUITE_P(Backend, RowOpsTest, testing::ValuesIn(BackendCases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace octet::test
