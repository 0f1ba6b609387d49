#include "client/data/data_pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "tests/client/data/pipeline_fixture.h"

namespace octet {
namespace {

using test::Slots;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsSubsetOf;
using testing::SizeIs;
using testing::UnorderedElementsAreArray;

class DataPipelineTest : public test::PipelineTest {
 protected:
  DataOptions Rows(int count) {
    DataOptions options;
    options.files = {WriteRows("rows.jsonl", count)};
    return options;
  }
  static Slots Numbers(int begin, int end) {
    Slots texts;
    for (int i = begin; i < end; ++i) texts.push_back(absl::StrCat("n", i));
    return texts;
  }
};

TEST_F(DataPipelineTest, EveryEpochHasEveryExampleOnceInAnOrderOfItsOwn) {
  const auto pipeline = Open(Rows(100));
  EXPECT_EQ(pipeline->num_examples(), 100);
  EXPECT_EQ(pipeline->slots_per_epoch(), 100);
  std::set<Slots> orders;
  for (int epoch = 0; epoch < 3; ++epoch) {
    EXPECT_NEAR(pipeline->epoch(), epoch, 1e-9);
    const Slots texts = Texts(pipeline->Next(100));
    EXPECT_THAT(texts, UnorderedElementsAreArray(Numbers(0, 100)));
    orders.insert(texts);
  }
  EXPECT_EQ(orders.size(), 3u);
  EXPECT_EQ(orders.count(Numbers(0, 100)), 0u);
}

TEST_F(DataPipelineTest, TheSeedDrawsTheOrder) {
  DataOptions options = Rows(50);
  const Slots first = Texts(Open(options)->Next(120));
  EXPECT_EQ(Texts(Open(options)->Next(120)), first);
  options.num_threads = 3;
  EXPECT_EQ(Texts(Open(options)->Next(120)), first);
  options.seed = 43;
  EXPECT_NE(Texts(Open(options)->Next(120)), first);
  options.shuffle = false;
  EXPECT_EQ(Texts(Open(options)->Next(50)), Numbers(0, 50));
}

TEST_F(DataPipelineTest, SlotsOfSeveralRowsEndWithTheEpoch) {
  DataOptions options = Rows(7);
  options.rows_per_slot = 3;
  options.shuffle = false;
  const auto pipeline = Open(options);
  EXPECT_EQ(pipeline->slots_per_epoch(), 3);
  EXPECT_THAT(Texts(pipeline->Next(4)),
              ElementsAre("n0 n1 n2", "n3 n4 n5", "n6", "n0 n1 n2"));
}

// Taken up after every call, in a new pipeline, the slots go on as they would.
TEST_F(DataPipelineTest, TakenUpAnywhere) {
  DataOptions options = Rows(11);
  options.rows_per_slot = 2;
  options.val_size = 3;
  const Slots whole = Texts(Open(options)->Next(14));
  const auto pipeline = Open(options);
  for (int done = 0; done <= 14; ++done) {
    const auto again = Open(options);
    const absl::Status status = again->Restore(pipeline->Position());
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(Texts(again->Next(14 - done)),
              Slots(whole.begin() + done, whole.end()));
    EXPECT_NEAR(again->epoch(), Open(options)->epoch() + 14 / 4.0, 1);
    if (done < 14) Texts(pipeline->Next(1));
  }
}

TEST_F(DataPipelineTest, APositionOfOtherDataIsRefused) {
  const DataOptions options = Rows(11);
  const std::string position = Open(options)->Position();
  DataOptions other = options;
  other.seed = 7;
  EXPECT_THAT(Open(other)->Restore(position).message(),
              HasSubstr("resume with the data sets, template, lengths and "
                        "seed that the run began with"));
  const auto changed = Open(Rows(12));
  EXPECT_FALSE(changed->Restore(position).ok());
  const auto pipeline = Open(Rows(11));
  EXPECT_TRUE(pipeline->Restore(position).ok());
  std::string far = position;
  far.replace(far.find("\"index\":0"), 9, "\"index\":99");
  EXPECT_EQ(pipeline->Restore(far).message(),
            "the data position is at example 99, expected 0 to 11: the data "
            "or the options have changed");
  for (const char* text : {"", "{}", "[", "{\"data\": 3}"}) {
    EXPECT_THAT(pipeline->Restore(text).message(),
                HasSubstr("expected what an earlier run has saved"));
  }
  for (const char* key : {"epoch", "index", "draws", "datasets"}) {
    std::string broken = position;
    broken.replace(broken.find(absl::StrCat("\"", key, "\"")), 2, "\"_");
    EXPECT_THAT(pipeline->Restore(broken).message(), HasSubstr(key));
  }
}

TEST_F(DataPipelineTest, ValidationIsDrawnBySeedAndNeverTrainedOn) {
  std::set<Slots> drawn;
  for (const uint64_t seed : {1, 2}) {
    for (const double val_size : {20.0, 0.195}) {  // a share is rounded up
      DataOptions options = Rows(100);
      options.val_size = val_size;
      options.seed = seed;
      options.validation_rows_per_slot = 8;
      const auto pipeline = Open(options);
      EXPECT_EQ(pipeline->num_examples(), 80);
      ASSERT_EQ(pipeline->num_validation_slots(), 3);
      const Slots validation = Texts(pipeline->ValidationSlots(0, 3));
      EXPECT_EQ(Texts(pipeline->ValidationSlots(1, 2)),
                Slots(validation.begin() + 1, validation.end()));
      Slots all = Texts(pipeline->Next(80));
      for (const std::string& slot : validation) {
        for (const absl::string_view row : absl::StrSplit(slot, ' ')) {
          all.emplace_back(row);
        }
      }
      EXPECT_THAT(all, UnorderedElementsAreArray(Numbers(0, 100)));
      drawn.insert(validation);
    }
  }
  EXPECT_EQ(drawn.size(), 2u) << "one for each seed";
}

TEST_F(DataPipelineTest, ARegistryMixedAndCut) {
  WriteRows("a.jsonl", 5);
  test::WriteFile(dir_, "b.json", R"([{"q": "n7", "a": "yes"},
                                      {"q": "n8", "a": ""}])");
  test::WriteFile(dir_, "dataset_info.json", R"({
    "a": {"file_name": "a.jsonl"},
    "b": {"file_name": "b.json", "columns": {"prompt": "q", "response": "a"},},
  })");
  DataOptions options;
  options.dataset_dir = dir_.path();
  options.datasets = {"a", "b"};
  options.max_samples = 3;
  options.shuffle = false;
  const auto pipeline = Open(options);
  EXPECT_THAT(Texts(pipeline->Next(4)), ElementsAre("n0", "n1", "n2", "n7"));
  EXPECT_EQ(pipeline->report().rows, 5);
  EXPECT_EQ(pipeline->report().empty_rows, 1);
  EXPECT_THAT(pipeline->report().warnings, SizeIs(2));
  EXPECT_THAT(pipeline->report().Text(), HasSubstr("5 rows, 4 examples, "));
  EXPECT_THAT(pipeline->report().Text(),
              HasSubstr("1 row without a question or an answer, left out\n"));
  options.mix_strategy = MixStrategy::kInterleaveOver;
  EXPECT_THAT(Texts(Open(options)->Next(5)),
              ElementsAre("n0", "n7", "n1", "n2", "n7"));
}

TEST_F(DataPipelineTest, ChineseMixtralsFolderPacksEachFile) {
  test::WriteFile(dir_, "b.txt", "so\nso so\n");
  test::WriteFile(dir_, "a.txt", "so so so\n");
  DataOptions options;
  options.dataset_dir = dir_.path();
  options.encoder.stage = Stage::kPretrain;
  options.encoder.cutoff_len = 1000;
  options.keep_short_block = true;
  options.shuffle = false;
  options.isolate_documents = true;
  const auto pipeline = Open(options);
  EXPECT_EQ(pipeline->num_examples(), 2) << "a block for each file";
  const auto slots = pipeline->Next(2).value();
  EXPECT_EQ(slots[0].sequences_size(), 1);
  ASSERT_EQ(slots[1].sequences_size(), 2);
  for (const v1::TrainingSequence& sequence : slots[1].sequences()) {
    EXPECT_EQ(sequence.token_ids(0), tokenizer_->bos_id());
    EXPECT_EQ(*sequence.token_ids().rbegin(), tokenizer_->eos_id());
  }
  options.datasets = {};
  options.encoder.stage = Stage::kSft;
  EXPECT_THAT(OpenError(options), HasSubstr("has no *.json file"));
}

TEST_F(DataPipelineTest, PackedDialoguesKeepTheirLabels) {
  DataOptions options = Rows(40);
  options.sft_packing = true;
  options.shuffle = false;
  options.encoder.cutoff_len = 16;
  const auto packed = Open(options);
  DataOptions unshuffled = Rows(40);
  unshuffled.shuffle = false;
  std::vector<int32_t> ids, labels;
  for (const auto& slot : Take(*Open(unshuffled), 40)) {
    const v1::TrainingSequence& sequence = slot.sequences(0);
    ids.insert(ids.end(), sequence.token_ids().begin(),
               sequence.token_ids().end());
    labels.insert(labels.end(), sequence.labels().begin(),
                  sequence.labels().end());
  }
  ASSERT_EQ(packed->num_examples(), static_cast<int64_t>(ids.size() / 16));
  size_t at = 0;
  for (const auto& slot : Take(*packed, ids.size() / 16)) {
    ASSERT_EQ(slot.sequences_size(), 1);
    for (int i = 0; i < 16; ++i, ++at) {
      EXPECT_EQ(slot.sequences(0).token_ids(i), ids[at]);
      EXPECT_EQ(slot.sequences(0).labels(i), labels[at]);
    }
  }
}

TEST_F(DataPipelineTest, BadRowsAreSkippedWhenAskedFor) {
  DataOptions options;
  options.files = {test::WriteFile(
      dir_, "x.jsonl",
      "{\"instruction\": \"n1\", \"output\": \"yes\"}\n{\"instruction\": "
      "\"n2\"}\n")};
  EXPECT_EQ(OpenError(options),
            options.files[0] +
                ":2: the row has no field 'output', it has: instruction");
  options.bad_rows = BadRowPolicy::kSkip;
  const auto pipeline = Open(options);
  EXPECT_EQ(pipeline->num_examples(), 1);
  EXPECT_THAT(pipeline->report().Text(),
              HasSubstr(absl::StrCat("1 row bad, skipped\n  ", options.files[0],
                                     ":2: ")));
}

TEST_F(DataPipelineTest, TheFirstExampleAsTheSeedsPrintIt) {
  DataOptions options = Rows(1);
  const auto pipeline = Open(options);
  const std::string text = pipeline->FirstExampleText().value();
  const auto slot = pipeline->Next(1).value()[0];
  const v1::TrainingSequence& sequence = slot.sequences(0);
  EXPECT_EQ(text, absl::StrCat("input_ids:\n[",
                               absl::StrJoin(sequence.token_ids(), ", "),
                               "]\ninputs:\n<s> [INST] n0 [/INST] yes</s>\n"
                               "label_ids:\n[",
                               absl::StrJoin(sequence.labels(), ", "),
                               "]\nlabels:\nyes</s>\n"));
}

TEST_F(DataPipelineTest, OptionsThatAreWrong) {
  const auto error = [&](auto change) {
    DataOptions options = Rows(4);
    change(options);
    return OpenError(options);
  };
  EXPECT_EQ(error([](DataOptions& o) { o.val_size = 4; }),
            "val_size is 4, expected fewer than the 4 examples that there are");
  EXPECT_EQ(error([](DataOptions& o) { o.val_size = 1.5; }),
            "val_size is 1.5, expected a share below 1 or a number of "
            "examples");
  EXPECT_EQ(error([](DataOptions& o) { o.val_size = -1; }),
            "val_size is -1, expected a share below 1 or a number of examples");
  EXPECT_EQ(error([](DataOptions& o) {
              o.val_size = 0.5;
              o.streaming = true;
            }),
            "val_size is 0.5 with streaming, expected a number of examples: "
            "nobody knows how many a share is");
  EXPECT_EQ(error([](DataOptions& o) { o.max_samples = -1; }),
            "max_samples is -1, expected at least 0");
  EXPECT_EQ(error([](DataOptions& o) { o.buffer_size = 0; }),
            "buffer_size is 0, expected at least 1");
  EXPECT_EQ(error([](DataOptions& o) { o.rows_per_slot = 0; }),
            "rows_per_slot is 0, expected at least 1");
  EXPECT_EQ(error([](DataOptions& o) { o.packing_rows = 0; }),
            "packing_rows is 0, expected at least 1");
  EXPECT_THAT(error([](DataOptions& o) { o.temporary_dir = "/nowhere"; }),
              HasSubstr("/nowhere: cannot create the temporary file of "
                        "tokenised examples"));
  EXPECT_EQ(error([](DataOptions& o) {
              o.sft_packing = true;
              o.encoder.cutoff_len = 100000;
            }),
            "the data give no example to train on: 4 rows, 0 of them empty, 0 "
            "too long, 0 bad, and what fills no block of cutoff_len tokens is "
            "dropped");
  test::WriteFile(dir_, "dataset_info.json",
                  R"({"c": {"file_name": "c.json",
                            "formatting": "sharegpt"}})");
  EXPECT_EQ(error([&](DataOptions& o) {
              o.files.clear();
              o.datasets = {"c"};
              o.dataset_dir = dir_.path();
              o.encoder.stage = Stage::kPretrain;
            }),
            "data set 'c' has formatting 'sharegpt', expected plain text for "
            "pre-training (formatting 'alpaca')");
}

}  // namespace
}  // namespace octet
