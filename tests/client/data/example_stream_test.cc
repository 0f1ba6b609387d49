// Packing against the seeds' rule over whole batches, for any number of
// threads, and taken up at every place.
#include "client/data/example_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/client/data/files.h"

namespace octet {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Ids = std::vector<int32_t>;

class StreamTest : public testing::Test {
 protected:
  // `counts[d]` lines in data set d, of 0 to 6 words.
  StreamTest() : counts_({23, 9, 30}) {
    int number = 0;
    for (const int count : counts_) {
      datasets_.emplace_back();
      for (int i = 0; i < count; ++i, ++number) {
        std::string line;
        for (int word = 0; word < number * 5 % 7; ++word) line += " so";
        datasets_.back().push_back(line);
      }
    }
  }

  std::unique_ptr<ExampleStream> Open(const StreamOptions& options,
                                      bool ignore_eos = false) {
    std::vector<std::unique_ptr<DatasetReader>> readers;
    for (size_t d = 0; d < datasets_.size(); ++d) {
      std::string text;
      for (const auto& line : datasets_[d]) absl::StrAppend(&text, line, "\n");
      DatasetSpec spec;
      spec.columns.prompt = "text";
      spec.files = {test::WriteFile(dir_, absl::StrCat(d, ".txt"), text)};
      readers.push_back(std::make_unique<DatasetReader>(
          spec, static_cast<int>(d), Stage::kPretrain, BadRowPolicy::kStop, 0,
          &report_));
    }
    EncoderOptions encoder;
    encoder.stage = Stage::kPretrain;
    encoder.ignore_eos = ignore_eos;
    return std::make_unique<ExampleStream>(
        DocumentMixer::Create(std::move(readers), MixStrategy::kConcat, {}, 0)
            .value(),
        DocumentEncoder::Create(encoder, tokenizer_.get()).value(), options,
        &report_);
  }

  static std::vector<Example> ReadAll(ExampleStream& stream) {
    std::vector<Example> examples;
    while (auto example = stream.Next().value()) {
      examples.push_back(*std::move(example));
    }
    return examples;
  }

  Ids LineIds(const std::string& line) const {
    Ids ids = tokenizer_->EncodeWithBos(line);
    ids.push_back(tokenizer_->eos_id());
    return ids;
  }

  // The seeds' rule: per batch of lines, everything in a row, cut up.
  std::vector<Ids> PackedBlocks(const StreamOptions& options) const {
    std::vector<Ids> batches;
    int lines = 0;
    for (const auto& dataset : datasets_) {
      if (options.batch_ends_with_dataset) lines = 0;
      for (const std::string& line : dataset) {
        if (lines++ % options.batch_rows == 0) batches.emplace_back();
        const Ids ids = LineIds(line);
        batches.back().insert(batches.back().end(), ids.begin(), ids.end());
      }
    }
    std::vector<Ids> blocks;
    const size_t length = options.block_len;
    for (const Ids& batch : batches) {
      for (size_t i = 0; i + length <= batch.size(); i += length) {
        blocks.emplace_back(batch.begin() + i, batch.begin() + i + length);
      }
      if (options.keep_short_block && batch.size() < length) {
        blocks.push_back(batch);
      }
    }
    return blocks;
  }

  const std::vector<int> counts_;
  std::vector<std::vector<std::string>> datasets_;
  const std::unique_ptr<Tokenizer> tokenizer_ = test::SmallTokenizer();
  test::TempDir dir_;
  DataReport report_;
};

TEST_F(StreamTest, BlocksOfBatches) {
  for (const int batch_rows : {1, 4, 23, 1000}) {
    for (const int block_len : {2, 10, 40, 100000}) {
      for (const bool ends : {false, true}) {
        StreamOptions options;
        options.pack = true;
        options.batch_rows = batch_rows;
        options.block_len = block_len;
        options.batch_ends_with_dataset = ends;
        options.keep_short_block = batch_rows == 4;
        options.num_threads = batch_rows == 23 ? 3 : 1;
        const std::vector<Ids> expected = PackedBlocks(options);
        const auto examples = ReadAll(*Open(options));
        ASSERT_EQ(examples.size(), expected.size());
        for (size_t i = 0; i < expected.size(); ++i) {
          EXPECT_EQ(examples[i].token_ids, expected[i]);
          EXPECT_EQ(examples[i].labels, expected[i]);
        }
      }
    }
  }
}

TEST_F(StreamTest, DocumentsBeginWhereTheirBosIs) {
  StreamOptions options;
  options.pack = true;
  options.block_len = 11;
  const auto examples = ReadAll(*Open(options));
  ASSERT_FALSE(examples.empty());
  for (const Example& example : examples) {
    std::vector<int32_t> starts = {0};
    for (int32_t i = 1; i < 11; ++i) {
      if (example.token_ids[i] == tokenizer_->bos_id()) starts.push_back(i);
    }
    EXPECT_EQ(example.starts, starts);
  }
}

TEST_F(StreamTest, AurorasEosIsNotLearnt) {
  StreamOptions options;
  options.pack = true;
  options.block_len = 30;
  for (const Example& example : ReadAll(*Open(options, true))) {
    for (size_t i = 0; i < example.labels.size(); ++i) {
      const int32_t id = example.token_ids[i];
      EXPECT_EQ(example.labels[i],
                id == tokenizer_->eos_id() ? kIgnoredLabel : id);
    }
  }
}

TEST_F(StreamTest, UnpackedExamplesAreTheLines) {
  const auto examples = ReadAll(*Open(StreamOptions()));
  size_t i = 0;
  for (const auto& dataset : datasets_) {
    for (const std::string& line : dataset) {
      EXPECT_EQ(examples.at(i).token_ids, LineIds(line));
      EXPECT_THAT(examples[i].starts, ElementsAre(0));
      ++i;
    }
  }
  EXPECT_EQ(examples.size(), i);
  EXPECT_EQ(report_.rows, static_cast<int64_t>(i));
  EXPECT_EQ(report_.examples, static_cast<int64_t>(i));
}

TEST_F(StreamTest, TakenUpAnywhere) {
  for (const bool pack : {false, true}) {
    for (const bool ends : {false, true}) {
      StreamOptions options;
      options.pack = pack;
      options.batch_rows = 8;
      options.block_len = 10;
      options.batch_ends_with_dataset = ends;
      const auto stream = Open(options);
      std::vector<StreamPosition> places = {stream->position()};
      std::vector<Ids> ids;
      while (auto example = stream->Next().value()) {
        ids.push_back(example->token_ids);
        places.push_back(stream->position());
      }
      for (size_t i = 0; i < places.size(); ++i) {
        const auto again = Open(options);
        ASSERT_TRUE(again->Restore(places[i]).ok());
        std::vector<Ids> rest;
        for (const Example& example : ReadAll(*again)) {
          rest.push_back(example.token_ids);
        }
        EXPECT_EQ(rest, std::vector<Ids>(ids.begin() + i, ids.end()));
      }
    }
  }
}

TEST_F(StreamTest, APlaceBeyondTheEndIsRefused) {
  const auto stream = Open(StreamOptions());
  StreamPosition position = stream->position();
  position.given = 1000;
  EXPECT_EQ(stream->Restore(position).message(),
            "the data position is beyond the end of the data: the files have "
            "changed");
}

TEST(ExampleTest, ASlotHasOneSequenceOrOnePerDocument) {
  const Example example = {{5, 6, 7, 8, 9}, {5, -100, 7, 8, -100}, {0, 2, 4}};
  v1::TrainingSlot slot;
  AddToSlot(example, /*isolate=*/false, slot);
  ASSERT_EQ(slot.sequences_size(), 1);
  EXPECT_THAT(slot.sequences(0).token_ids(), ElementsAre(5, 6, 7, 8, 9));
  EXPECT_THAT(slot.sequences(0).labels(), ElementsAre(5, -100, 7, 8, -100));
  AddToSlot(example, /*isolate=*/true, slot);
  ASSERT_EQ(slot.sequences_size(), 4);
  EXPECT_THAT(slot.sequences(1).token_ids(), ElementsAre(5, 6));
  EXPECT_THAT(slot.sequences(2).token_ids(), ElementsAre(7, 8));
  EXPECT_THAT(slot.sequences(2).labels(), ElementsAre(7, 8));
  EXPECT_THAT(slot.sequences(3).token_ids(), ElementsAre(9));
  EXPECT_THAT(slot.sequences(3).labels(), ElementsAre(-100));
}

}  // namespace
}  // namespace octet
