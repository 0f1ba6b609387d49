// Names, shapes and places of parameters; what each method trains.
#include "worker/train/parameters.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/training_backend.h"
#include "tests/worker/train/trainer_rank.h"
#include "worker/checkpoint/mixtral_tensors.h"
#include "worker/train/initial_values.h"
#include "worker/train/shard_map.h"
#include "worker/train/trainable.h"

namespace octet {
namespace {

TEST(ParametersTest, NamesAndShapesAreThoseOfACheckpoint) {
  for (const bool tied : {false, true}) {
    const ModelConfig config = test::TrainerConfig(tied);
    std::map<std::string, std::vector<int64_t>> expected, found;
    for (const TensorSpec& spec : MixtralTensors(config, DType::kF32)) {
      expected[spec.name] = spec.shape;
    }
    int64_t total = 0;
    for (const Parameter& parameter : ModelParameters(config)) {
      found[parameter.name] = parameter.shape();
      total += parameter.num_elements();
    }
    EXPECT_EQ(found, expected);
    EXPECT_EQ(total, config.num_parameters());
  }
}

TEST(ParametersTest, AdaptersStackBesideTheirWeights) {
  v1::CreateRunRequest request;
  request.set_method(v1::TRAINING_METHOD_LORA);
  request.mutable_lora()->set_rank(8);
  request.mutable_lora()->add_target_modules("q_proj");
  request.mutable_lora()->add_target_modules("v_proj");
  request.mutable_lora()->add_target_modules("experts.2.w3");
  const auto set = ParameterSet::Create(test::TrainerConfig(), request);
  ASSERT_TRUE(set.ok()) << set.status();
  // Two layers of q, v and one w3: A [8, k] and B [n, 8] each.
  EXPECT_EQ(set->num_trainable(), 2 * 8 * ((32 + 32) + (16 + 32) + (48 + 32)));
  const int v =
      set->FindParameter("model.layers.1.self_attn.v_proj.lora_B.weight");
  ASSERT_GE(v, 0);
  const Parameter& b = set->parameters()[v];
  EXPECT_EQ(b.row_begin, 32 + 16);  // after q and k
  EXPECT_EQ(b.col_begin, 8);        // after q's columns
  EXPECT_EQ(b.shape(), (std::vector<int64_t>{16, 8}));
  const int source = set->FindSource(b.weight);
  ASSERT_GE(source, 0);
  EXPECT_EQ(set->sources()[source].rows, 64);
  EXPECT_EQ(set->sources()[source].cols, 16);
  EXPECT_FALSE(set->sources()[source].whole);
  EXPECT_EQ(set->FindSource({WeightKind::kW13, 0, 1, WeightPart::kLoraA}), -1);
  EXPECT_GE(set->FindSource({WeightKind::kW13, 0, 2, WeightPart::kLoraA}), 0);
  EXPECT_EQ(set->FindSource({WeightKind::kQkv, 0}), -1);
}

// Weights in 4 bits take adapters beside them, and no training themselves.
TEST(ParametersTest, QuantizedWeightsAreNotTrainedThemselves) {
  const auto check = [](const v1::CreateRunRequest& request,
                        const Quantization& quantization) {
    const auto set = ParameterSet::Create(test::TrainerConfig(), request);
    EXPECT_TRUE(set.ok()) << set.status();
    return CheckNotQuantized(set->parameters(), quantization);
  };
  v1::CreateRunRequest request;
  request.set_method(v1::TRAINING_METHOD_LORA);
  request.mutable_lora()->set_rank(8);
  request.mutable_lora()->add_target_modules("all");
  request.mutable_lora()->add_modules_to_save("embed_tokens");
  EXPECT_TRUE(check(request, {.nf4 = true, .gate = true}).ok());
  request.Clear();
  request.set_method(v1::TRAINING_METHOD_FREEZE);
  request.add_trainable("*.block_sparse_moe.gate");
  EXPECT_TRUE(check(request, {.nf4 = true}).ok());
  EXPECT_EQ(check(request, {.nf4 = true, .gate = true}).message(),
            "model.layers.0.block_sparse_moe.gate.weight is kept in NF4 and "
            "would be trained itself, expected an adapter beside it (LoRA)");
  request.Clear();
  request.set_method(v1::TRAINING_METHOD_FULL);
  EXPECT_TRUE(check(request, {}).ok());
  EXPECT_EQ(check(request, {.nf4 = true}).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ParametersTest, SeedsCountsOfTheChineseMixtralAdapter) {
  // seed: r 64 on every linear layer and the whole of embedding and head.
  ModelConfig config;  // Mixtral 8x7B
  v1::CreateRunRequest request;
  request.set_method(v1::TRAINING_METHOD_LORA);
  request.mutable_lora()->set_rank(64);
  request.mutable_lora()->add_target_modules("all");
  request.mutable_lora()->add_modules_to_save("embed_tokens");
  request.mutable_lora()->add_modules_to_save("lm_head");
  const auto set = ParameterSet::Create(config, request);
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->num_trainable(), 1'231'044'608);
  EXPECT_EQ(set->num_total(), 46'702'792'704 + 968'900'608);
}

TEST(ParametersTest, PatternsMatchWholeNames) {
  EXPECT_TRUE(MatchesPattern("model.layers.31.x", "model.layers.31.*"));
  EXPECT_TRUE(MatchesPattern("abc", "*"));
  EXPECT_TRUE(MatchesPattern("abcbc", "a*bc"));
  EXPECT_TRUE(MatchesPattern("", "*"));
  EXPECT_FALSE(MatchesPattern("model.layers.3.x", "model.layers.31.*"));
  EXPECT_FALSE(MatchesPattern("abc", "ab"));
  EXPECT_FALSE(MatchesPattern("abc", "bc"));
  EXPECT_FALSE(MatchesPattern("abc", "a*d"));
}

TEST(ParametersTest, FreshAdaptersAreUniformAndPieceable) {
  Parameter a;
  a.name = "m.lora_A.weight";
  a.weight.part = WeightPart::kLoraA;
  a.rows = 16;
  a.cols = 400;
  std::vector<float> all(16 * 400), part(100), other(16 * 400);
  FillFreshAdapter(a, 7, 0, absl::MakeSpan(all));
  FillFreshAdapter(a, 7, 3000, absl::MakeSpan(part));
  FillFreshAdapter(a, 8, 0, absl::MakeSpan(other));
  EXPECT_TRUE(std::equal(part.begin(), part.end(), all.begin() + 3000));
  EXPECT_NE(all, other);
  double sum = 0, squares = 0;
  for (float value : all) {
    EXPECT_LE(std::abs(value), 0.05f);  // 1 / sqrt(400)
    sum += value;
    squares += value * value;
  }
  // Of 6400 draws: mean 0 and variance bound^2 / 3, within four sigma.
  EXPECT_NEAR(sum / 6400, 0, 4 * 0.05 / std::sqrt(3.0 * 6400));
  EXPECT_NEAR(squares / 6400 / (0.05 * 0.05 / 3), 1, 0.05);
}

TEST(ShardMapTest, EveryElementHasOneOwnerAmongItsHolders) {
  const auto set =
      ParameterSet::Create(test::TrainerConfig(), test::FullRequest());
  for (const int num_ranks : {1, 2, 3, 4, 7, 8}) {
    const Placement placement = Placement::Default(4, num_ranks).value();
    const ShardMap shards(*set, placement);
    int64_t owned = 0, most = 0;
    for (int rank = 0; rank < num_ranks; ++rank) {
      owned += shards.NumOwned(rank);
      most = std::max(most, shards.NumOwned(rank));
    }
    EXPECT_EQ(owned, set->num_trainable());
    for (size_t p = 0; p < set->parameters().size(); ++p) {
      int64_t next = 0;
      for (const OwnedRange& range : shards.RangesOf(static_cast<int>(p))) {
        EXPECT_EQ(range.begin, next);
        EXPECT_EQ(range.begin % TrainingBackend::kSquareChunk, 0);
        EXPECT_TRUE(shards.Holds(range.rank, range.parameter));
        next = range.end;
      }
      EXPECT_EQ(next, set->parameters()[p].num_elements());
    }
    // Even, up to a chunk and what an expert's only holder must own.
    EXPECT_LE(most, set->num_trainable() / num_ranks +
                        2 * TrainingBackend::kSquareChunk);
  }
}

}  // namespace
}  // namespace octet
