// One sentence for every way a config file can be wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "tests/support/data.h"
#include "worker/model/config.h"

namespace octet {
namespace {

using nlohmann::json;

json GoodConfig() { return json::parse(ModelConfigToJson(ModelConfig())); }

std::string Message(const json& config) {
  return std::string(
      ParseModelConfig(config.dump(), "config.json").status().message());
}

struct BadValue {
  const char* key;
  const char* value;  // JSON
  const char* message;
};

TEST(ConfigBadInputTest, ValueThatIsWrong) {
  const BadValue cases[] = {
      {"vocab_size", "0", "'vocab_size' is 0, expected 1 to 16777216"},
      {"hidden_size", "-4096", "'hidden_size' is -4096, expected 1 to 131072"},
      {"hidden_size", "4096.0", "'hidden_size' is 4096.0, expected an integer"},
      {"hidden_size", "\"4096\"",
       "'hidden_size' is \"4096\", expected an integer"},
      {"hidden_size", "18446744073709551615",
       "'hidden_size' is 18446744073709551615, expected 1 to 131072"},
      {"intermediate_size", "9223372036854775807",
       "'intermediate_size' is 9223372036854775807, expected 1 to 1048576"},
      {"num_hidden_layers", "1000000",
       "'num_hidden_layers' is 1000000, expected 1 to 1024"},
      {"num_attention_heads", "0",
       "'num_attention_heads' is 0, expected 1 to 4096"},
      {"num_key_value_heads", "5",
       "'num_attention_heads' is 32, expected a multiple of "
       "'num_key_value_heads' (5)"},
      {"num_key_value_heads", "0",
       "'num_key_value_heads' is 0, expected 1 to 4096"},
      {"num_local_experts", "0",
       "'num_local_experts' is 0, expected 1 to 1024"},
      {"num_experts_per_tok", "9",
       "'num_experts_per_tok' is 9, expected at most 'num_local_experts' (8)"},
      {"num_experts_per_tok", "0",
       "'num_experts_per_tok' is 0, expected 1 to 1024"},
      {"head_dim", "65", "'head_dim' is 65, expected an even number"},
      {"max_position_embeddings", "0",
       "'max_position_embeddings' is 0, expected 1 to 1073741824"},
      {"sliding_window", "0",
       "'sliding_window' is 0, expected 1 to 2147483647"},
      {"sliding_window", "true",
       "'sliding_window' is true, expected an integer"},
      {"rms_norm_eps", "0",
       "'rms_norm_eps' is 0, expected more than 0 and at most 1"},
      {"rms_norm_eps", "\"1e-5\"",
       "'rms_norm_eps' is \"1e-5\", expected a number"},
      {"rms_norm_eps", "1e300",
       "'rms_norm_eps' is 1e+300, expected a number of single precision"},
      {"rope_theta", "-1", "'rope_theta' is -1, expected 1 to 1e15"},
      {"rope_scaling", R"({"factor": 4.0, "type": "linear"})",
       "'rope_scaling.type' is \"linear\", expected \"default\""},
      {"rope_scaling", R"({"factor": 4.0})",
       "'rope_scaling' is {\"factor\":4.0}, expected null"},
      {"rope_scaling", "2.0",
       "'rope_scaling' is 2.0, expected an object or null"},
      {"rope_parameters", R"({"rope_theta": 1e6, "rope_type": "yarn"})",
       "'rope_parameters.rope_type' is \"yarn\", expected \"default\""},
      {"rope_parameters", R"({"rope_theta": "big", "rope_type": "default"})",
       "'rope_parameters.rope_theta' is \"big\", expected a number"},
      {"rope_parameters", R"({"full_attention": {"rope_theta": 1e6}})",
       "'rope_parameters.full_attention' is {\"rope_theta\":1000000.0}, "
       "expected no object"},
      {"partial_rotary_factor", "0.5",
       "'partial_rotary_factor' is 0.5, expected 1"},
      {"hidden_act", "\"gelu\"", "'hidden_act' is \"gelu\", expected \"silu\""},
      {"attention_bias", "true", "'attention_bias' is true, expected none"},
      {"quantization_config", R"({"quant_method": "gptq"})",
       "'quantization_config' is {\"quant_method\":\"gptq\"}, expected none"},
      {"model_type", "\"llama\"",
       "'model_type' is \"llama\", expected \"mixtral\""},
      {"architectures", R"(["LlamaForCausalLM"])",
       "'architectures' is [\"LlamaForCausalLM\"], expected "
       "[\"MixtralForCausalLM\"]"},
      {"torch_dtype", "\"int8\"",
       "'torch_dtype' is \"int8\", expected \"float32\", \"bfloat16\" or "
       "\"float16\""},
      {"tie_word_embeddings", "1",
       "'tie_word_embeddings' is 1, expected true or false"},
      {"eos_token_id", "32000", "'eos_token_id' is 32000, expected 0 to 31999"},
      {"eos_token_id", R"([2, "</s>"])",
       "'eos_token_id' is \"</s>\", expected an integer"},
      {"bos_token_id", "-2", "'bos_token_id' is -2, expected -1 to 31999"},
  };
  for (const BadValue& bad : cases) {
    json config = GoodConfig();
    config[bad.key] = json::parse(bad.value);
    EXPECT_EQ(Message(config), absl::StrCat("config.json: ", bad.message));
  }
}

TEST(ConfigBadInputTest, NullWhereTransformersHasNone) {
  for (const char* key :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
        "num_attention_heads", "num_local_experts", "num_experts_per_tok",
        "max_position_embeddings"}) {
    json config = GoodConfig();
    config[key] = nullptr;
    EXPECT_EQ(Message(config), absl::StrCat("config.json: '", key,
                                            "' is null, expected an integer"));
  }
}

TEST(ConfigBadInputTest, FileThatDoesNotSayItIsMixtral) {
  json config = GoodConfig();
  config.erase("model_type");
  EXPECT_EQ(Message(config), "");  // the architecture says it too
  config.erase("architectures");
  EXPECT_EQ(Message(config), "config.json: 'model_type' is missing");
  EXPECT_EQ(Message(json::object()), "config.json: 'model_type' is missing");
}

TEST(ConfigBadInputTest, HeadDimThatCannotBeDerived) {
  json config = GoodConfig();
  config.erase("head_dim");
  config["num_attention_heads"] = 24;
  EXPECT_EQ(Message(config),
            "config.json: 'head_dim' is missing and 'hidden_size' 4096 is not "
            "a multiple of 'num_attention_heads' 24");
}

TEST(ConfigBadInputTest, TextThatIsNoJsonObject) {
  const auto message = [](absl::string_view text) {
    return std::string(ParseModelConfig(text, "c").status().message());
  };
  EXPECT_EQ(message(""), "c: not valid JSON at byte 1");
  EXPECT_EQ(message("{\"a\": 1"), "c: not valid JSON at byte 8");
  EXPECT_EQ(message("{\"a\": \"\xff\"}"), "c: not valid JSON at byte 8");
  EXPECT_EQ(message("{\"a\": 1e999}"),
            "c: not valid JSON: a number is out of range");
  EXPECT_EQ(message("[1]"), "c: holds a JSON array, expected an object");
  EXPECT_EQ(message("{\"a\": 1, \"a\": 2}"), "c: key \"a\" appears twice");
  EXPECT_EQ(message("{\"a\":" + std::string(100000, '[')),
            "c: not valid JSON at byte 100006");
  EXPECT_EQ(
      message("{\"a\":" + std::string(40, '[') + std::string(40, ']') + "}"),
      "c: JSON nests deeper than 32 levels");
}

TEST(ConfigBadInputTest, DirectoryThatIsNoCheckpoint) {
  const test::TempDir dir;
  EXPECT_EQ(LoadModelConfig(dir.path() + "/absent").status().message(),
            dir.path() + "/absent: no such directory, expected a checkpoint");
  const std::string config_path = dir.path() + "/config.json";
  EXPECT_EQ(LoadModelConfig(dir.path()).status().message(),
            config_path + ": cannot read file: No such file or directory");
  std::ofstream(config_path) << GoodConfig().dump();
  std::ofstream(dir.path() + "/generation_config.json")
      << R"({"eos_token_id": -5})";
  EXPECT_EQ(LoadModelConfig(dir.path()).status().message(),
            dir.path() +
                "/generation_config.json: 'eos_token_id' is -5, "
                "expected 0 to 31999");
}

TEST(ConfigBadInputTest, ConfigFromFlagsIsCheckedToo) {
  ModelConfig config;
  config.rope_theta = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(ValidateModelConfig(config, "flags").message(),
            "flags: 'rope_theta' is nan, expected 1 to 1e15");
  config = ModelConfig();
  config.checkpoint_dtype = DType::kI32;
  EXPECT_EQ(ValidateModelConfig(config, "flags").message(),
            "flags: 'dtype' is i32, expected f32, bf16 or f16");
}

}  // namespace
}  // namespace octet
