#include "client/data/data_pipeline.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <system_error>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "client/data/example_text.h"
#include "client/data/position_text.h"
#include "client/data/random.h"

namespace octet {
namespace {

constexpr uint64_t kSplitPurpose = 3;
// Documents that are read again when an unpacked stream is taken up.
constexpr int kUnpackedBatchRows = 64;

bool Packs(const DataOptions& options) {
  return options.encoder.stage == Stage::kPretrain || options.sft_packing;
}

absl::Status CheckAtLeast(absl::string_view name, int64_t value,
                          int64_t least) {
  if (value >= least) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, " is ", value, ", expected at least ", least));
}

absl::Status CheckOptions(const DataOptions& options) {
  OCTET_RETURN_IF_ERROR(CheckAtLeast("max_samples", options.max_samples, 0));
  OCTET_RETURN_IF_ERROR(CheckAtLeast("packing_rows", options.packing_rows, 1));
  OCTET_RETURN_IF_ERROR(CheckAtLeast("buffer_size", options.buffer_size, 1));
  OCTET_RETURN_IF_ERROR(
      CheckAtLeast("rows_per_slot", options.rows_per_slot, 1));
  OCTET_RETURN_IF_ERROR(CheckAtLeast("validation_rows_per_slot",
                                     options.validation_rows_per_slot, 1));
  OCTET_RETURN_IF_ERROR(CheckAtLeast("num_threads", options.num_threads, 1));
  const double val_size = options.val_size;
  const bool is_count = val_size == 0 || val_size >= 1;
  if (!(val_size >= 0 && val_size <= 1e9) ||
      (is_count && val_size != std::floor(val_size))) {
    return absl::InvalidArgumentError(
        absl::StrCat("val_size is ", val_size,
                     ", expected a share below 1 or a number of examples"));
  }
  if (options.streaming && !is_count) {
    return absl::InvalidArgumentError(absl::StrCat(
        "val_size is ", val_size,
        " with streaming, expected a number of examples: nobody knows how many "
        "a share is"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<DatasetSpec>> FindDatasets(
    const DataOptions& options, DataReport& report) {
  if (!options.files.empty()) return DatasetsOfFiles(options.files);
  if (options.datasets.empty()) {
    std::error_code error;
    if (!std::filesystem::is_directory(options.dataset_dir, error)) {
      return absl::NotFoundError(absl::StrCat(
          "neither files nor names of data sets are given, and dataset_dir '",
          options.dataset_dir, "' is no directory, expected one of them"));
    }
    return DatasetsOfFolder(
        options.dataset_dir,
        options.encoder.stage == Stage::kPretrain ? ".txt" : ".json");
  }
  OCTET_ASSIGN_OR_RETURN(const DatasetRegistry registry,
                         DatasetRegistry::Load(options.dataset_dir));
  report.warnings = registry.warnings();
  std::vector<DatasetSpec> specs;
  for (const std::string& name : options.datasets) {
    OCTET_ASSIGN_OR_RETURN(DatasetSpec spec,
                           registry.Find(name, options.unnamed_columns));
    specs.push_back(std::move(spec));
  }
  return specs;
}

absl::Status CheckStage(const DatasetSpec& spec, Stage stage) {
  if (stage != Stage::kPretrain || spec.format == RowFormat::kAlpaca) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("data set '", spec.name,
                   "' has formatting 'sharegpt', expected plain text for "
                   "pre-training (formatting 'alpaca')"));
}

absl::StatusOr<std::unique_ptr<ExampleStream>> OpenStream(
    const DataOptions& options, const std::vector<DatasetSpec>& specs,
    const Tokenizer* tokenizer, DataReport* report) {
  EncoderOptions encoder_options = options.encoder;
  if (Packs(options)) encoder_options.cutoff_rule = CutoffRule::kKeep;
  OCTET_ASSIGN_OR_RETURN(
      DocumentEncoder encoder,
      DocumentEncoder::Create(std::move(encoder_options), tokenizer));
  std::vector<std::unique_ptr<DatasetReader>> readers;
  for (const DatasetSpec& spec : specs) {
    OCTET_RETURN_IF_ERROR(CheckStage(spec, options.encoder.stage));
    readers.push_back(std::make_unique<DatasetReader>(
        spec, static_cast<int>(readers.size()), options.encoder.stage,
        options.bad_rows, options.max_samples, report));
  }
  OCTET_ASSIGN_OR_RETURN(
      std::unique_ptr<DocumentMixer> mixer,
      DocumentMixer::Create(std::move(readers), options.mix_strategy,
                            options.interleave_probs, options.seed));
  StreamOptions stream;
  stream.pack = Packs(options);
  stream.block_len = options.encoder.cutoff_len;
  stream.keep_short_block = options.keep_short_block;
  stream.batch_rows = stream.pack ? options.packing_rows : kUnpackedBatchRows;
  stream.batch_ends_with_dataset =
      options.files.empty() && options.datasets.empty();
  stream.num_threads = options.num_threads;
  return std::make_unique<ExampleStream>(std::move(mixer), std::move(encoder),
                                         stream, report);
}

uint64_t Fingerprint(absl::string_view text) {  // FNV-1a
  uint64_t hash = 0xCBF29CE484222325;
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  }
  return hash;
}

// Everything that the order of a streamed epoch depends on.
std::string DescribeStream(const DataOptions& options,
                           const std::vector<DatasetSpec>& specs) {
  const EncoderOptions& encoder = options.encoder;
  std::string text = absl::StrCat(
      static_cast<int>(encoder.stage), " ", encoder.chat_template, " ",
      static_cast<int>(encoder.cutoff_rule), " ", encoder.cutoff_len, " ",
      encoder.reserved_label_len, " ", options.sft_packing, " ",
      options.packing_rows, " ", options.keep_short_block, " ",
      static_cast<int>(options.mix_strategy), " ",
      absl::StrJoin(options.interleave_probs, ","), " ", options.max_samples,
      " ", options.val_size, " ", options.seed, " ", options.shuffle, " ",
      options.buffer_size);
  for (const DatasetSpec& spec : specs) {
    for (const std::string& file : spec.files) {
      std::error_code error;
      const auto num_bytes = std::filesystem::file_size(file, error);
      absl::StrAppend(&text, "\n",
                      std::filesystem::path(file).filename().string(), " ",
                      num_bytes);
    }
  }
  return text;
}

absl::Status NoExample(const DataOptions& options, const DataReport& report) {
  return absl::InvalidArgumentError(absl::StrCat(
      "the data give no example to train on: ", report.rows, " rows, ",
      report.empty_rows, " of them empty, ", report.dropped_rows, " too long, ",
      report.bad_rows, " bad",
      Packs(options) ? ", and what fills no block of cutoff_len tokens is "
                       "dropped"
                     : ""));
}

}  // namespace

DataPipeline::DataPipeline(const DataOptions& options,
                           const Tokenizer* tokenizer)
    : options_(options),
      tokenizer_(*tokenizer),
      report_(std::make_unique<DataReport>()) {}

absl::StatusOr<std::unique_ptr<DataPipeline>> DataPipeline::Open(
    const DataOptions& options, const Tokenizer* tokenizer) {
  OCTET_RETURN_IF_ERROR(CheckOptions(options));
  auto pipeline = absl::WrapUnique(new DataPipeline(options, tokenizer));
  DataReport* report = pipeline->report_.get();
  OCTET_ASSIGN_OR_RETURN(const std::vector<DatasetSpec> specs,
                         FindDatasets(options, *report));
  OCTET_ASSIGN_OR_RETURN(auto stream,
                         OpenStream(options, specs, tokenizer, report));
  OCTET_ASSIGN_OR_RETURN(pipeline->store_,
                         ExampleStore::Create(options.temporary_dir));
  OCTET_RETURN_IF_ERROR(options.streaming
                            ? pipeline->OpenStreamed(std::move(stream), specs)
                            : pipeline->OpenStored(std::move(stream)));
  return pipeline;
}

absl::Status DataPipeline::OpenStored(std::unique_ptr<ExampleStream> stream) {
  while (true) {
    OCTET_ASSIGN_OR_RETURN(const std::optional<Example> example,
                           stream->Next());
    if (!example.has_value()) break;
    OCTET_RETURN_IF_ERROR(store_->Append(*example));
  }
  const int64_t size = store_->size();
  if (size == 0) return NoExample(options_, *report_);
  if (size > std::numeric_limits<uint32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the data have ", size,
        " examples, expected fewer than 2^32: use streaming or max_samples"));
  }
  const double val_size = options_.val_size;
  const int64_t num_validation = static_cast<int64_t>(
      val_size < 1 ? std::ceil(val_size * static_cast<double>(size))
                   : val_size);
  if (num_validation >= size) {
    return absl::InvalidArgumentError(
        absl::StrCat("val_size is ", val_size, ", expected fewer than the ",
                     size, " examples that there are"));
  }
  std::vector<uint32_t> training = RandomOrder(
      {options_.seed, kSplitPurpose, 0}, static_cast<uint32_t>(size));
  validation_.assign(training.begin(), training.begin() + num_validation);
  training.erase(training.begin(), training.begin() + num_validation);
  std::sort(training.begin(), training.end());
  fingerprint_ =
      Fingerprint(absl::StrCat(store_->fingerprint(), " ", val_size, " ",
                               options_.seed, " ", options_.shuffle));
  feed_ = MakeStoredFeed(store_.get(), std::move(training),
                         {options_.seed, options_.shuffle});
  return absl::OkStatus();
}

absl::Status DataPipeline::OpenStreamed(std::unique_ptr<ExampleStream> stream,
                                        const std::vector<DatasetSpec>& specs) {
  while (static_cast<double>(store_->size()) < options_.val_size) {
    OCTET_ASSIGN_OR_RETURN(const std::optional<Example> example,
                           stream->Next());
    if (!example.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "val_size is ", options_.val_size, ", expected fewer than the ",
          store_->size(), " examples that there are"));
    }
    validation_.push_back(static_cast<uint32_t>(store_->size()));
    OCTET_RETURN_IF_ERROR(store_->Append(*example));
  }
  fingerprint_ = Fingerprint(DescribeStream(options_, specs));
  feed_ = MakeStreamedFeed(std::move(stream), options_.buffer_size,
                           {options_.seed, options_.shuffle});
  return absl::OkStatus();
}

absl::StatusOr<std::vector<v1::TrainingSlot>> DataPipeline::Next(
    int num_slots) {
  std::vector<v1::TrainingSlot> slots;
  bool epoch_is_new = false;
  while (static_cast<int>(slots.size()) < num_slots) {
    v1::TrainingSlot slot;
    int rows = 0;
    for (; rows < options_.rows_per_slot; ++rows) {
      OCTET_ASSIGN_OR_RETURN(const std::optional<Example> example,
                             feed_->Next());
      if (!example.has_value()) break;
      AddToSlot(*example, options_.isolate_documents, slot);
    }
    if (rows > 0) {
      slots.push_back(std::move(slot));
      epoch_is_new = false;
      continue;
    }
    if (epoch_is_new) return NoExample(options_, *report_);
    OCTET_RETURN_IF_ERROR(feed_->StartEpoch(feed_->position().epoch + 1));
    epoch_is_new = true;
  }
  return slots;
}

std::string DataPipeline::Position() const {
  return FormatPosition(feed_->position(), fingerprint_);
}

absl::Status DataPipeline::Restore(absl::string_view position) {
  OCTET_ASSIGN_OR_RETURN(const FeedPosition parsed,
                         ParsePosition(position, fingerprint_));
  return feed_->Restore(parsed);
}

double DataPipeline::epoch() const {
  const FeedPosition position = feed_->position();
  const double part = feed_->num_examples().has_value()
                          ? static_cast<double>(position.index) /
                                static_cast<double>(*feed_->num_examples())
                          : 0.0;
  return static_cast<double>(position.epoch) + part;
}

std::optional<int64_t> DataPipeline::slots_per_epoch() const {
  const std::optional<int64_t> num_examples = feed_->num_examples();
  if (!num_examples.has_value()) return std::nullopt;
  return (*num_examples + options_.rows_per_slot - 1) / options_.rows_per_slot;
}

int64_t DataPipeline::num_validation_slots() const {
  const int64_t rows = options_.validation_rows_per_slot;
  return (static_cast<int64_t>(validation_.size()) + rows - 1) / rows;
}

absl::StatusOr<std::vector<v1::TrainingSlot>> DataPipeline::ValidationSlots(
    int64_t first, int64_t count) {
  const int64_t rows = options_.validation_rows_per_slot;
  const int64_t num_examples = static_cast<int64_t>(validation_.size());
  std::vector<v1::TrainingSlot> slots(count);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t end = std::min((first + i + 1) * rows, num_examples);
    for (int64_t row = (first + i) * rows; row < end; ++row) {
      OCTET_ASSIGN_OR_RETURN(const Example example,
                             store_->Get(validation_[row]));
      AddToSlot(example, options_.isolate_documents, slots[i]);
    }
  }
  return slots;
}

absl::StatusOr<std::string> DataPipeline::FirstExampleText() {
  const FeedPosition now = feed_->position();
  OCTET_RETURN_IF_ERROR(feed_->StartEpoch(0));
  OCTET_ASSIGN_OR_RETURN(const std::optional<Example> example, feed_->Next());
  OCTET_RETURN_IF_ERROR(feed_->Restore(now));
  if (!example.has_value()) return NoExample(options_, *report_);
  return ExampleText(*example, tokenizer_);
}

}  // namespace octet
