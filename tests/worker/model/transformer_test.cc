// Promise 1: the same bits at every width, for every batch composition.
#include "worker/model/transformer.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "gtest/gtest.h"
#include "kernels/cpu/isa.h"
#include "tests/reference/host_tensor.h"
#include "tests/reference/reference_mixtral.h"
#include "tests/support/ranks.h"
#include "tests/worker/model/tiny_model.h"

namespace octet {
namespace {

using test::Routing;
using test::TinyModel;
using test::TinyRank;

// `count` tokens of a sequence from `start`.
struct Turn {
  int sequence;
  int64_t start;
  int64_t count;
};
using Schedule = std::vector<std::vector<Turn>>;  // steps of turns

struct RunSpec {
  int num_ranks = 1;
  std::string placement;
  DType dtype = DType::kF32;
  cpu::Isa isa = cpu::BestIsa();
  int num_threads = 1;
  int block_tokens = 4;
  uint32_t block_seed = 0;  // which blocks a sequence gets, in which order
  std::vector<int> homes;   // rank of each sequence
  Schedule schedule;

  std::string Name() const {
    return absl::StrCat(num_ranks, " ranks, placement '", placement, "', ",
                        octet::Name(dtype), ", ", cpu::Name(isa), ", ",
                        num_threads, " threads, blocks of ", block_tokens,
                        " seed ", block_seed, ", ", schedule.size(), " steps");
  }
};

using Sequences = std::vector<std::vector<int32_t>>;

Sequences MakeSequences() {
  std::mt19937 random(5);
  Sequences sequences;
  for (int length : {20, 1, 33, 7}) {
    std::vector<int32_t>& ids = sequences.emplace_back();
    for (int i = 0; i < length; ++i) {
      ids.push_back(static_cast<int32_t>(random() % 61));
    }
  }
  return sequences;
}

// Each sequence starts `stagger` steps after the one before and takes `chunk`
// tokens per step.
Schedule Chunked(const Sequences& sequences, int64_t chunk, int stagger) {
  Schedule schedule;
  for (size_t s = 0; s < sequences.size(); ++s) {
    const int64_t length = static_cast<int64_t>(sequences[s].size());
    size_t step = s * stagger;
    for (int64_t start = 0; start < length; start += chunk, ++step) {
      if (schedule.size() <= step) schedule.resize(step + 1);
      schedule[step].push_back(
          {static_cast<int>(s), start, std::min(chunk, length - start)});
    }
  }
  return schedule;
}

// Block tables of all sequences: each takes blocks of its home in random order.
std::vector<std::vector<int32_t>> AssignBlocks(const RunSpec& run,
                                               const Sequences& sequences,
                                               int num_blocks) {
  std::mt19937 random(run.block_seed);
  std::vector<std::vector<int32_t>> pools(run.num_ranks);
  for (auto& pool : pools) {
    pool.resize(num_blocks);
    std::iota(pool.begin(), pool.end(), 0);
    if (run.block_seed != 0) std::shuffle(pool.begin(), pool.end(), random);
  }
  std::vector<std::vector<int32_t>> tables;
  for (size_t s = 0; s < sequences.size(); ++s) {
    auto& pool = pools[run.homes[s]];
    const size_t count =
        (sequences[s].size() + run.block_tokens - 1) / run.block_tokens;
    tables.emplace_back(pool.end() - count, pool.end());
    pool.resize(pool.size() - count);
  }
  return tables;
}

// One step on one rank; writes the logits of every position.
absl::Status RunStep(const RunSpec& run, const std::vector<Turn>& turns,
                     const Sequences& sequences,
                     const std::vector<std::vector<int32_t>>& tables, int rank,
                     int64_t step_id, TinyRank& tiny, int64_t vocab_size,
                     std::vector<std::vector<float>>& logits) {
  std::vector<int64_t> rank_tokens(run.num_ranks);
  std::vector<SequenceSlice> slices;
  std::vector<float*> destinations;
  for (const Turn& turn : turns) {
    const int home = run.homes[turn.sequence];
    rank_tokens[home] += turn.count;
    if (home != rank) continue;
    slices.push_back({turn.start,
                      absl::MakeConstSpan(sequences[turn.sequence])
                          .subspan(turn.start, turn.count),
                      tables[turn.sequence]});
    for (int64_t i = 0; i < turn.count; ++i) {
      destinations.push_back(
          &logits[turn.sequence][(turn.start + i) * vocab_size]);
    }
  }
  OCTET_RETURN_IF_ERROR(
      tiny.transformer->Forward(step_id, slices, rank_tokens));
  const size_t limit = tiny.transformer->max_logit_rows();
  for (size_t begin = 0; begin < destinations.size(); begin += limit) {
    std::vector<int32_t> rows(std::min(limit, destinations.size() - begin));
    std::iota(rows.begin(), rows.end(), static_cast<int32_t>(begin));
    OCTET_ASSIGN_OR_RETURN(const ConstTensor out,
                           tiny.transformer->Logits(rows));
    for (size_t i = 0; i < rows.size(); ++i) {
      OCTET_RETURN_IF_ERROR(tiny.backend->CopyToHost(
          destinations[begin + i], out.Rows(static_cast<int64_t>(i), 1).data(),
          vocab_size * sizeof(float), tiny.transformer->stream()));
    }
    OCTET_RETURN_IF_ERROR(
        tiny.backend->Synchronize(tiny.transformer->stream()));
  }
  return absl::OkStatus();
}

// Logits [S, V] of every sequence.
std::vector<std::vector<float>> LogitsOf(const TinyModel& model,
                                         const Sequences& sequences,
                                         const RunSpec& run) {
  test::TinyRankOptions options;
  options.dtype = run.dtype;
  options.placement = run.placement;
  options.block_tokens = run.block_tokens;
  options.num_blocks = 80 / run.block_tokens + 8;
  options.backend.num_threads = run.num_threads;
  options.backend.isa = run.isa;
  const int64_t vocab_size = model.config.vocab_size;
  const auto tables = AssignBlocks(run, sequences, options.num_blocks);
  std::vector<std::vector<float>> logits;
  for (const auto& ids : sequences) {
    logits.emplace_back(ids.size() * vocab_size, -1.0f);
  }
  const auto results =
      test::RunRanks(run.num_ranks, [&](Communicator& communicator) {
        OCTET_ASSIGN_OR_RETURN(const auto tiny,
                               test::NewTinyRank(model, options, communicator));
        int64_t step_id = 0;
        for (const auto& turns : run.schedule) {
          OCTET_RETURN_IF_ERROR(RunStep(run, turns, sequences, tables,
                                        communicator.rank(), step_id++, *tiny,
                                        vocab_size, logits));
        }
        return absl::OkStatus();
      });
  for (const absl::Status& status : results) EXPECT_TRUE(status.ok()) << status;
  return logits;
}

// Every sequence alone, in one piece, on one rank.
std::vector<std::vector<float>> Baseline(const TinyModel& model,
                                         const Sequences& sequences,
                                         DType dtype, cpu::Isa isa) {
  RunSpec run;
  run.dtype = dtype;
  run.isa = isa;
  run.homes.assign(sequences.size(), 0);
  for (size_t s = 0; s < sequences.size(); ++s) {
    run.schedule.push_back(
        {{static_cast<int>(s), 0, static_cast<int64_t>(sequences[s].size())}});
  }
  return LogitsOf(model, sequences, run);
}

void ExpectSameBits(const std::vector<std::vector<float>>& actual,
                    const std::vector<std::vector<float>>& expected,
                    const std::string& name) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t s = 0; s < actual.size(); ++s) {
    EXPECT_EQ(std::memcmp(actual[s].data(), expected[s].data(),
                          expected[s].size() * sizeof(float)),
              0)
        << "sequence " << s << " differs: " << name;
  }
}

std::vector<int> Homes(size_t num_sequences, int num_ranks, int kind) {
  std::vector<int> homes;
  for (size_t s = 0; s < num_sequences; ++s) {
    homes.push_back(kind == 0   ? static_cast<int>(s) % num_ranks
                    : kind == 1 ? num_ranks - 1
                                : static_cast<int>(s * 5 + 2) % num_ranks);
  }
  return homes;
}

struct BitsCase {
  DType dtype;
  Routing routing;
};

class SameBitsTest : public ::testing::TestWithParam<BitsCase> {};

TEST_P(SameBitsTest, AtEveryWidthForEveryChunkingHomeAndBlockTable) {
  const auto [dtype, routing] = GetParam();
  const TinyModel model = test::MakeTinyModel(test::TinyConfig(), routing, 11);
  const Sequences sequences = MakeSequences();
  const auto expected = Baseline(model, sequences, dtype, cpu::BestIsa());
  int kind = 0;
  for (int num_ranks : {1, 2, 3, 4, 7, 8, 12}) {
    for (int64_t chunk : {1, 3, 16, 64}) {
      RunSpec run;
      run.num_ranks = num_ranks;
      run.dtype = dtype;
      run.homes = Homes(sequences.size(), num_ranks, kind % 3);
      run.block_seed = kind;
      run.block_tokens = kind % 2 == 0 ? 4 : 16;
      run.schedule = Chunked(sequences, chunk, kind % 3);
      ++kind;
      ExpectSameBits(LogitsOf(model, sequences, run), expected, run.Name());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, SameBitsTest,
    ::testing::Values(BitsCase{DType::kF32, Routing::kRandom},
                      BitsCase{DType::kBF16, Routing::kRandom},
                      BitsCase{DType::kBF16, Routing::kSkewed},
                      BitsCase{DType::kF32, Routing::kTied}));

// The bits are right ones: the baseline against double precision that rounds
// where Octet does. In bf16 what is left are values beside a rounding boundary,
// one bf16 step (2^-8) apart here and there.
TEST(TransformerTest, AgreesWithDoublePrecision) {
  for (int window : {0, 6}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      ModelConfig config = test::TinyConfig();
      config.sliding_window = window;
      const TinyModel model = test::MakeTinyModel(config, Routing::kRandom, 16);
      const Sequences sequences = MakeSequences();
      const auto logits = Baseline(model, sequences, dtype, cpu::BestIsa());
      const test::ReferenceMixtral reference =
          test::ReferenceOf(model, dtype == DType::kBF16);
      for (size_t s = 0; s < sequences.size(); ++s) {
        const test::Difference difference = test::Compare(
            test::ToValues(logits[s]), reference.Logits(sequences[s]));
        ASSERT_TRUE(difference.comparable);
        std::printf("%s, window %d, sequence %zu: max error %.1e\n",
                    std::string(octet::Name(dtype)).c_str(), window, s,
                    difference.max_relative);
        EXPECT_LT(difference.max_relative, dtype == DType::kF32 ? 1e-5 : 1e-2);
      }
    }
  }
}

TEST(TransformerTest, PlacementDoesNotShow) {
  const TinyModel model =
      test::MakeTinyModel(test::TinyConfig(), Routing::kRandom, 12);
  const Sequences sequences = MakeSequences();
  const auto expected =
      Baseline(model, sequences, DType::kBF16, cpu::BestIsa());
  for (const char* placement :
       {"0-7:0", "0-7:0-2", "0:0,1;1-4:2;5-7:0,2", "0-3:2;4-7:1"}) {
    RunSpec run;
    run.num_ranks = 3;
    run.placement = placement;
    run.dtype = DType::kBF16;
    run.homes = Homes(sequences.size(), 3, 0);
    run.schedule = Chunked(sequences, 5, 1);
    ExpectSameBits(LogitsOf(model, sequences, run), expected, run.Name());
  }
}

TEST(TransformerTest, OneHotRoutingAndSlidingWindowKeepTheBits) {
  for (int top_k : {1, 3}) {
    ModelConfig config = test::TinyConfig();
    config.top_k = top_k;
    config.sliding_window = 6;
    const TinyModel model = test::MakeTinyModel(config, Routing::kSkewed, 13);
    const Sequences sequences = MakeSequences();
    const auto expected =
        Baseline(model, sequences, DType::kBF16, cpu::BestIsa());
    for (int num_ranks : {2, 8, 12}) {
      RunSpec run;
      run.num_ranks = num_ranks;
      run.dtype = DType::kBF16;
      run.homes = Homes(sequences.size(), num_ranks, 2);
      run.schedule = Chunked(sequences, 4, 1);
      ExpectSameBits(LogitsOf(model, sequences, run), expected, run.Name());
    }
  }
}

TEST(TransformerTest, EveryInstructionSetKeepsItsOwnBits) {
  const TinyModel model =
      test::MakeTinyModel(test::TinyConfig(), Routing::kRandom, 14);
  const Sequences sequences = MakeSequences();
  for (cpu::Isa isa : cpu::SupportedIsas()) {
    for (DType dtype : {DType::kF32, DType::kBF16}) {
      const auto expected = Baseline(model, sequences, dtype, isa);
      RunSpec run;
      run.num_ranks = 3;
      run.dtype = dtype;
      run.isa = isa;
      run.num_threads = 2;
      run.homes = Homes(sequences.size(), 3, 0);
      run.schedule = Chunked(sequences, 7, 1);
      ExpectSameBits(LogitsOf(model, sequences, run), expected, run.Name());
    }
  }
}

TEST(TransformerTest, CountsEveryRowOfEveryExpert) {
  const ModelConfig config = test::TinyConfig();
  const TinyModel model = test::MakeTinyModel(config, Routing::kSkewed, 15);
  const std::vector<int32_t> ids = {1, 2, 3, 4, 5};
  const std::vector<int32_t> blocks = {0, 1};
  std::vector<std::vector<int64_t>> counts(2);
  const auto results = test::RunRanks(2, [&](Communicator& communicator) {
    OCTET_ASSIGN_OR_RETURN(const auto tiny,
                           test::NewTinyRank(model, {}, communicator));
    const std::vector<SequenceSlice> slices = {{0, ids, blocks}};
    OCTET_RETURN_IF_ERROR(tiny->transformer->Forward(0, slices, {5, 5}));
    const auto rows = tiny->transformer->expert_rows();
    counts[communicator.rank()].assign(rows.begin(), rows.end());
    return absl::OkStatus();
  });
  for (const absl::Status& status : results) EXPECT_TRUE(status.ok()) << status;
  // Experts 0 and 1 of each layer, on rank 0, get every token of both ranks.
  std::vector<int64_t> expected(2 * 8);
  for (int layer : {0, 1}) expected[layer * 8] = expected[layer * 8 + 1] = 10;
  EXPECT_EQ(counts[0], expected);
  EXPECT_EQ(counts[1], std::vector<int64_t>(2 * 8));
}

}  // namespace
}  // namespace octet
