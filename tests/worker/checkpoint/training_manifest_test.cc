#include "worker/checkpoint/training_manifest.h"

#include <string>

#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace octet {
namespace {

using ::testing::HasSubstr;

TrainingManifest Example() {
  TrainingManifest manifest;
  manifest.optimizer_steps = 12;
  manifest.run_slots = 96;
  manifest.seed = 0xfedcba9876543210;
  manifest.lora_scale = 1.25;
  manifest.client_state = "{\"row\": 7, \"text\": \"\xe8\xaf\x97\"}";
  manifest.files = {"state-00001-of-00002.safetensors",
                    "state-00002-of-00002.safetensors"};
  manifest.parameters = {
      {"model.norm.weight", {8}, {{0, 8, 1, {1, 2, 0xffffffffffffffff}}}},
      {"lm_head.weight", {5, 4}, {{0, 7, 0, {3, 4, 5}}, {7, 20, 1, {6, 7, 8}}}},
  };
  return manifest;
}

TEST(TrainingManifestTest, ComesBack) {
  const std::string text = TrainingManifestToJson(Example());
  const auto read = ParseTrainingManifest(text, "m");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, Example());
}

TEST(TrainingManifestTest, BadInputIsOneSentence) {
  struct Case {
    std::string from, to, sentence;
  };
  for (const Case& c : {
           Case{"octet-training-state", "other", "m: format is"},
           Case{"\"version\": 1", "\"version\": 2",
                "m: version is 2, expected 1"},
           Case{"\"optimizer_steps\": 12", "\"optimizer_steps\": -1",
                "m: optimizer_steps is -1, expected a whole number from 0"},
           Case{"\"optimizer_steps\": 12", "\"optimizer_steps\": 1.5",
                "m: optimizer_steps is 1.5"},
           Case{"\"run_slots\": 96", "\"run_slots\": 18446744073709551615",
                "m: run_slots is 18446744073709551615"},
           Case{"\"seed\"", "\"sed\"", "m: seed is missing"},
           Case{"1.25", "-1.25", "m: lora_scale is -1.25"},
           Case{"state-00001", "../state", "expected the name of a file"},
           Case{"\"lm_head.weight\"", "\"model.norm.weight\"",
                "m: parameter 'model.norm.weight' is listed twice"},
           Case{"\"0000000000000003\"", "\"3\"",
                "m: a hash is \"3\", expected 16 hexadecimal digits"},
           Case{"     20,", "     19,",
                "m: pieces of parameter 'lm_head.weight' have 19 elements, "
                "expected 20"},
           Case{"     20,", "     21,", "the end of a piece is 21"},
           Case{"     7,", "     0,", "the end of a piece is 0"},
           Case{"\"shape\": [\n    5,", "\"shape\": [\n    0,",
                "m: a size is 0"},
           Case{"\"shape\": [\n    5,",
                "\"shape\": [\n    4611686018427387904,",
                "m: a size is 4611686018427387904"},
           Case{"{\n", "[{\n", "m: "},
       }) {
    const std::string good = TrainingManifestToJson(Example());
    const std::string bad = absl::StrReplaceAll(good, {{c.from, c.to}});
    ASSERT_NE(bad, good) << c.from << "\n" << good;
    const auto read = ParseTrainingManifest(bad, "m");
    EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument) << c.to;
    EXPECT_THAT(std::string(read.status().message()), HasSubstr(c.sentence));
  }
}

}  // namespace
}  // namespace octet
