// adapter_config.json as PEFT writes it, and what is refused of it.
#include "worker/checkpoint/peft_adapter.h"

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/data.h"
#include "worker/checkpoint/safetensors_writer.h"

namespace octet {
namespace {

using ::testing::HasSubstr;

TEST(PeftAdapterTest, ReadsWhatPeftWrote) {
  const auto adapter =
      PeftAdapter::Open(test::SourcePath("tests/golden/e8k2_old/adapter"));
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  const AdapterConfig& config = (*adapter)->config();
  EXPECT_EQ(config.lora_rank, 4);
  EXPECT_EQ(config.alpha, 12.0f);
  EXPECT_EQ(config.dropout, 0.0f);
  EXPECT_EQ(config.base_model, "e8k2_old");
  EXPECT_THAT(config.target_modules,
              testing::ElementsAre("gate", "k_proj", "o_proj", "q_proj",
                                   "v_proj", "w1", "w2", "w3"));
  EXPECT_TRUE(config.modules_to_save.empty());
  const std::string name = "model.layers.1.self_attn.k_proj.lora_B.weight";
  std::vector<float> all(16 * 4), some(5);
  ASSERT_TRUE((*adapter)->Read(name, 0, absl::MakeSpan(all)).ok());
  ASSERT_TRUE((*adapter)->Read(name, 7, absl::MakeSpan(some)).ok());
  for (int i = 0; i < 5; ++i) EXPECT_EQ(some[i], all[7 + i]);
}

TEST(PeftAdapterTest, ConfigComesBack) {
  AdapterConfig config;
  config.lora_rank = 64;
  config.alpha = 128;
  config.dropout = 0.05f;
  config.target_modules = {"gate", "q_proj"};
  config.modules_to_save = {"embed_tokens", "lm_head"};
  config.base_model = "/models/mixtral";
  const auto read = ParseAdapterConfig(AdapterConfigToJson(config), "a");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, config);
}

TEST(PeftAdapterTest, WhatChangesTheMathematicsIsRefusedByName) {
  const std::string good = R"("peft_type": "LORA", "r": 8, "lora_alpha": 16, )"
                           R"("target_modules": ["q_proj"])";
  ASSERT_TRUE(ParseAdapterConfig("{" + good + "}", "a").ok());
  struct Case {
    std::string text, sentence;
  };
  for (const Case& c : {
           Case{good + R"(, "use_rslora": true)", "a: use_rslora is true"},
           Case{good + R"(, "use_dora": true)", "a: use_dora is true"},
           Case{good + R"(, "bias": "all")", "a: bias is \"all\""},
           Case{good + R"(, "fan_in_fan_out": true)", "a: fan_in_fan_out"},
           Case{good + R"(, "rank_pattern": {"q_proj": 4})", "a: rank_pattern"},
           Case{good + R"(, "layers_to_transform": [1])",
                "a: layers_to_transform"},
           Case{good + R"(, "modules_to_save": "lm_head")",
                "a: modules_to_save is \"lm_head\", expected a list"},
           Case{R"("peft_type": "IA3")", "a: peft_type is \"IA3\""},
           Case{R"("r": 8)", "a: peft_type is missing"},
           Case{R"("peft_type": "LORA", "r": 0, "lora_alpha": 1)",
                "a: r is 0, expected a number from 1"},
           Case{R"("peft_type": "LORA", "r": 1.5, "lora_alpha": 1)",
                "a: r is 1.5, expected a whole number"},
           Case{R"("peft_type": "LORA", "r": 1)", "a: lora_alpha is missing"},
           Case{R"("peft_type": "LORA", "r": 1, "lora_alpha": 1,
                   "target_modules": ".*q_proj")",
                "a: target_modules is \".*q_proj\", expected a list"},
       }) {
    const auto read = ParseAdapterConfig("{" + c.text + "}", "a");
    EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(read.status().message()), HasSubstr(c.sentence));
  }
}

TEST(PeftAdapterTest, TensorsMustBeThoseOfTheRun) {
  const test::TempDir dir;
  AdapterConfig config;
  config.target_modules = {"q_proj"};
  std::ofstream(dir.path() + "/adapter_config.json")
      << AdapterConfigToJson(config);
  const float values[6] = {1, 2, 3, 4, 5, 6};
  const auto writer = SafetensorsWriter::Create(
      dir.path() + "/adapter_model.safetensors",
      {{"base_model.model.x.lora_A.weight", DType::kF32, {2, 3}}}, {});
  ASSERT_TRUE((*writer)->Write(0, 0, values, sizeof(values)).ok());
  ASSERT_TRUE((*writer)->Finish().ok());
  const auto adapter = PeftAdapter::Open(dir.path());
  ASSERT_TRUE(adapter.ok()) << adapter.status();
  EXPECT_TRUE((*adapter)->Check({{"x.lora_A.weight", {2, 3}}}).ok());
  EXPECT_THAT(
      std::string((*adapter)->Check({{"x.lora_A.weight", {3, 2}}}).message()),
      HasSubstr("adapter_model.safetensors: tensor "
                "'base_model.model.x.lora_A.weight' has shape [2, 3], "
                "expected [3, 2]"));
  EXPECT_THAT(
      std::string((*adapter)->Check({{"y.lora_A.weight", {2, 3}}}).message()),
      HasSubstr("'base_model.model.y.lora_A.weight' is missing"));
  EXPECT_THAT(std::string((*adapter)->Check({}).message()),
              HasSubstr("'base_model.model.x.lora_A.weight' belongs to no"));
  EXPECT_EQ(PeftAdapter::Open(dir.path() + "/none").status().code(),
            absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace octet
