// What good config files parse to. The files in tests/golden/config_cases and
// what they mean come from transformers.
#include "worker/model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "tests/support/data.h"
#include "worker/model/json_file.h"

namespace octet {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string CasePath(absl::string_view name) {
  return test::SourcePath(
      absl::StrCat("tests/golden/config_cases/", name, ".json"));
}

std::string ReadText(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadSmallFile(path, 1 << 20);
  EXPECT_TRUE(text.ok()) << text.status();
  return text.value_or("");
}

DType ParseDType(const std::string& name) {
  return name == "float32"    ? DType::kF32
         : name == "bfloat16" ? DType::kBF16
                              : DType::kF16;
}

ModelConfig ExpectedConfig(const json& expected) {
  ModelConfig config;
  config.vocab_size = expected.at("vocab_size");
  config.hidden_dim = expected.at("hidden_dim");
  config.ffn_dim = expected.at("ffn_dim");
  config.num_layers = expected.at("num_layers");
  config.num_heads = expected.at("num_heads");
  config.num_kv_heads = expected.at("num_kv_heads");
  config.head_dim = expected.at("head_dim");
  config.num_experts = expected.at("num_experts");
  config.top_k = expected.at("top_k");
  config.max_position = expected.at("max_position");
  config.sliding_window = expected.at("sliding_window");
  config.rms_norm_eps = expected.at("rms_norm_eps");
  config.rope_theta = expected.at("rope_theta");
  config.tie_word_embeddings = expected.at("tie_word_embeddings");
  config.bos_token_id = expected.at("bos_token_id");
  config.eos_token_ids = expected.at("eos_token_ids").get<std::vector<int>>();
  // A file that names no dtype says nothing about it.
  config.checkpoint_dtype =
      ParseDType(expected.value("checkpoint_dtype", "float32"));
  return config;
}

TEST(ConfigTest, ParsesWhatTransformersParses) {
  const json cases = json::parse(ReadText(CasePath("expected")));
  ASSERT_GE(cases.size(), 15u);
  for (const auto& [name, expected] : cases.items()) {
    SCOPED_TRACE(name);
    const std::string path = CasePath(name);
    const auto parsed = ParseModelConfig(ReadText(path), path);
    if (expected.contains("refused_key")) {
      ASSERT_FALSE(parsed.ok());
      EXPECT_THAT(
          std::string(parsed.status().message()),
          HasSubstr(absl::StrCat(
              path, ": '", expected.at("refused_key").get<std::string>())));
      continue;
    }
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(*parsed, ExpectedConfig(expected.at("config")))
        << ModelConfigToJson(*parsed);
  }
}

TEST(ConfigTest, WrittenConfigParsesBack) {
  ModelConfig config;
  config.vocab_size = 333;
  config.hidden_dim = 48;
  config.ffn_dim = 80;
  config.num_layers = 3;
  config.num_heads = 6;
  config.num_kv_heads = 3;
  config.head_dim = 10;
  config.num_experts = 5;
  config.top_k = 3;
  config.max_position = 77;
  config.rms_norm_eps = 1e-6f;
  config.rope_theta = 12345.678f;
  for (int window : {0, 8}) {
    for (int bos : {-1, 0, 7}) {
      for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
        for (const std::vector<int>& eos :
             {std::vector<int>{}, std::vector<int>{2},
              std::vector<int>{2, 300, 0}}) {
          config.sliding_window = window;
          config.tie_word_embeddings = window > 0;
          config.bos_token_id = bos;
          config.checkpoint_dtype = dtype;
          config.eos_token_ids = eos;
          const auto parsed =
              ParseModelConfig(ModelConfigToJson(config), "written");
          ASSERT_TRUE(parsed.ok()) << parsed.status();
          EXPECT_EQ(*parsed, config);
        }
      }
    }
  }
}

TEST(ConfigTest, WritesShortNumbers) {
  EXPECT_THAT(ModelConfigToJson(ModelConfig()),
              HasSubstr("\"rms_norm_eps\": 1e-05,"));
}

TEST(ConfigTest, CountsParametersOfMixtral8x7B) {
  const ModelConfig config;  // Mixtral 8x7B
  // The published 46.7 B in all and 12.9 B per token.
  EXPECT_EQ(config.num_parameters(), 46'702'792'704);
  EXPECT_EQ(config.num_active_parameters(), 12'879'925'248);
  ModelConfig tied = config;
  tied.tie_word_embeddings = true;
  EXPECT_EQ(config.num_parameters() - tied.num_parameters(), 32000 * 4096);
}

class ConfigDirTest : public ::testing::Test {
 protected:
  void Write(const std::string& name, const std::string& text) {
    std::ofstream(dir_.path() + "/" + name) << text;
  }
  test::TempDir dir_;
};

TEST_F(ConfigDirTest, AddsEosIdsOfGenerationConfig) {
  Write("config.json", ModelConfigToJson(ModelConfig()));
  EXPECT_THAT(LoadModelConfig(dir_.path())->eos_token_ids, ElementsAre(2));
  Write("generation_config.json", R"({"eos_token_id": [7, 2, 9]})");
  EXPECT_THAT(LoadModelConfig(dir_.path())->eos_token_ids,
              ElementsAre(2, 7, 9));
  Write("generation_config.json", R"({"eos_token_id": 11})");
  EXPECT_THAT(LoadModelConfig(dir_.path())->eos_token_ids, ElementsAre(2, 11));
  Write("generation_config.json", R"({"bos_token_id": 1})");
  EXPECT_THAT(LoadModelConfig(dir_.path())->eos_token_ids, ElementsAre(2));
}

TEST_F(ConfigDirTest, NullEosMeansNone) {
  ModelConfig config;
  config.eos_token_ids.clear();
  Write("config.json", ModelConfigToJson(config));
  EXPECT_THAT(LoadModelConfig(dir_.path())->eos_token_ids, IsEmpty());
}

TEST_F(ConfigDirTest, LoadsEveryGoldenCheckpoint) {
  for (absl::string_view name :
       {"e8k2_old", "e8k2_fused", "e4k1_tied_old", "e8k2_window_fused_sharded",
        "e16k3_old_sharded", "e8k3_headdim_fused", "e4k2_bf16_old_sharded",
        "e8k2_bf16_tied_window_fused", "e8k1_fp16_old", "e4k3_tied_window_old",
        "e16k2_tied_fused_sharded", "e16k1_bf16_window_old"}) {
    const auto config =
        LoadModelConfig(test::SourcePath(absl::StrCat("tests/golden/", name)));
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_TRUE(absl::StartsWith(
        name, absl::StrCat("e", config->num_experts, "k", config->top_k)))
        << name;
    EXPECT_EQ(config->sliding_window, absl::StrContains(name, "window") ? 8 : 0)
        << name;
    EXPECT_EQ(config->tie_word_embeddings, absl::StrContains(name, "tied"))
        << name;
  }
}

}  // namespace
}  // namespace octet
