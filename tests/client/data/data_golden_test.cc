// Against what Hugging Face datasets reads and interleaves, and against the
// seeds' rules over SentencePiece itself (tests/golden/make_data_goldens.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/data/data_pipeline.h"
#include "client/data/row_reader.h"
#include "nlohmann/json.hpp"
#include "tests/client/data/files.h"

namespace octet {
namespace {

using nlohmann::json;

std::string GoldenPath(absl::string_view name) {
  return test::SourcePath(absl::StrCat("tests/golden/client_data/", name));
}

const json& Expected() {
  static const json& expected =
      *new json(json::parse(std::ifstream(GoldenPath("expected.json"))));
  return expected;
}

class GoldenTest : public testing::Test {
 protected:
  // All slots of one epoch in the order of the files, in the form of the
  // golden file.
  json Examples(DataOptions options) {
    options.shuffle = false;
    const auto pipeline = DataPipeline::Open(options, tokenizer_.get());
    EXPECT_TRUE(pipeline.ok()) << pipeline.status();
    const int count = static_cast<int>(*(*pipeline)->num_examples());
    const auto slots = (*pipeline)->Next(count);
    json examples = json::array();
    for (const v1::TrainingSlot& slot : *slots) {
      EXPECT_EQ(slot.sequences_size(), 1);
      const v1::TrainingSequence& sequence = slot.sequences(0);
      examples.push_back(
          {{"ids", std::vector<int32_t>(sequence.token_ids().begin(),
                                        sequence.token_ids().end())},
           {"labels", std::vector<int32_t>(sequence.labels().begin(),
                                           sequence.labels().end())}});
    }
    return examples;
  }

  // The golden dialogues as a file of the sharegpt form.
  DataOptions Dialogues(const json& parameters) {
    std::string lines;
    for (const json& turns : Expected()["examples"]["dialogues"]) {
      json messages = json::array();
      for (const json& turn : turns) {
        messages.push_back({{"from", "human"}, {"value", turn[0]}});
        messages.push_back({{"from", "gpt"}, {"value", turn[1]}});
      }
      absl::StrAppend(&lines, json({{"conversations", messages}}).dump(), "\n");
    }
    test::WriteFile(dir_, "dialogues.jsonl", lines);
    test::WriteFile(dir_, "dataset_info.json",
                    R"({"d": {"file_name": "dialogues.jsonl",
                              "formatting": "sharegpt"}})");
    DataOptions options;
    options.dataset_dir = dir_.path();
    options.datasets = {"d"};
    if (parameters["bos_every_turn"].get<bool>()) {
      options.encoder.chat_template = "mistral-aurora";
    }
    return options;
  }

  test::TempDir dir_;
  const std::unique_ptr<Tokenizer> tokenizer_ = test::SmallTokenizer();
};

TEST_F(GoldenTest, RowsAsDatasetsReadsThem) {
  for (const auto& [name, rows] : Expected()["files"].items()) {
    const auto reader = OpenRowReader(GoldenPath(name)).value();
    json read = json::array();
    while (auto row = reader->Next().value()) {
      read.push_back(std::move(row->fields));
    }
    EXPECT_EQ(read, rows) << name;
  }
}

TEST_F(GoldenTest, DataSetsInTurns) {
  for (const json& mixed : Expected()["interleaved"]) {
    std::vector<std::unique_ptr<DatasetReader>> readers;
    DataReport report;
    for (size_t d = 0; d < mixed["sizes"].size(); ++d) {
      std::string lines;
      for (int i = 0; i < mixed["sizes"][d].get<int>(); ++i) {
        absl::StrAppend(&lines, d, ".", i, "\n");
      }
      DatasetSpec spec;
      spec.columns.prompt = "text";
      spec.files = {test::WriteFile(dir_, absl::StrCat(d, ".txt"), lines)};
      readers.push_back(std::make_unique<DatasetReader>(
          spec, 0, Stage::kPretrain, BadRowPolicy::kStop, 0, &report));
    }
    const auto mixer =
        DocumentMixer::Create(std::move(readers),
                              mixed["strategy"] == "first_exhausted"
                                  ? MixStrategy::kInterleaveUnder
                                  : MixStrategy::kInterleaveOver,
                              {}, 0)
            .value();
    json order = json::array();
    while (auto document = mixer->Next().value()) {
      order.push_back(document->text);
    }
    EXPECT_EQ(order, mixed["order"]) << mixed.dump();
  }
}

TEST_F(GoldenTest, AurorasDialogues) {
  for (const json& golden : Expected()["examples"]["proportional"]) {
    DataOptions options = Dialogues(golden);
    options.encoder.cutoff_len = golden["cutoff"];
    options.encoder.reserved_label_len = golden["reserved"];
    options.encoder.train_on_prompt = golden["on_prompt"];
    EXPECT_EQ(Examples(options), golden["examples"])
        << options.encoder.cutoff_len;
  }
}

TEST_F(GoldenTest, ChineseMixtralsDialogues) {
  for (const json& golden : Expected()["examples"]["drop_long_source"]) {
    DataOptions options;
    options.files = {GoldenPath("rows.json")};
    options.encoder.cutoff_rule = CutoffRule::kDropLongSource;
    options.encoder.cutoff_len = golden["cutoff"];
    EXPECT_EQ(Examples(options), golden["examples"])
        << options.encoder.cutoff_len;
  }
}

TEST_F(GoldenTest, PackedText) {
  for (const json& golden : Expected()["examples"]["packed_text"]) {
    DataOptions options;
    options.files = {GoldenPath("lines.txt")};
    options.encoder.stage = Stage::kPretrain;
    options.encoder.cutoff_len = golden["block"];
    options.encoder.ignore_eos = !golden["learn_eos"].get<bool>();
    options.packing_rows = golden["batch"];
    EXPECT_EQ(Examples(options), golden["examples"])
        << options.encoder.cutoff_len;
  }
}

TEST_F(GoldenTest, PackedDialogues) {
  for (const json& golden : Expected()["examples"]["packed_dialogues"]) {
    DataOptions options = Dialogues(golden);
    options.sft_packing = true;
    options.encoder.cutoff_len = golden["block"];
    EXPECT_EQ(Examples(options), golden["examples"])
        << options.encoder.cutoff_len;
  }
}

}  // namespace
}  // namespace octet
