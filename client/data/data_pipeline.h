// Data sets to training slots: the whole way of the data of a run.
//
//   files -> rows -> documents -> mixed -> tokenised, labelled, packed
//         -> validation split -> shuffled by seed and epoch -> slots
//
// Names and defaults of options are the seeds' (Aurora, Chinese-Mixtral), whose
// mistakes are options that are off. Not thread-safe.
#ifndef OCTET_CLIENT_DATA_DATA_PIPELINE_H_
#define OCTET_CLIENT_DATA_DATA_PIPELINE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/data/data_report.h"
#include "client/data/dataset_reader.h"
#include "client/data/dataset_registry.h"
#include "client/data/document_encoder.h"
#include "client/data/document_mixer.h"
#include "client/data/example_feed.h"
#include "client/data/example_store.h"
#include "proto/training.pb.h"
#include "text/tokenizer.h"

namespace octet {

struct DataOptions {
  // Where the data are: `files`, else the names `datasets` in
  // DIR/dataset_info.json, else (Chinese-Mixtral) every file DIR/*.txt
  // (kPretrain) or DIR/*.json (kSft), each packed by itself.
  std::string dataset_dir = "data";
  std::vector<std::string> datasets;
  std::vector<std::string> files;
  UnnamedColumns unnamed_columns = UnnamedColumns::kDefault;

  EncoderOptions encoder;  // stage, template, cut-off, labels

  // kSft packs only with `sft_packing`; kPretrain always does.
  bool sft_packing = false;
  int packing_rows = 1000;        // documents that are packed together
  bool keep_short_block = false;  // Chinese-Mixtral's, see packer.h
  // Packed documents do not see each other: each is a TrainingSequence.
  bool isolate_documents = false;

  MixStrategy mix_strategy = MixStrategy::kConcat;
  std::vector<double> interleave_probs;  // for each data set; empty: in turns
  int64_t max_samples = 0;               // rows of each data set; 0: all

  // Examples kept for validation: below 1 a share (rounded up), else a number.
  // Drawn by `seed`; with `streaming` the first ones, a number only.
  double val_size = 0;

  uint64_t seed = 42;
  bool shuffle = true;
  bool streaming = false;       // read anew in every epoch, nothing is stored
  int64_t buffer_size = 16384;  // streaming: examples that are shuffled at once

  BadRowPolicy bad_rows = BadRowPolicy::kStop;
  int rows_per_slot = 1;             // examples in one microbatch
  int validation_rows_per_slot = 1;  // the same for validation
  int num_threads = 1;               // that tokenise
  // Of the store of examples, 4 bytes a token: on a disk for large data.
  std::string temporary_dir = "/tmp";
};

class DataPipeline {
 public:
  // Without `streaming` reads and tokenises everything. `tokenizer` must
  // outlive the pipeline. InvalidArgument or NotFound say what is wrong with an
  // option, the registry, a file or a row.
  static absl::StatusOr<std::unique_ptr<DataPipeline>> Open(
      const DataOptions& options, const Tokenizer* tokenizer);

  // The next slots, over the ends of epochs; only the last slot of an epoch may
  // have fewer rows. Errors: a bad row or file (streaming).
  absl::StatusOr<std::vector<v1::TrainingSlot>> Next(int num_slots);

  // The place after the last Next as one line of text. Restore takes it up in a
  // pipeline of the same data and options (rows_per_slot may differ), and the
  // slots go on as if nothing had happened. On an error nothing changes without
  // `streaming`; with it, open the pipeline again.
  std::string Position() const;
  absl::Status Restore(absl::string_view position);

  // Epochs that are over, with the part of the present one where it is known.
  double epoch() const;

  // Of one epoch, without validation; nullopt with `streaming`.
  std::optional<int64_t> num_examples() const { return feed_->num_examples(); }
  std::optional<int64_t> slots_per_epoch() const;

  int64_t num_validation_slots() const;
  // REQUIRES: 0 <= first, first + count <= num_validation_slots().
  absl::StatusOr<std::vector<v1::TrainingSlot>> ValidationSlots(int64_t first,
                                                                int64_t count);

  // Of what was read so far: without `streaming` everything.
  const DataReport& report() const { return *report_; }

  // The first example of the first epoch, as the seeds print it.
  absl::StatusOr<std::string> FirstExampleText();

 private:
  DataPipeline(const DataOptions& options, const Tokenizer* tokenizer);
  absl::Status OpenStored(std::unique_ptr<ExampleStream> stream);
  absl::Status OpenStreamed(std::unique_ptr<ExampleStream> stream,
                            const std::vector<DatasetSpec>& specs);

  const DataOptions options_;
  const Tokenizer& tokenizer_;
  const std::unique_ptr<DataReport> report_;
  std::unique_ptr<ExampleStore> store_;  // streaming: of validation only
  std::vector<uint32_t> validation_;     // indices in the store
  std::unique_ptr<ExampleFeed> feed_;
  uint64_t fingerprint_ = 0;
};

}  // namespace octet

#endif  // OCTET_CLIENT_DATA_DATA_PIPELINE_H_
