// Streaming: windows that are shuffled, places that are taken up, and memory
// that does not grow with the file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "client/data/row_reader.h"
#include "tests/client/data/pipeline_fixture.h"

namespace octet {
namespace {

using test::Slots;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::UnorderedElementsAreArray;

class StreamingTest : public test::PipelineTest {
 protected:
  DataOptions Rows(int count) {
    DataOptions options;
    options.files = {WriteRows("a.jsonl", count / 2),
                     WriteRows("b.jsonl", count - count / 2)};
    options.streaming = true;
    options.buffer_size = 10;
    return options;
  }
};

TEST_F(StreamingTest, AWindowIsShuffledAndNothingElse) {
  DataOptions options = Rows(70);
  options.shuffle = false;
  const Slots plain = Texts(Open(options)->Next(70));
  options.shuffle = true;
  const auto pipeline = Open(options);
  EXPECT_EQ(pipeline->num_examples(), std::nullopt);
  EXPECT_EQ(pipeline->slots_per_epoch(), std::nullopt);
  std::set<Slots> orders;
  for (int epoch = 0; epoch < 2; ++epoch) {
    for (int window = 0; window < 7; ++window) {
      const Slots texts = Texts(pipeline->Next(10));
      const Slots expected(plain.begin() + window * 10,
                           plain.begin() + window * 10 + 10);
      EXPECT_THAT(texts, UnorderedElementsAreArray(expected));
      orders.insert(texts);
    }
  }
  EXPECT_EQ(orders.size(), 14u);
}

TEST_F(StreamingTest, TakenUpAnywhere) {
  for (const auto strategy :
       {MixStrategy::kConcat, MixStrategy::kInterleaveOver}) {
    for (const bool pack : {false, true}) {
      DataOptions options = Rows(37);
      options.mix_strategy = strategy;
      options.val_size = 3;
      options.rows_per_slot = 2;
      if (strategy == MixStrategy::kInterleaveOver) {
        options.interleave_probs = {0.7, 0.3};
      }
      if (pack) {
        options.sft_packing = true;
        options.encoder.cutoff_len = 20;
        options.packing_rows = 9;
      }
      const auto serialize = [](const std::vector<v1::TrainingSlot>& slots) {
        std::vector<std::string> all;
        for (const auto& slot : slots) all.push_back(slot.SerializeAsString());
        return all;
      };
      constexpr int kSlots = 60;
      const auto whole = serialize(Open(options)->Next(kSlots).value());
      const auto pipeline = Open(options);
      for (int done = 0; done < kSlots; ++done) {
        const auto again = Open(options);
        const absl::Status status = again->Restore(pipeline->Position());
        ASSERT_TRUE(status.ok()) << status;
        EXPECT_EQ(serialize(again->Next(kSlots - done).value()),
                  std::vector<std::string>(whole.begin() + done, whole.end()))
            << "after slot " << done;
        ASSERT_TRUE(pipeline->Next(1).ok());
      }
    }
  }
}

TEST_F(StreamingTest, TheFirstExamplesAreForValidation) {
  DataOptions options = Rows(20);
  options.val_size = 4;
  const auto pipeline = Open(options);
  EXPECT_EQ(pipeline->num_validation_slots(), 4);
  EXPECT_THAT(Texts(pipeline->ValidationSlots(0, 4)),
              ElementsAre("n0", "n1", "n2", "n3"));
  for (int epoch = 0; epoch < 2; ++epoch) {
    Slots texts = Texts(pipeline->Next(16));
    std::sort(texts.begin(), texts.end());
    EXPECT_EQ(std::count(texts.begin(), texts.end(), "n0"), 1)
        << "the second file's";
    EXPECT_EQ(std::count(texts.begin(), texts.end(), "n9"), 2);
  }
  options.val_size = 21;
  EXPECT_EQ(OpenError(options),
            "val_size is 21, expected fewer than the 20 examples that there "
            "are");
}

TEST_F(StreamingTest, ABadRowStopsWhereItIs) {
  DataOptions options = Rows(2);
  options.files.push_back(test::WriteFile(dir_, "c.jsonl", "{}\n"));
  options.buffer_size = 1;
  const auto pipeline = Open(options);
  EXPECT_THAT(pipeline->Next(3).status().message(),
              HasSubstr("c.jsonl:1: the row has no field 'instruction'"));
}

TEST_F(StreamingTest, DataWithoutExamplesAreAnError) {
  DataOptions options;
  options.streaming = true;
  options.files = {test::WriteFile(dir_, "e.jsonl", "")};
  EXPECT_THAT(Open(options)->Next(1).status().message(),
              HasSubstr("the data give no example to train on: 0 rows"));
}

TEST_F(StreamingTest, TheFirstExampleDoesNotMoveThePlace) {
  const DataOptions options = Rows(30);
  const auto pipeline = Open(options);
  Texts(pipeline->Next(13));
  const std::string position = pipeline->Position();
  EXPECT_THAT(pipeline->FirstExampleText().value(), HasSubstr("[INST] n"));
  EXPECT_EQ(pipeline->Position(), position);
  const auto other = Open(options);
  Texts(other->Next(13));
  EXPECT_EQ(Texts(pipeline->Next(20)), Texts(other->Next(20)));
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
constexpr bool kSanitized =
    __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
constexpr bool kSanitized = false;
#endif

// Peak resident memory of this process in MiB; resets the peak first.
class PeakMemory {
 public:
  PeakMemory() {
    std::ofstream("/proc/self/clear_refs") << "5";
    begin_ = Peak();
  }
  int64_t GrowthMib() const { return (Peak() - begin_) / 1024; }

 private:
  static int64_t Peak() {
    std::ifstream status("/proc/self/status");
    std::string word;
    int64_t kib = -1;
    while (status >> word) {
      if (word == "VmHWM:") status >> kib;
    }
    return kib;
  }
  int64_t begin_;
};

// 64 MiB of rows pass through a reader, which keeps a buffer and a row.
TEST_F(StreamingTest, AReaderNeedsNoMoreMemoryForALargeFile) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer keeps freed memory";
  const std::string line(1000, 'x');
  for (const char* name : {"big.txt", "big.jsonl", "big.json", "big.csv"}) {
    const std::string extension = FileExtension(name);
    const bool json = extension == ".jsonl" || extension == ".json";
    const std::string row =
        json ? "{\"text\": \"" + line + "\"}" : "\"" + line + "\"";
    const std::string path = dir_.path() + "/" + name;
    constexpr int kRows = 64 * 1024;
    {
      std::ofstream file(path, std::ios::binary);
      if (extension == ".json") file << "[";
      if (extension == ".csv") file << "text\n";
      for (int i = 0; i < kRows; ++i) {
        if (extension == ".json" && i > 0) file << ",";
        file << row << "\n";
      }
      if (extension == ".json") file << "]";
    }
    const PeakMemory memory;
    const auto reader = OpenRowReader(path).value();
    int rows = 0;
    while (reader->Next().value().has_value()) ++rows;
    EXPECT_EQ(rows, kRows);
    EXPECT_LT(memory.GrowthMib(), 16) << name;
    std::remove(path.c_str());
  }
}

// The same of whole pipelines: their memory is that of the window, or of the
// examples' places.
TEST_F(StreamingTest, APipelineNeedsNoMoreMemoryForALargeFile) {
  if (kSanitized) GTEST_SKIP() << "a sanitizer keeps freed memory";
  std::string line;
  while (line.size() < 4000) line += "so it is ";
  DataOptions options;
  options.files = {dir_.path() + "/big.txt"};
  {
    std::ofstream file(options.files[0], std::ios::binary);
    for (int i = 0; i < 6 * 1024; ++i) file << line << "\n";
  }
  options.encoder.stage = Stage::kPretrain;
  options.encoder.cutoff_len = 512;
  options.buffer_size = 128;
  for (const bool streaming : {true, false}) {
    options.streaming = streaming;
    const PeakMemory memory;
    const auto pipeline = Open(options);
    int64_t tokens = 0;
    for (int i = 0; i < 10000; ++i) {
      tokens += pipeline->Next(1).value()[0].sequences(0).token_ids_size();
    }
    EXPECT_EQ(tokens, 10000 * 512);
    // 24 MiB of text are more than 60 MiB of ids and labels.
    EXPECT_LT(memory.GrowthMib(), 32) << "streaming " << streaming;
  }
}

}  // namespace
}  // namespace octet
