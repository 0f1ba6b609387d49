// The gradients of attention and of the rotary embedding against the plain
// formulas; bits over threads, neighbours, block ids and block sizes.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/training_test.h"

namespace octet::test {
namespace {

// One sequence.
struct Problem {
  AttentionShape shape;
  DType cache_dtype = DType::kF32;
  DType out_dtype = DType::kF32;
  int64_t length = 0;                             // S
  std::vector<float> q, keys, values, out, dout;  // [S, ...]

  int64_t q_row() const { return int64_t{shape.num_heads} * shape.head_dim; }
  int64_t kv_row() const {
    return int64_t{shape.num_kv_heads} * shape.head_dim;
  }
};

Problem MakeProblem(Random& random, const AttentionShape& shape, int64_t length,
                    DType cache_dtype, DType out_dtype) {
  Problem problem{shape, cache_dtype, out_dtype, length, {}, {}, {}, {}, {}};
  problem.q = random.Floats(length * problem.q_row(),
                            random.Integer(0, 1) ? 1.0f : 4.0f);
  problem.keys = RoundTo(cache_dtype, random.Floats(length * problem.kv_row()));
  problem.values =
      RoundTo(cache_dtype, random.Floats(length * problem.kv_row()));
  const Values out = Attention(ToValues(problem.q), ToValues(problem.keys),
                               ToValues(problem.values), shape, 0);
  problem.out = RoundTo(out_dtype, std::vector<float>(out.begin(), out.end()));
  problem.dout = RoundTo(out_dtype, random.Floats(length * problem.q_row()));
  return problem;
}

struct Gradient {
  std::vector<float> dq, dk, dv;  // as AttentionGradient
};

void ExpectSameBits(const Gradient& a, const Gradient& b) {
  EXPECT_EQ(FirstMismatch(a.dq, b.dq), "");
  EXPECT_EQ(FirstMismatch(a.dk, b.dk), "");
  EXPECT_EQ(FirstMismatch(a.dv, b.dv), "");
}

// All problems (of one shape and dtypes) packed into one call, with `gap` rows
// of no sequence before each.
std::vector<Gradient> Backward(Device& device,
                               const std::vector<Problem>& problems,
                               int block_tokens, int64_t gap,
                               uint64_t block_seed) {
  const Problem& first = problems[0];
  int64_t num_rows = 0;
  int32_t num_blocks = 2;
  for (const Problem& problem : problems) {
    num_rows += gap + problem.length;
    num_blocks += static_cast<int32_t>(problem.length / block_tokens) + 1;
  }
  const KvCacheView cache =
      NewCache(device, {first.cache_dtype, first.shape.num_kv_heads,
                        block_tokens, first.shape.head_dim, num_blocks});
  const std::vector<int32_t> blocks =
      Random(block_seed).Permutation(num_blocks);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> q, out, dout;
  std::vector<AttentionSequence> sequences;
  int64_t next_block = 0;
  for (const Problem& problem : problems) {
    for (std::vector<float>* rows : {&q, &out, &dout}) {
      rows->insert(rows->end(), gap * first.q_row(), nan);
    }
    const int64_t row = static_cast<int64_t>(q.size()) / first.q_row();
    q.insert(q.end(), problem.q.begin(), problem.q.end());
    out.insert(out.end(), problem.out.begin(), problem.out.end());
    dout.insert(dout.end(), problem.dout.begin(), problem.dout.end());
    const int64_t needed = (problem.length + block_tokens - 1) / block_tokens;
    const auto table = absl::MakeConstSpan(blocks).subspan(next_block, needed);
    next_block += needed;
    FillCache(device, cache, table, problem.keys, problem.values);
    sequences.push_back({row, problem.length, 0, table});
  }
  const auto filled = [&](int64_t cols) {
    return device.Upload(std::vector<float>(num_rows * cols, 7.0f),
                         {num_rows, cols});
  };
  const Tensor dq = filled(first.q_row());
  const Tensor dk = filled(first.kv_row());
  const Tensor dv = filled(first.kv_row());
  EXPECT_TRUE(
      train_ops::AttentionBackward(
          *device.backend().training(),
          device.Upload(q, {num_rows, first.q_row()}), cache, sequences,
          static_cast<int>(first.shape.window),
          device.UploadAs(first.out_dtype, out, {num_rows, first.q_row()}),
          device.UploadAs(first.out_dtype, dout, {num_rows, first.q_row()}), dq,
          dk, dv, device.stream())
          .ok());
  std::vector<Gradient> gradients;
  const auto part = [&](Tensor tensor, const AttentionSequence& sequence,
                        int64_t cols) {
    const std::vector<float> all = device.Floats(tensor);
    const int64_t begin = sequence.row_begin;
    for (float value : RowsOf(all, begin - gap, begin, cols)) {
      EXPECT_EQ(value, 7.0f);  // rows of no sequence stay as they are
    }
    const auto rows = RowsOf(all, begin, begin + sequence.num_rows, cols);
    return std::vector<float>(rows.begin(), rows.end());
  };
  for (const AttentionSequence& sequence : sequences) {
    gradients.push_back({part(dq, sequence, first.q_row()),
                         part(dk, sequence, first.kv_row()),
                         part(dv, sequence, first.kv_row())});
  }
  return gradients;
}

void ExpectReference(const Problem& problem, const Gradient& gradient,
                     double tolerance) {
  const AttentionGradient expected = AttentionBackward(
      ToValues(problem.q), ToValues(problem.keys), ToValues(problem.values),
      ToValues(problem.out), ToValues(problem.dout), problem.shape);
  const auto check = [&](const std::vector<float>& actual, const Values& want) {
    const Difference difference = Compare(ToValues(actual), want);
    EXPECT_TRUE(difference.comparable);
    // Of 1 where nothing is larger: a lone token's dq is 0.
    EXPECT_LE(std::min(difference.max_relative, difference.max_absolute),
              tolerance);
  };
  check(gradient.dq, expected.dq);
  check(gradient.dk, expected.dk);
  check(gradient.dv, expected.dv);
}

class TrainingAttentionTest : public TrainingTest {
 protected:
  double Tolerance(DType cache) const {
    return cache == DType::kF32
               ? 2e-5
               : std::max(2e-5, GetParam().attention_bf16_error);
  }
};

TEST_P(TrainingAttentionTest, BackwardOfRandomShapes) {
  const int dims[] = {2, 6, 8, 16, 24, 32, 64, 80, 96, 128};
  const int groups[] = {1, 2, 3, 4, 8};
  ForRandomShapes([&](Random& random, uint64_t seed, ShapeCount& shapes) {
    AttentionShape shape;
    shape.head_dim = dims[random.Integer(0, 9)];
    shape.num_kv_heads = static_cast<int>(random.Integer(1, 3));
    shape.num_heads = shape.num_kv_heads * groups[random.Integer(0, 4)];
    shape.window = random.Integer(0, 1) ? random.Integer(1, 70) : 0;
    const int64_t length =
        seed < 2 ? static_cast<int64_t>(seed) : Size(random, seed, 150);
    shapes.Add(length, {shape.head_dim, shape.num_kv_heads, shape.num_heads,
                        shape.window});
    const Problem problem = MakeProblem(
        random, shape, length, RandomDType(random), RandomDType(random));
    const int block_tokens = static_cast<int>(random.Integer(1, 40));
    const Gradient gradient =
        Backward(device_, {problem}, block_tokens, 0, seed)[0];
    ExpectReference(problem, gradient, Tolerance(problem.cache_dtype));
    ExpectSameBits(gradient, Backward(single_, {problem}, 16, 0, seed + 1)[0]);
  });
}

TEST_P(TrainingAttentionTest, LongSequences) {
  for (uint64_t seed = 0; seed < 2; ++seed) {
    SCOPED_TRACE(seed);
    Random random(100 + seed);
    const AttentionShape shape{2, 1, 16, seed ? 200 : 0};
    const DType dtype = seed ? DType::kF32 : DType::kBF16;
    const int64_t length = GetParam().smaller_shapes == 1 ? 515 : 259;
    const Problem problem = MakeProblem(random, shape, length, dtype, dtype);
    const Gradient gradient = Backward(device_, {problem}, 64, 0, seed)[0];
    ExpectReference(problem, gradient, Tolerance(dtype));
    ExpectSameBits(gradient, Backward(single_, {problem}, 16, 0, seed + 1)[0]);
  }
}

// A packed row of several documents gives each the bits that it has alone.
TEST_P(TrainingAttentionTest, SequencesInOneCallDoNotMeet) {
  for (const int64_t window : {0, 20}) {
    Random random(7);
    const AttentionShape shape{4, 2, 16, window};
    std::vector<Problem> problems;
    for (const int64_t length : {70, 1, 0, 45, 33}) {
      problems.push_back(
          MakeProblem(random, shape, length, DType::kBF16, DType::kBF16));
    }
    const std::vector<Gradient> together =
        Backward(device_, problems, 16, 3, 1);
    for (size_t i = 0; i < problems.size(); ++i) {
      if (problems[i].length == 0) continue;
      ExpectSameBits(together[i], Backward(single_, {problems[i]}, 5, 0, 2)[0]);
    }
  }
}

TEST_P(TrainingAttentionTest, RopeBackwardOfRandomShapes) {
  const int dims[] = {2, 6, 8, 24, 32, 80, 128};
  ForRandomShapes([&](Random& random, uint64_t seed, ShapeCount& shapes) {
    RopeParams params;
    params.theta = random.Integer(0, 1) ? 1e6f : 1e4f;
    params.head_dim = dims[random.Integer(0, 6)];
    params.num_kv_heads = static_cast<int>(random.Integer(1, 3));
    params.num_heads =
        params.num_kv_heads * static_cast<int>(random.Integer(1, 4));
    const DType dtype = RandomDType(random);
    const int64_t num_rows = RandomRows(random, seed);
    shapes.Add(num_rows,
               {params.head_dim, params.num_heads, params.num_kv_heads});
    const int64_t dim = params.head_dim;
    const int64_t q_row = params.num_heads * dim;
    const int64_t kv_row = params.num_kv_heads * dim;
    const std::vector<float> dq = random.Floats(num_rows * q_row);
    const std::vector<float> dk = random.Floats(num_rows * kv_row);
    const std::vector<float> dv = random.Floats(num_rows * kv_row);
    std::vector<int32_t> positions;
    Values expected;
    for (int64_t t = 0; t < num_rows; ++t) {
      positions.push_back(
          static_cast<int32_t>(random.Integer(0, seed == 4 ? 1000000 : 5000)));
      for (const auto& [all, cols] : {std::pair{&dq, q_row}, {&dk, kv_row}}) {
        Values row = ToValues(RowsOf(*all, t, t + 1, cols));
        for (int64_t at = 0; at < cols; at += dim) {
          RotateBack(absl::MakeSpan(row).subspan(at, dim), positions[t],
                     params.theta);
        }
        expected.insert(expected.end(), row.begin(), row.end());
      }
      const auto row = RowsOf(dv, t, t + 1, kv_row);
      expected.insert(expected.end(), row.begin(), row.end());
    }
    CheckRows(
        num_rows, expected, ToleranceOf(dtype),
        [&](Device& device, int64_t begin, int64_t end) {
          const int64_t rows = end - begin;
          const Tensor dqkv = device.New(dtype, {rows, q_row + 2 * kv_row});
          EXPECT_TRUE(
              train_ops::RopeBackward(
                  Training(device),
                  device.Upload(RowsOf(dq, begin, end, q_row), {rows, q_row}),
                  device.Upload(RowsOf(dk, begin, end, kv_row), {rows, kv_row}),
                  device.Upload(RowsOf(dv, begin, end, kv_row), {rows, kv_row}),
                  device.Upload(RowsOf(positions, begin, end, 1), {rows}),
                  params, dqkv, device.stream())
                  .ok());
          return device.Floats(dqkv);
        });
  });
}

INSTANTIATE_TEST_SUITE_P(Backend, TrainingAttentionTest,
                         testing::ValuesIn(BackendCases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace octet::test
