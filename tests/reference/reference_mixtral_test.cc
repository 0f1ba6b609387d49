// The reference against transformers: logits and greedy continuations of the
// golden checkpoints with one file and the old expert names.
#include "tests/reference/reference_mixtral.h"

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/dtype.h"
#include "nlohmann/json.hpp"
#include "tests/support/data.h"

namespace octet::test {
namespace {

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// Just enough of the safetensors format for files that are known to be good:
// little-endian u64 header size, JSON header, data.
class GoodSafetensors {
 public:
  explicit GoodSafetensors(const std::string& path) : bytes_(ReadFile(path)) {
    uint64_t size = 0;
    std::memcpy(&size, bytes_.data(), sizeof(size));
    header_ = nlohmann::json::parse(bytes_.substr(8, size));
    data_ = bytes_.data() + 8 + size;
  }

  const nlohmann::json& header() const { return header_; }

  template <typename T>
  std::vector<T> Get(const std::string& name) const {
    const auto& offsets = header_[name]["data_offsets"];
    const int64_t begin = offsets[0];
    const int64_t end = offsets[1];
    std::vector<T> values((end - begin) / sizeof(T));
    std::memcpy(values.data(), data_ + begin, end - begin);
    return values;
  }

  std::vector<float> Floats(const std::string& name) const {
    const std::string dtype = header_[name]["dtype"];
    if (dtype == "F32") return Get<float>(name);
    std::vector<float> values;
    for (uint16_t bits : Get<uint16_t>(name)) {
      values.push_back(dtype == "F16" ? HalfToFloat(bits)
                                      : ToFloat(BF16{bits}));
    }
    return values;
  }

 private:
  const std::string bytes_;
  nlohmann::json header_;
  const char* data_ = nullptr;
};

ReferenceConfig ReadConfig(const std::string& path) {
  const auto json = nlohmann::json::parse(ReadFile(path));
  ReferenceConfig config;
  config.vocab_size = json["vocab_size"];
  config.hidden_size = json["hidden_size"];
  config.ffn_size = json["intermediate_size"];
  config.num_layers = json["num_hidden_layers"];
  config.num_heads = json["num_attention_heads"];
  config.num_kv_heads = json["num_key_value_heads"];
  config.head_dim = static_cast<int>(config.hidden_size) / config.num_heads;
  config.num_experts = json["num_local_experts"];
  config.top_k = json["num_experts_per_tok"];
  config.rms_norm_eps = json["rms_norm_eps"];
  const bool old_keys = json.contains("rope_theta");  // before transformers 5
  config.rope_theta = (old_keys ? json : json["rope_parameters"])["rope_theta"];
  if (json.contains("sliding_window") && !json["sliding_window"].is_null()) {
    config.sliding_window = json["sliding_window"];
  }
  config.tied_embeddings = json["tie_word_embeddings"];
  return config;
}

class ReferenceMixtralTest : public testing::TestWithParam<const char*> {};

TEST_P(ReferenceMixtralTest, AgreesWithTransformers) {
  const std::string folder =
      SourcePath(absl::StrCat("tests/golden/", GetParam()));
  const GoodSafetensors model(folder + "/model.safetensors");
  const GoodSafetensors golden(folder + "/golden.safetensors");
  ReferenceWeights weights;
  for (const auto& item : model.header().items()) {
    if (item.key() != "__metadata__") {
      weights[item.key()] = model.Floats(item.key());
    }
  }
  const ReferenceMixtral reference(ReadConfig(folder + "/config.json"),
                                   weights);
  for (const std::string prompt : {"short", "medium", "long"}) {
    const auto tokens = golden.Get<int32_t>(prompt + "/input_ids");
    const Difference difference = Compare(
        reference.Logits(tokens), ToValues(golden.Floats(prompt + "/logits")));
    EXPECT_TRUE(difference.comparable);
    // transformers computes in fp32.
    EXPECT_LT(difference.max_relative, 5e-6) << prompt;
  }
  auto tokens = golden.Get<int32_t>("short/input_ids");
  const auto greedy = golden.Get<int32_t>("short/greedy_ids");
  const auto generated =
      reference.Generate(tokens, static_cast<int>(greedy.size()));
  EXPECT_EQ(
      std::vector<int32_t>(generated.begin() + tokens.size(), generated.end()),
      greedy);
}

INSTANTIATE_TEST_SUITE_P(
    Checkpoints, ReferenceMixtralTest,
    testing::Values("e8k2_old", "e4k1_tied_old", "e8k1_fp16_old",
                    "e4k3_tied_window_old", "e16k1_bf16_window_old"),
    [](const auto& info) { return std::string(info.param); });

TEST(RandomWeightsTest, FitTheConfigAndRoundingIsSmall) {
  ReferenceConfig config;
  config.head_dim = 12;  // N_q D differs from H
  config.tied_embeddings = true;
  const ReferenceWeights weights = RandomWeights(config, 1);
  EXPECT_EQ(weights.count("lm_head.weight"), 0u);
  const std::vector<int32_t> tokens = {1, 5, 63, 5, 0};
  const Values exact = ReferenceMixtral(config, weights).Logits(tokens);
  EXPECT_EQ(exact.size(), tokens.size() * config.vocab_size);
  EXPECT_EQ(exact,
            ReferenceMixtral(config, RandomWeights(config, 1)).Logits(tokens));
  const double changed =
      Compare(ReferenceMixtral(config, weights,
                               {.compute_bf16 = true, .cache_bf16 = true})
                  .Logits(tokens),
              exact)
          .max_relative;
  EXPECT_GT(changed, 1e-4);
  EXPECT_LT(changed, 5e-2);
}

}  // namespace
}  // namespace octet::test
