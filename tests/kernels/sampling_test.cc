// Sampling: the generator against its authors' vectors, the filters against a
// naive implementation, frequencies against exact probabilities.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/ops.h"
#include "kernels/philox.h"
#include "tests/kernels/device.h"
#include "tests/kernels/shape_count.h"
#include "tests/reference/reference_ops.h"
#include "tests/reference/reference_sampling.h"

namespace octet::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// Random123's kat_vectors, "philox4x32 10".
TEST(PhiloxTest, EqualsTheAuthorsVectors) {
  EXPECT_THAT(Philox({0, 0, 0, 0}, {0, 0}),
              ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  const uint32_t ones = 0xffffffff;
  EXPECT_THAT(Philox({ones, ones, ones, ones}, {ones, ones}),
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                     {0xa4093822, 0x299f31d0}),
              ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

TEST(PhiloxTest, UniformIsEvenAndDependsOnSeedAndPosition) {
  std::vector<int> counts(100);
  for (int64_t position = 0; position < 100000; ++position) {
    const double u = UniformAt(5, position);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    ++counts[static_cast<int>(u * 100)];
  }
  double chi_square = 0.0;
  for (int count : counts)
    chi_square += (count - 1000.0) * (count - 1000.0) / 1000.0;
  EXPECT_LT(chi_square, 149.0);  // 99.9% of the distribution with 99 degrees
  EXPECT_EQ(UniformAt(7, 3), UniformAt(7, 3));
  EXPECT_NE(UniformAt(7, 3), UniformAt(8, 3));
  EXPECT_NE(UniformAt(7, 3), UniformAt(7, 4));
}

std::vector<SampledToken> Draw(Device& device, const std::vector<float>& logits,
                               const std::vector<SamplingRow>& rows) {
  const int64_t num_rows = static_cast<int64_t>(rows.size());
  const int64_t vocab =
      num_rows == 0 ? 8 : static_cast<int64_t>(logits.size()) / num_rows;
  std::vector<SampledToken> tokens;
  const absl::Status status =
      ops::Sample(device.backend(), device.Upload(logits, {num_rows, vocab}),
                  rows, &tokens, device.stream());
  EXPECT_TRUE(status.ok()) << status;
  return tokens;
}

// The token that the reference distribution gives to a uniform number, or -1
// where rounding may decide (within 1e-9 of a boundary).
int32_t Expected(absl::Span<const float> logits, const SamplingRow& row) {
  const Values p = SamplingDistribution(logits, row);
  const double u = UniformAt(row.seed, row.position);
  double sum = 0.0;
  for (int32_t id : DescendingOrder(p)) {
    sum += p[id];
    if (std::fabs(sum - u) < 1e-9 && sum < 1.0 - 1e-9) return -1;
    if (sum > u) return id;
  }
  return -1;
}

class SamplingTest : public testing::TestWithParam<BackendCase> {
 protected:
  static int64_t NumRows(Random& random, uint64_t seed) {
    return seed < 2 ? static_cast<int64_t>(seed) : random.Integer(1, 5);
  }

  Device device_{GetParam(), 2};
};

// Row 0 of random shape number `seed`; the lists must outlive it.
SamplingRow RandomRow(Random& random, uint64_t seed, int64_t vocab,
                      std::vector<int32_t>& history,
                      std::vector<int32_t>& banned) {
  SamplingRow row;
  row.temperature = static_cast<float>(0.05 + 2 * random.Uniform());
  if (seed % 2) row.top_k = static_cast<int32_t>(random.Integer(1, 400));
  if (seed % 3) row.top_p = static_cast<float>(random.Uniform());
  if (seed % 5 == 0) row.min_p = static_cast<float>(random.Uniform());
  for (int i = 0; i < 20; ++i) {
    history.push_back(static_cast<int32_t>(random.Integer(0, vocab - 1)));
  }
  for (int32_t id = 0; id < vocab - 1; id += 9) banned.push_back(id);
  if (seed % 4 == 0) {
    row.history = history;
    row.num_prompt_tokens = random.Integer(0, 20);
    row.repetition_penalty = static_cast<float>(0.5 + random.Uniform());
    row.presence_penalty = static_cast<float>(random.Uniform() - 0.5);
    row.frequency_penalty = static_cast<float>(random.Uniform());
  }
  if (seed % 6 == 0) row.banned_ids = banned;
  row.seed = seed * 0x123456789abcdefull;
  return row;
}

std::vector<float> RandomLogits(Random& random, uint64_t seed, int64_t count) {
  std::vector<float> logits =
      random.Floats(count, random.Integer(0, 1) ? 1 : 8);
  if (seed % 7 == 0) {  // ties
    for (float& logit : logits) logit = std::round(logit);
  }
  return logits;
}

// What the naive filters give.
TEST_P(SamplingTest, SampleOfRandomShapes) {
  int drawn = 0, checked = 0;
  ShapeCount shapes;
  const uint64_t num_shapes = GetParam().NumShapes(300);
  for (uint64_t seed = 0; seed < num_shapes; ++seed) {
    Random random(seed);
    const int64_t vocab =
        random.Integer(1, GetParam().Largest(seed % 10 ? 300 : 5000, seed));
    const int64_t num_rows = NumRows(random, seed);
    shapes.Add(num_rows, {vocab});
    const std::vector<float> logits =
        RandomLogits(random, seed, num_rows * vocab);
    std::vector<int32_t> history, banned;
    std::vector<SamplingRow> rows(
        num_rows, RandomRow(random, seed, vocab, history, banned));
    for (int64_t i = 0; i < num_rows; ++i) rows[i].position = i;
    const std::vector<SampledToken> tokens = Draw(device_, logits, rows);
    ASSERT_EQ(tokens.size(), rows.size());
    for (int64_t i = 0; i < num_rows; ++i) {
      ++drawn;
      const int32_t expected = Expected(
          absl::MakeConstSpan(logits).subspan(i * vocab, vocab), rows[i]);
      if (expected < 0) continue;
      ++checked;
      EXPECT_EQ(tokens[i].token_id, expected)
          << "seed " << seed << " row " << i;
    }
  }
  EXPECT_GT(checked, 0.9 * drawn);
  shapes.Check();
}

TEST_P(SamplingTest, ScoreTokensOfRandomShapes) {
  ShapeCount shapes;
  const uint64_t num_shapes = GetParam().NumShapes(100);
  for (uint64_t seed = 0; seed < num_shapes; ++seed) {
    SCOPED_TRACE(seed);
    Random random(500 + seed);
    const int64_t vocab =
        random.Integer(1, GetParam().Largest(seed % 10 ? 300 : 5000, seed));
    const int64_t num_rows = NumRows(random, seed);
    shapes.Add(num_rows, {vocab});
    const std::vector<float> logits =
        RandomLogits(random, seed, num_rows * vocab);
    std::vector<int32_t> targets;
    std::vector<int> num_logprobs;
    for (int64_t i = 0; i < num_rows; ++i) {
      targets.push_back(static_cast<int32_t>(random.Integer(0, vocab - 1)));
      num_logprobs.push_back(static_cast<int>(random.Integer(0, 20)));
    }
    std::vector<TokenLogprobs> scores;
    ASSERT_TRUE(ops::ScoreTokens(device_.backend(),
                                 device_.Upload(logits, {num_rows, vocab}),
                                 targets, num_logprobs, &scores,
                                 device_.stream())
                    .ok());
    ASSERT_EQ(scores.size(), targets.size());
    for (int64_t i = 0; i < num_rows; ++i) {
      const Values row(logits.begin() + i * vocab,
                       logits.begin() + (i + 1) * vocab);
      const Values expected = LogSoftmax(row);
      const std::vector<int32_t> order = DescendingOrder(row);
      // f32 of numbers up to some 40, and the sum's logarithm.
      EXPECT_NEAR(scores[i].logprob, expected[targets[i]], 4e-6);
      ASSERT_EQ(scores[i].top_ids.size(),
                std::min<size_t>(num_logprobs[i], vocab));
      for (size_t k = 0; k < scores[i].top_ids.size(); ++k) {
        EXPECT_EQ(scores[i].top_ids[k], order[k]);
        EXPECT_NEAR(scores[i].top_logprobs[k], expected[order[k]], 4e-6);
      }
    }
  }
  shapes.Check();
}

TEST_P(SamplingTest, FrequenciesFollowTheDistribution) {
  Random random(3);
  const int64_t vocab = 40;
  const std::vector<float> logits = random.Floats(vocab);
  SamplingRow row;
  row.temperature = 0.9f;
  row.top_p = 0.95f;
  row.seed = 99;
  const Values p = SamplingDistribution(logits, row);
  const int num_rows = 500 / GetParam().thinned_repeats;
  const int num_draws = 40 * num_rows;
  std::vector<int> counts(vocab);
  std::vector<float> repeated;
  for (int i = 0; i < num_rows; ++i) {
    repeated.insert(repeated.end(), logits.begin(), logits.end());
  }
  for (int done = 0; done < num_draws; done += num_rows) {
    std::vector<SamplingRow> rows(num_rows, row);
    for (int i = 0; i < num_rows; ++i) rows[i].position = done + i;
    for (const SampledToken& token : Draw(device_, repeated, rows)) {
      ++counts[token.token_id];
    }
  }
  double chi_square = 0.0;
  int degrees = -1;
  for (int64_t id = 0; id < vocab; ++id) {
    if (p[id] == 0.0) {
      EXPECT_EQ(counts[id], 0);
      continue;
    }
    ++degrees;
    const double expected = num_draws * p[id];
    chi_square += (counts[id] - expected) * (counts[id] - expected) / expected;
  }
  ASSERT_GE(degrees, 20);
  // Mean `degrees`, variance 2 * degrees; far outside 4 deviations is a bug.
  EXPECT_LT(chi_square, degrees + 4 * std::sqrt(2.0 * degrees));
}

TEST_P(SamplingTest, GreedyTakesTheLowestOfEqualLogits) {
  std::vector<float> logits(2 * 100, -1.0f);
  logits[37] = logits[80] = 2.0f;
  logits[100 + 99] = -0.5f;
  SamplingRow greedy;
  greedy.temperature = 0.0f;
  SamplingRow banned = greedy;
  const std::vector<int32_t> ban = {99};
  banned.banned_ids = ban;
  const auto tokens = Draw(device_, logits, {greedy, banned});
  EXPECT_EQ(tokens[0].token_id, 37);
  EXPECT_EQ(tokens[1].token_id, 0);
}

TEST_P(SamplingTest, RowsDoNotDependOnEachOtherOrOnThreads) {
  Random random(21);
  const int64_t vocab = 1000;
  const std::vector<float> logits = random.Floats(30 * vocab, 3.0f);
  std::vector<SamplingRow> rows(30);
  std::vector<int32_t> history = {1, 2, 3, 3, 3, 999};
  for (int i = 0; i < 30; ++i) {
    rows[i].seed = i;
    rows[i].position = 1000 - i;
    rows[i].num_logprobs = i % 5 - 1;
    rows[i].top_k = i % 3 * 20;
    rows[i].history = history;
    rows[i].num_prompt_tokens = i % 4;
    rows[i].frequency_penalty = i % 2 ? 0.5f : 0.0f;
  }
  const auto together = Draw(device_, logits, rows);
  Device single(GetParam(), 1);
  for (int i = 0; i < 30; ++i) {
    const std::vector<float> row(logits.begin() + i * vocab,
                                 logits.begin() + (i + 1) * vocab);
    const SampledToken alone = Draw(single, row, {rows[i]})[0];
    EXPECT_EQ(alone.token_id, together[i].token_id);
    EXPECT_EQ(alone.logprobs.logprob, together[i].logprobs.logprob);
    EXPECT_EQ(alone.logprobs.top_ids, together[i].logprobs.top_ids);
    EXPECT_EQ(alone.logprobs.top_logprobs, together[i].logprobs.top_logprobs);
  }
  EXPECT_TRUE(Draw(device_, {}, {}).empty());
}

// Penalties and filters change what is drawn, never what is reported.
TEST_P(SamplingTest, LogprobsAreOfTheUnmodifiedLogits) {
  Random random(8);
  for (int64_t vocab : {1, 15, 16, 17, 1000}) {
    std::vector<float> logits = random.Floats(vocab, 5.0f);
    if (vocab > 4) logits[3] = logits[4];
    const Values expected = LogSoftmax(ToValues(logits));
    const std::vector<int32_t> order = DescendingOrder(ToValues(logits));
    SamplingRow row;
    row.temperature = 0.5f;
    row.top_k = 3;
    row.num_logprobs = 20;
    const std::vector<int32_t> banned = {order[0]};
    if (vocab > 1) row.banned_ids = banned;
    const SampledToken token = Draw(device_, logits, {row})[0];
    EXPECT_NEAR(token.logprobs.logprob, expected[token.token_id], 1e-6);
    ASSERT_EQ(token.logprobs.top_ids.size(), std::min<size_t>(20, vocab));
    for (size_t i = 0; i < token.logprobs.top_ids.size(); ++i) {
      EXPECT_EQ(token.logprobs.top_ids[i], order[i]);
      EXPECT_NEAR(token.logprobs.top_logprobs[i], expected[order[i]], 2e-6);
    }
    std::vector<TokenLogprobs> scores;
    ASSERT_TRUE(
        ops::ScoreTokens(device_.backend(), device_.Upload(logits, {1, vocab}),
                         {token.token_id}, {20}, &scores, device_.stream())
            .ok());
    EXPECT_EQ(scores[0].logprob, token.logprobs.logprob);
    EXPECT_EQ(scores[0].top_ids, token.logprobs.top_ids);
  }
}

TEST_P(SamplingTest, BadLogitsAreErrorsThatNameTheRow) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<SampledToken> tokens(1);
  std::vector<TokenLogprobs> scores(1);
  const auto sample = [&](float bad, int64_t at) {
    std::vector<float> logits(3 * 50, 1.0f);
    logits[at] = bad;
    return ops::Sample(device_.backend(), device_.Upload(logits, {3, 50}),
                       std::vector<SamplingRow>(3), &tokens, device_.stream());
  };
  for (int64_t at : {50, 66, 99}) {  // within a vector and in the tail
    const absl::Status status = sample(nan, at);
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("Sample: logits of row 1 contain NaN"));
  }
  EXPECT_THAT(std::string(sample(inf, 149).message()),
              HasSubstr("logits of row 2 contain infinity"));
  EXPECT_EQ(tokens.size(), 1u) << "out was touched";
  EXPECT_TRUE(sample(-inf, 149).ok());
  const absl::Status none = ops::Sample(
      device_.backend(), device_.Upload(std::vector<float>(2, -inf), {1, 2}),
      {SamplingRow()}, &tokens, device_.stream());
  EXPECT_EQ(none.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(none.message()), HasSubstr("every token of row 0"));
  EXPECT_EQ(ops::ScoreTokens(device_.backend(),
                             device_.Upload(std::vector<float>{1, nan}, {1, 2}),
                             {0}, {0}, &scores, device_.stream())
                .code(),
            absl::StatusCode::kInternal);
}

// The temperatures at the ends of f32 stay defined.
TEST_P(SamplingTest, ExtremeTemperatures) {
  const std::vector<float> logits = {1.0f, 3.0f, 2.9999f, -3.0f};
  SamplingRow row;
  row.temperature = std::numeric_limits<float>::denorm_min();
  EXPECT_EQ(Draw(device_, logits, {row})[0].token_id, 1);
  row.temperature = std::numeric_limits<float>::max();
  std::vector<int> seen(4);
  for (row.position = 0; row.position < 100; ++row.position) {
    ++seen[Draw(device_, logits, {row})[0].token_id];
  }
  EXPECT_THAT(seen, testing::Each(testing::Ge(10)));  // even
}

INSTANTIATE_TEST_SUITE_P(Backend, SamplingTest,
                         testing::ValuesIn(BackendCases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace octet::test
