#include "worker/checkpoint/random_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/support/data.h"
#include "tests/worker/checkpoint/checkpoint_files.h"
#include "tests/worker/checkpoint/memory_backend.h"
#include "worker/checkpoint/hf_loader.h"
#include "worker/checkpoint/random_values.h"

namespace octet {
namespace {

using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

std::vector<float> Normal(uint64_t key, int64_t first, size_t count) {
  std::vector<float> values(count);
  FillNormal(key, first, 1.0f, absl::MakeSpan(values));
  return values;
}

TEST(RandomValuesTest, AreNormal) {
  constexpr size_t kCount = 1 << 20;
  const std::vector<float> values = Normal(RandomKey(1, "t"), 0, kCount);
  double sum = 0, squares = 0, fourths = 0;
  size_t beyond_two = 0;
  for (float value : values) {
    sum += value;
    squares += double{value} * value;
    fourths += std::pow(double{value}, 4);
    beyond_two += std::fabs(value) > 2;
    ASSERT_LT(std::fabs(value), 4.5f);
  }
  // Five standard errors of each moment of 2^20 normal numbers.
  EXPECT_NEAR(sum / kCount, 0, 5 / 1024.0);
  EXPECT_NEAR(squares / kCount, 1, 5 * std::sqrt(2) / 1024);
  EXPECT_NEAR(fourths / kCount, 3, 5 * std::sqrt(96) / 1024);
  EXPECT_NEAR(beyond_two / double{kCount}, std::erfc(2 / std::sqrt(2)),
              5 * 0.21 / 1024);
}

TEST(RandomValuesTest, NeighboursAndKeysAreUncorrelated) {
  constexpr size_t kCount = 1 << 18;
  const std::vector<float> a = Normal(RandomKey(1, "t"), 0, kCount);
  for (const std::vector<float>& b : {Normal(RandomKey(1, "t"), 1, kCount),
                                      Normal(RandomKey(1, "t"), 2, kCount),
                                      Normal(RandomKey(2, "t"), 0, kCount),
                                      Normal(RandomKey(1, "u"), 0, kCount)}) {
    double product = 0;
    for (size_t i = 0; i < kCount; ++i) product += double{a[i]} * b[i];
    EXPECT_NEAR(product / kCount, 0, 5 / 512.0);
  }
}

TEST(RandomValuesTest, DependOnKeyAndIndexAlone) {
  const uint64_t key = RandomKey(3, "model.norm.weight");
  const std::vector<float> whole = Normal(key, 0, 1000);
  for (int64_t first : {0, 1, 2, 501, 999}) {
    for (size_t count : {size_t{1}, size_t{2}, 1000 - size_t(first)}) {
      if (first + count > 1000) continue;
      EXPECT_EQ(Normal(key, first, count),
                std::vector<float>(whole.begin() + first,
                                   whole.begin() + first + count));
    }
  }
}

// The same on every machine and in every release: checkpoints are named by
// their seed in measurements. The numbers are the hash's quantiles, computed
// apart in Python (statistics.NormalDist).
TEST(RandomValuesTest, KnownValues) {
  const std::vector<float> values =
      Normal(RandomKey(42, "lm_head.weight"), 0, 4);
  const double expected[] = {-0.897922, 2.319124, 0.979809, -0.637479};
  for (int i = 0; i < 4; ++i) EXPECT_NEAR(values[i], expected[i], 1e-4);
}

class RandomCheckpointTest : public ::testing::Test {
 protected:
  std::set<std::string> Names(const std::string& dir) const {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(dir)) {
      names.insert(entry.path().filename());
    }
    return names;
  }
  const test::TempDir dir_;
  const std::string out_ = dir_.path() + "/model";
  const ModelConfig config_ = test::SmallConfig();
};

TEST_F(RandomCheckpointTest, LoadsAsTheModelItIs) {
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    for (bool tied : {false, true}) {
      ModelConfig config = config_;
      config.tie_word_embeddings = tied;
      config.sliding_window = 8;
      RandomCheckpointOptions options;
      options.dtype = dtype;
      const absl::Status status = WriteRandomCheckpoint(out_, config, options);
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_THAT(Names(out_),
                  UnorderedElementsAre("config.json", "generation_config.json",
                                       "model.safetensors"));
      const auto loaded = LoadModelConfig(out_);
      ASSERT_TRUE(loaded.ok()) << loaded.status();
      config.checkpoint_dtype = dtype;
      EXPECT_EQ(*loaded, config);
      const auto checkpoint = HfCheckpoint::Open(out_);
      ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
      test::MemoryBackendStats stats;
      const auto backend = test::NewMemoryBackend(&stats);
      LoadOptions load;
      load.expert_ids = {0, 1, 2, 3};
      const auto weights = LoadMixtral(**checkpoint, *loaded, *backend, load);
      ASSERT_TRUE(weights.ok()) << weights.status();
      EXPECT_EQ(weights->dtype, dtype);
      for (int i = 0; i < 12; ++i) {
        EXPECT_EQ(weights->final_norm.view.as<float>()[i], 1.0f);
      }
      std::filesystem::remove_all(out_);
    }
  }
}

TEST_F(RandomCheckpointTest, ContentDependsOnSeedAndNameOnly) {
  RandomCheckpointOptions options;
  options.seed = 5;
  options.num_threads = 1;
  ASSERT_TRUE(WriteRandomCheckpoint(out_, config_, options).ok());
  options.num_threads = 3;
  options.shard_bytes = 3000;
  std::vector<int64_t> progress;
  options.progress = [&](int64_t done, int64_t total) {
    progress.push_back(done);
    EXPECT_LE(done, total);
  };
  const std::string sharded = dir_.path() + "/sharded/";  // a slash is fine
  ASSERT_TRUE(WriteRandomCheckpoint(sharded, config_, options).ok());
  options.seed = 6;
  const std::string other = dir_.path() + "/other";
  ASSERT_TRUE(WriteRandomCheckpoint(other, config_, options).ok());

  const auto a = HfCheckpoint::Open(out_);
  const auto b = HfCheckpoint::Open(sharded);
  const auto c = HfCheckpoint::Open(other);
  ASSERT_TRUE(a.ok() && b.ok() && c.ok());
  EXPECT_GT((*b)->files().size(), 4u);
  EXPECT_EQ((*a)->names(), (*b)->names());
  const auto bytes = [](const HfCheckpoint& checkpoint,
                        const std::string& name) {
    const TensorRef ref = *checkpoint.Find(name);
    std::string data(ref.entry->num_bytes(), '\0');
    EXPECT_TRUE(ref.file->Read(*ref.entry, 0, data.size(), data.data()).ok());
    return data;
  };
  std::set<std::string> distinct;
  size_t num_matrices = 0;
  for (const std::string& name : (*a)->names()) {
    EXPECT_EQ(bytes(**a, name), bytes(**b, name));
    if (absl::EndsWith(name, "norm.weight")) continue;
    EXPECT_NE(bytes(**a, name), bytes(**c, name));
    distinct.insert(bytes(**a, name));
    ++num_matrices;
  }
  EXPECT_EQ(distinct.size(), num_matrices);
  EXPECT_EQ(progress.back(), progress[progress.size() / 2 - 1]);
}

TEST_F(RandomCheckpointTest, BF16IsTheRoundedF32) {
  RandomCheckpointOptions options;
  options.dtype = DType::kF32;
  options.std_dev = 0;  // 1/sqrt(inputs)
  ASSERT_TRUE(WriteRandomCheckpoint(out_, config_, options).ok());
  options.dtype = DType::kBF16;
  const std::string narrow = dir_.path() + "/narrow";
  ASSERT_TRUE(WriteRandomCheckpoint(narrow, config_, options).ok());
  const std::string name =
      "model.layers.0.block_sparse_moe.experts.1.w2.weight";
  const auto wide = HfCheckpoint::Open(out_);
  const auto rounded = HfCheckpoint::Open(narrow);
  ASSERT_TRUE(wide.ok() && rounded.ok());
  const TensorRef w = *(*wide)->Find(name);
  const TensorRef r = *(*rounded)->Find(name);
  std::vector<float> f32(12 * 20);
  std::vector<BF16> bf16(12 * 20);
  ASSERT_TRUE(w.file->Read(*w.entry, 0, 12 * 20 * 4, f32.data()).ok());
  ASSERT_TRUE(r.file->Read(*r.entry, 0, 12 * 20 * 2, bf16.data()).ok());
  double squares = 0;
  for (size_t i = 0; i < f32.size(); ++i) {
    EXPECT_EQ(bf16[i].bits, ToBF16(f32[i]).bits);
    squares += double{f32[i]} * f32[i];
  }
  // 240 numbers of variance 1/20: five standard errors.
  EXPECT_NEAR(squares / 240 * 20, 1, 5 * std::sqrt(2.0 / 240));
}

TEST_F(RandomCheckpointTest, CopiesTheTokenizer) {
  test::WriteText(dir_.path() + "/t.model", "pieces");
  RandomCheckpointOptions options;
  options.tokenizer_path = dir_.path() + "/t.model";
  ASSERT_TRUE(WriteRandomCheckpoint(out_, config_, options).ok());
  EXPECT_EQ(test::ReadText(out_ + "/tokenizer.model"), "pieces");
}

TEST_F(RandomCheckpointTest, FailureLeavesNothing) {
  RandomCheckpointOptions options;
  options.tokenizer_path = dir_.path() + "/absent";
  EXPECT_EQ(WriteRandomCheckpoint(out_, config_, options).message(),
            options.tokenizer_path +
                ": cannot copy tokenizer: No such file or directory");
  EXPECT_THAT(Names(dir_.path()), IsEmpty());
}

TEST_F(RandomCheckpointTest, RefusesWhatItShould) {
  EXPECT_EQ(
      WriteRandomCheckpoint(dir_.path() + "/no/model", config_, {}).message(),
      dir_.path() +
          "/no/model: cannot create directory: No such file or "
          "directory");
  ModelConfig config = config_;
  config.top_k = 5;
  EXPECT_EQ(WriteRandomCheckpoint(out_, config, {}).message(),
            "new checkpoint: 'num_experts_per_tok' is 5, expected at most "
            "'num_local_experts' (4)");
  RandomCheckpointOptions options;
  options.dtype = DType::kF16;
  EXPECT_EQ(WriteRandomCheckpoint(out_, config_, options).message(),
            "dtype of a random checkpoint is f16, expected f32 or bf16");
  options = {};
  options.std_dev = -1;
  EXPECT_EQ(WriteRandomCheckpoint(out_, config_, options).message(),
            "standard deviation of a random checkpoint is -1, expected 0 to "
            "100");
  EXPECT_THAT(Names(dir_.path()), IsEmpty());

  std::filesystem::create_directory(out_);  // empty: taken over
  ASSERT_TRUE(WriteRandomCheckpoint(out_, config_, {}).ok());
  const absl::Status status = WriteRandomCheckpoint(out_, config_, {});
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(status.message(),
            out_ + ": already exists and is not an empty directory");
}

TEST(ModelPresetTest, PresetsAreValidAndOfTheirSize) {
  std::vector<std::string> names;
  for (const ModelPreset& preset : ModelPresets()) {
    names.emplace_back(preset.name);
    EXPECT_TRUE(ValidateModelConfig(preset.config, preset.name).ok());
  }
  EXPECT_THAT(names, testing::ElementsAre("tiny", "small", "mixtral-8x7b",
                                          "mixtral-8x22b"));
  EXPECT_EQ(*FindModelPreset("mixtral-8x7b"), ModelConfig());
  EXPECT_EQ(FindModelPreset("small")->num_parameters(), 17'443'072);
  // The published 141 B, 39 B active.
  EXPECT_NEAR(FindModelPreset("mixtral-8x22b")->num_parameters(), 140.6e9, 1e8);
  EXPECT_NEAR(FindModelPreset("mixtral-8x22b")->num_active_parameters(), 39.1e9,
              1e8);
  EXPECT_EQ(FindModelPreset("huge").status().message(),
            "preset is 'huge', expected one of tiny, small, mixtral-8x7b, "
            "mixtral-8x22b");
}

}  // namespace
}  // namespace octet
