// A pipeline over numbered rows, and what its slots hold.
#ifndef OCTET_TESTS_CLIENT_DATA_PIPELINE_FIXTURE_H_
#define OCTET_TESTS_CLIENT_DATA_PIPELINE_FIXTURE_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/data/data_pipeline.h"
#include "nlohmann/json.hpp"
#include "tests/client/data/files.h"

namespace octet::test {

using Slots = std::vector<std::string>;  // each slot's text

class PipelineTest : public testing::Test {
 protected:
  // Questions "0", "1", ... with answer "yes".
  std::string WriteRows(absl::string_view name, int count) {
    std::string text;
    for (int i = 0; i < count; ++i) {
      absl::StrAppend(&text,
                      nlohmann::json({{"instruction", absl::StrCat("n", i)},
                                      {"output", "yes"}})
                          .dump(),
                      "\n");
    }
    return WriteFile(dir_, name, text);
  }

  absl::StatusOr<std::unique_ptr<DataPipeline>> TryOpen(
      const DataOptions& options) {
    return DataPipeline::Open(options, tokenizer_.get());
  }
  std::unique_ptr<DataPipeline> Open(const DataOptions& options) {
    auto pipeline = TryOpen(options);
    EXPECT_TRUE(pipeline.ok()) << pipeline.status();
    return *std::move(pipeline);
  }
  std::string OpenError(const DataOptions& options) {
    return std::string(TryOpen(options).status().message());
  }

  static std::vector<v1::TrainingSlot> Take(DataPipeline& pipeline,
                                            int num_slots) {
    auto slots = pipeline.Next(num_slots);
    EXPECT_TRUE(slots.ok()) << slots.status();
    return slots.value_or(std::vector<v1::TrainingSlot>());
  }

  // "n3 n17": the questions of a slot.
  std::string Text(const v1::TrainingSlot& slot) const {
    std::string text;
    for (const v1::TrainingSequence& sequence : slot.sequences()) {
      const std::vector<int32_t> ids(sequence.token_ids().begin(),
                                     sequence.token_ids().end());
      std::string decoded = tokenizer_->Decode(ids).value();
      decoded = decoded.substr(decoded.find('n'));
      absl::StrAppend(&text, text.empty() ? "" : " ",
                      decoded.substr(0, decoded.find(' ')));
    }
    return text;
  }
  Slots Texts(const absl::StatusOr<std::vector<v1::TrainingSlot>>& slots) {
    EXPECT_TRUE(slots.ok()) << slots.status();
    Slots texts;
    if (!slots.ok()) return texts;
    for (const v1::TrainingSlot& slot : *slots) texts.push_back(Text(slot));
    return texts;
  }

  TempDir dir_;
  const std::unique_ptr<Tokenizer> tokenizer_ = SmallTokenizer();
};

}  // namespace octet::test

#endif  // OCTET_TESTS_CLIENT_DATA_PIPELINE_FIXTURE_H_
