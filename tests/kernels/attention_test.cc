// Paged attention against the plain formula, and the promise that a row's bits
// depend on its position and keys only.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/ops.h"
#include "tests/kernels/device.h"
#include "tests/kernels/shape_count.h"
#include "tests/reference/reference_ops.h"

namespace octet::test {
namespace {

// One sequence: what the cache holds and what is asked.
struct Problem {
  AttentionShape shape;
  DType cache_dtype = DType::kF32;
  DType out_dtype = DType::kF32;
  int64_t length = 0;                  // S
  std::vector<float> q, keys, values;  // [S, ...]

  int64_t q_row() const { return int64_t{shape.num_heads} * shape.head_dim; }
  int64_t kv_row() const {
    return int64_t{shape.num_kv_heads} * shape.head_dim;
  }
};

Problem MakeProblem(Random& random, const AttentionShape& shape, int64_t length,
                    DType cache_dtype, DType out_dtype) {
  Problem problem{shape, cache_dtype, out_dtype, length, {}, {}, {}};
  // Large queries make the softmax peaked in some rows.
  problem.q = random.Floats(length * problem.q_row(),
                            random.Integer(0, 1) ? 1.0f : 6.0f);
  problem.keys = RoundTo(cache_dtype, random.Floats(length * problem.kv_row()));
  problem.values =
      RoundTo(cache_dtype, random.Floats(length * problem.kv_row()));
  return problem;
}

// Rows [begin, end) of the problem, in chunks of `chunk`, each chunk one call.
std::vector<float> Attend(Device& device, const Problem& problem,
                          int block_tokens, int64_t begin, int64_t end,
                          int64_t chunk, uint64_t block_seed) {
  const int32_t needed =
      static_cast<int32_t>((problem.length + block_tokens - 1) / block_tokens);
  std::vector<int32_t> table = Random(block_seed).Permutation(needed + 3);
  const KvCacheView cache =
      NewCache(device, {problem.cache_dtype, problem.shape.num_kv_heads,
                        block_tokens, problem.shape.head_dim, needed + 3});
  table.resize(needed);
  FillCache(device, cache, table, problem.keys, problem.values);
  std::vector<float> result;
  int64_t row = begin;
  do {  // no rows are a call too
    const int64_t count = std::min(chunk, end - row);
    const Tensor q =
        device.Upload(absl::MakeConstSpan(problem.q).subspan(
                          row * problem.q_row(), count * problem.q_row()),
                      {count, problem.q_row()});
    const Tensor out = device.New(problem.out_dtype, {count, problem.q_row()});
    const AttentionSequence sequence{0, count, row, table};
    EXPECT_TRUE(ops::PagedAttention(device.backend(), q, cache, {sequence},
                                    static_cast<int>(problem.shape.window), out,
                                    device.stream())
                    .ok());
    const std::vector<float> part = device.Floats(out);
    result.insert(result.end(), part.begin(), part.end());
    row += chunk;
  } while (row < end);
  return result;
}

// The last row of each problem, all in one call over one cache.
std::vector<float> DecodeTogether(Device& device, const AttentionShape& shape,
                                  const std::vector<Problem>& problems,
                                  int block_tokens, uint64_t block_seed) {
  std::vector<int64_t> num_blocks;
  for (const Problem& problem : problems) {
    num_blocks.push_back((problem.length + block_tokens - 1) / block_tokens);
  }
  const auto needed = static_cast<int32_t>(
      std::accumulate(num_blocks.begin(), num_blocks.end(), int64_t{3}));
  const std::vector<int32_t> blocks = Random(block_seed).Permutation(needed);
  const DType out_dtype =
      problems.empty() ? DType::kF32 : problems[0].out_dtype;
  const KvCacheView cache = NewCache(
      device, {problems.empty() ? DType::kF32 : problems[0].cache_dtype,
               shape.num_kv_heads, block_tokens, shape.head_dim, needed});
  std::vector<AttentionSequence> sequences;
  std::vector<float> q;
  int64_t next_block = 0;
  for (size_t i = 0; i < problems.size(); ++i) {
    const Problem& problem = problems[i];
    const auto table =
        absl::MakeConstSpan(blocks).subspan(next_block, num_blocks[i]);
    next_block += num_blocks[i];
    FillCache(device, cache, table, problem.keys, problem.values);
    sequences.push_back(
        {static_cast<int64_t>(i), 1, problem.length - 1, table});
    q.insert(q.end(), problem.q.end() - problem.q_row(), problem.q.end());
  }
  const auto num_rows = static_cast<int64_t>(problems.size());
  const int64_t row = int64_t{shape.num_heads} * shape.head_dim;
  const Tensor out = device.New(out_dtype, {num_rows, row});
  const absl::Status status = ops::PagedAttention(
      device.backend(), device.Upload(q, {num_rows, row}), cache, sequences,
      static_cast<int>(shape.window), out, device.stream());
  EXPECT_TRUE(status.ok()) << status;
  return device.Floats(out);
}

class AttentionTest : public testing::TestWithParam<BackendCase> {};

// A shape of random shape number `seed`.
AttentionShape RandomShape(Random& random) {
  const int dims[] = {2, 6, 8, 16, 24, 32, 64, 80, 96, 128};
  const int groups[] = {1, 2, 3, 4, 8, 16};
  AttentionShape shape;
  shape.head_dim = dims[random.Integer(0, 9)];
  shape.num_kv_heads = static_cast<int>(random.Integer(1, 3));
  shape.num_heads = shape.num_kv_heads * groups[random.Integer(0, 5)];
  shape.window = random.Integer(0, 1) ? random.Integer(1, 70) : 0;
  return shape;
}

DType RandomDType(Random& random) {
  return random.Integer(0, 1) ? DType::kF32 : DType::kBF16;
}

void Count(ShapeCount& shapes, int64_t num_rows, const AttentionShape& shape,
           int64_t length, int block_tokens) {
  shapes.Add(num_rows, {shape.head_dim, shape.num_heads, shape.num_kv_heads,
                        shape.window, length, block_tokens});
}

// Whether out is what the reference says of rows `begin` and up.
void ExpectReference(const std::vector<float>& out, const Problem& problem,
                     int64_t begin, const BackendCase& backend) {
  const Difference difference = Compare(
      ToValues(out), Attention(ToValues(absl::MakeConstSpan(problem.q).subspan(
                                   begin * problem.q_row(), out.size())),
                               ToValues(problem.keys), ToValues(problem.values),
                               problem.shape, begin));
  // f32: sums of up to 600 products; bf16: half a unit in the last place.
  double tolerance = problem.out_dtype == DType::kF32 ? 1e-5 : 1.0 / 256;
  if (problem.cache_dtype == DType::kBF16) {
    tolerance = std::max(tolerance, backend.attention_bf16_error);
  }
  EXPECT_TRUE(difference.comparable);
  EXPECT_LT(difference.max_relative, tolerance);
}

// Whole prompts, in one or several chunks.
TEST_P(AttentionTest, PrefillOfRandomShapes) {
  Device device(GetParam(), 2);
  ShapeCount shapes;
  const uint64_t num_shapes = GetParam().NumShapes(60);
  for (uint64_t seed = 0; seed < num_shapes; ++seed) {
    SCOPED_TRACE(seed);
    Random random(seed);
    const AttentionShape shape = RandomShape(random);
    const int64_t length =
        seed < 2 ? seed : random.Integer(1, GetParam().Largest(150, seed));
    const DType cache_dtype = RandomDType(random);
    const DType out_dtype = RandomDType(random);
    const Problem problem =
        MakeProblem(random, shape, length, cache_dtype, out_dtype);
    const int block_tokens = static_cast<int>(random.Integer(1, 40));
    Count(shapes, length, shape, length, block_tokens);
    const int64_t chunk =
        random.Integer(1 + length / 4, std::max<int64_t>(1, length));
    ExpectReference(
        Attend(device, problem, block_tokens, 0, length, chunk, seed), problem,
        0, GetParam());
  }
  shapes.Check();
}

// One row each of several sequences in one call, short and over several spans.
TEST_P(AttentionTest, DecodeOfRandomShapes) {
  Device device(GetParam(), 2);
  ShapeCount shapes;
  const uint64_t num_shapes = GetParam().NumShapes(60);
  for (uint64_t seed = 0; seed < num_shapes; ++seed) {
    SCOPED_TRACE(seed);
    Random random(1000 + seed);
    const AttentionShape shape = RandomShape(random);
    const DType cache_dtype = RandomDType(random);
    const DType out_dtype = RandomDType(random);
    const int block_tokens = static_cast<int>(random.Integer(1, 40));
    const int64_t num_rows = seed < 2 ? seed : random.Integer(1, 5);
    std::vector<Problem> problems;
    for (int64_t i = 0; i < num_rows; ++i) {
      const int64_t length =
          random.Integer(1, GetParam().Largest(i == 0 ? 600 : 80, seed));
      problems.push_back(
          MakeProblem(random, shape, length, cache_dtype, out_dtype));
    }
    Count(shapes, num_rows, shape, problems.empty() ? 0 : problems[0].length,
          block_tokens);
    const std::vector<float> out =
        DecodeTogether(device, shape, problems, block_tokens, seed);
    for (int64_t i = 0; i < num_rows; ++i) {
      const int64_t row = problems[i].q_row();
      ExpectReference({out.begin() + i * row, out.begin() + (i + 1) * row},
                      problems[i], problems[i].length - 1, GetParam());
    }
  }
  shapes.Check();
}

TEST_P(AttentionTest, BitsDoNotDependOnChunksThreadsBlocksOrBlockSize) {
  Device one(GetParam(), 1);
  Device three(GetParam(), 3);
  for (uint64_t seed = 0; seed < 12; seed += GetParam().thinned_repeats) {
    Random random(100 + seed);
    const int group = 1 << random.Integer(0, 3);
    const AttentionShape shape{2 * group, 2, seed % 2 ? 128 : 24,
                               seed % 3 ? 0 : 37};
    const int64_t length = 101;
    const Problem problem =
        MakeProblem(random, shape, length,
                    seed % 4 < 2 ? DType::kF32 : DType::kBF16, DType::kF32);
    const std::vector<float> whole =
        Attend(one, problem, 16, 0, length, length, 1);
    EXPECT_EQ(FirstMismatch(whole, Attend(one, problem, 16, 0, length, 1, 1)),
              "");
    EXPECT_EQ(FirstMismatch(whole, Attend(one, problem, 16, 0, length, 7, 9)),
              "");
    EXPECT_EQ(
        FirstMismatch(whole, Attend(three, problem, 16, 0, length, 40, 2)), "");
    EXPECT_EQ(FirstMismatch(whole, Attend(three, problem, 5, 0, length, 33, 3)),
              "");
    EXPECT_EQ(
        FirstMismatch(whole, Attend(three, problem, 64, 0, length, 64, 3)), "");
  }
}

// Beyond what one tile or one span of keys holds: every way to spread the work
// gives the bits of every other, for prefill and decode.
TEST_P(AttentionTest, LongSequencesHaveTheSameBitsHoweverTheyAreSplit) {
  constexpr int64_t kLength = 600;
  Device one(GetParam(), 1);
  Device two(GetParam(), 2);
  Device three(GetParam(), 3);
  for (uint64_t seed = 0; seed < 4; ++seed) {
    Random random(200 + seed);
    const AttentionShape shape{4, 2, 24, seed < 2 ? 0 : 300};
    const Problem problem =
        MakeProblem(random, shape, kLength,
                    seed % 2 ? DType::kF32 : DType::kBF16, DType::kF32);
    const std::vector<float> whole =
        Attend(one, problem, 16, 500, kLength, 100, 1);
    const Difference difference =
        Compare(ToValues(whole),
                Attention(ToValues(absl::MakeConstSpan(problem.q).subspan(
                              500 * problem.q_row())),
                          ToValues(problem.keys), ToValues(problem.values),
                          shape, 500));
    EXPECT_LT(difference.max_relative,
              seed % 2 ? 1e-5 : GetParam().attention_bf16_error);
    EXPECT_EQ(
        FirstMismatch(whole, Attend(two, problem, 16, 500, kLength, 100, 2)),
        "");
    EXPECT_EQ(
        FirstMismatch(whole, Attend(three, problem, 16, 500, kLength, 37, 3)),
        "");
    const auto tail = absl::MakeConstSpan(whole).subspan(95 * problem.q_row());
    for (Device* device : {&one, &two, &three}) {
      EXPECT_EQ(
          FirstMismatch(tail, Attend(*device, problem, 16, 595, kLength, 1, 4)),
          "");
    }
  }
}

TEST_P(AttentionTest, BitsDoNotDependOnNeighboursInTheBatch) {
  Device device(GetParam(), 2);
  Random random(7);
  const AttentionShape shape{8, 2, 32, 0};
  // Three sequences in one cache, one call: a decode, a chunk, a whole prompt.
  std::vector<Problem> problems;
  for (int64_t length : {70, 45, 20}) {
    problems.push_back(
        MakeProblem(random, shape, length, DType::kBF16, DType::kF32));
  }
  const int64_t first[] = {69, 30, 0};
  const KvCacheView cache = NewCache(device, {DType::kBF16, 2, 16, 32, 20});
  const std::vector<int32_t> blocks = random.Permutation(20);
  std::vector<AttentionSequence> sequences;
  std::vector<float> q, alone;
  int64_t next_block = 0;
  for (int i = 0; i < 3; ++i) {
    const Problem& problem = problems[i];
    const int64_t count = problem.length - first[i];
    const int64_t num_blocks = (problem.length + 15) / 16;
    const auto table =
        absl::MakeConstSpan(blocks).subspan(next_block, num_blocks);
    next_block += num_blocks;
    FillCache(device, cache, table, problem.keys, problem.values);
    sequences.push_back({static_cast<int64_t>(q.size()) / problem.q_row(),
                         count, first[i], table});
    q.insert(q.end(), problem.q.begin() + first[i] * problem.q_row(),
             problem.q.end());
    const std::vector<float> part =
        Attend(device, problem, 16, first[i], problem.length, count, 5);
    alone.insert(alone.end(), part.begin(), part.end());
  }
  const int64_t row = problems[0].q_row();
  const int64_t num_rows = static_cast<int64_t>(q.size()) / row;
  const Tensor out = device.New(DType::kF32, {num_rows, row});
  ASSERT_TRUE(ops::PagedAttention(device.backend(),
                                  device.Upload(q, {num_rows, row}), cache,
                                  sequences, 0, out, device.stream())
                  .ok());
  EXPECT_EQ(FirstMismatch(device.Floats(out), alone), "");
}

// Later tokens of a chunk, stale blocks and what fell out of the window must
// not reach a row, not even as NaN times zero.
TEST_P(AttentionTest, UnseenKeysAndValuesDoNotMatter) {
  for (const DType cache_dtype : {DType::kF32, DType::kBF16}) {
    Device device(GetParam(), 1);
    Random random(11);
    Problem problem =
        MakeProblem(random, {4, 2, 16, 20}, 60, cache_dtype, DType::kF32);
    const std::vector<float> clean = Attend(device, problem, 8, 0, 60, 60, 1);
    const float nan = std::numeric_limits<float>::quiet_NaN();
    for (int64_t i = 0; i < problem.kv_row(); ++i) {
      problem.keys[40 * problem.kv_row() + i] = nan;
      problem.values[40 * problem.kv_row() + i] =
          std::numeric_limits<float>::infinity();
    }
    const std::vector<float> dirty = Attend(device, problem, 8, 0, 60, 60, 1);
    const auto rows = [&](const std::vector<float>& all, int64_t begin,
                          int64_t end) {
      return absl::MakeConstSpan(all).subspan(begin * problem.q_row(),
                                              (end - begin) * problem.q_row());
    };
    EXPECT_EQ(FirstMismatch(rows(clean, 0, 40), rows(dirty, 0, 40)), "");
    EXPECT_NE(FirstMismatch(rows(clean, 40, 60), rows(dirty, 40, 60)), "");
  }
}

// A value that is infinite makes its column infinite in the rows that see it,
// and in no other column or row, though they share its tile.
TEST_P(AttentionTest, InfiniteValuesReachTheRowsThatSeeThem) {
  constexpr int64_t kLength = 70, kWindow = 20, kToken = 40, kDim = 16;
  for (const DType cache_dtype : {DType::kF32, DType::kBF16}) {
    Device device(GetParam(), 1);
    Random random(12);
    Problem problem = MakeProblem(random, {4, 2, kDim, kWindow}, kLength,
                                  cache_dtype, DType::kF32);
    const std::vector<float> clean =
        Attend(device, problem, 8, 0, kLength, kLength, 1);
    const float infinity = std::numeric_limits<float>::infinity();
    problem.values[kToken * problem.kv_row()] = infinity;
    problem.values[kToken * problem.kv_row() + 1] = -infinity;
    const std::vector<float> dirty =
        Attend(device, problem, 8, 0, kLength, kLength, 1);
    for (size_t i = 0; i < clean.size(); ++i) {
      const int64_t row = static_cast<int64_t>(i) / problem.q_row();
      const int64_t head = static_cast<int64_t>(i) % problem.q_row() / kDim;
      const int64_t column = static_cast<int64_t>(i) % kDim;
      const bool sees = row >= kToken && row < kToken + kWindow && head < 2;
      const float expected = sees && column == 0   ? infinity
                             : sees && column == 1 ? -infinity
                                                   : clean[i];
      ASSERT_EQ(dirty[i], expected)
          << "row " << row << " head " << head << " column " << column;
    }
  }
}

TEST_P(AttentionTest, EmptyChunksAndBatchesAreFine) {
  Device device(GetParam(), 2);
  const KvCacheView cache = NewCache(device, {DType::kF32, 1, 4, 8, 2});
  const Tensor none = device.New(DType::kF32, {0, 8});
  EXPECT_TRUE(ops::PagedAttention(device.backend(), none, cache, {}, 0, none,
                                  device.stream())
                  .ok());
  const Tensor row = device.Upload(std::vector<float>(8, 1.0f), {1, 8});
  const std::vector<int32_t> table = {0};
  EXPECT_TRUE(ops::PagedAttention(device.backend(), row, cache,
                                  {{0, 0, 0, table}}, 0, row, device.stream())
                  .ok());
  EXPECT_EQ(device.Floats(row), std::vector<float>(8, 1.0f));
}

INSTANTIATE_TEST_SUITE_P(Backend, AttentionTest,
                         testing::ValuesIn(BackendCases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace octet::test
