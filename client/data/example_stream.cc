#include "client/data/example_stream.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "base/status_macros.h"

namespace octet {
namespace {

// What is read before it is tokenised: enough to share among threads.
constexpr size_t kChunkDocuments = 256;
constexpr size_t kChunkBytes = 8 << 20;

size_t NumBytes(const Document& document) {
  size_t num_bytes = document.text.size();
  for (const ChatTurn& turn : document.messages) {
    num_bytes += turn.content.size();
  }
  return num_bytes;
}

}  // namespace

ExampleStream::ExampleStream(std::unique_ptr<DocumentMixer> mixer,
                             DocumentEncoder encoder, StreamOptions options,
                             DataReport* report)
    : mixer_(std::move(mixer)),
      encoder_(std::move(encoder)),
      options_(options),
      report_(*report),
      packer_(options.block_len, options.keep_short_block),
      batch_begin_(mixer_->position()) {}

absl::StatusOr<std::optional<Example>> ExampleStream::Next() {
  OCTET_ASSIGN_OR_RETURN(std::optional<Example> example, Pop());
  if (!example.has_value()) return std::nullopt;
  ++report_.examples;
  report_.tokens += static_cast<int64_t>(example->token_ids.size());
  report_.labels +=
      example->labels.end() - example->labels.begin() -
      std::count(example->labels.begin(), example->labels.end(), kIgnoredLabel);
  return example;
}

absl::StatusOr<std::optional<Example>> ExampleStream::Pop() {
  while (ready_.empty()) {
    if (at_end_) return std::nullopt;
    OCTET_RETURN_IF_ERROR(ReadChunk());
  }
  Example example = std::move(ready_.front());
  ready_.pop_front();
  ++given_;
  return example;
}

StreamPosition ExampleStream::position() const {
  return {batch_begin_, given_};
}

absl::Status ExampleStream::Restore(const StreamPosition& position) {
  OCTET_RETURN_IF_ERROR(mixer_->Restore(position.mix));
  packer_.Clear();
  ready_.clear();
  batch_begin_ = position.mix;
  given_ = 0;
  batch_ended_ = true;
  at_end_ = false;
  next_batch_.reset();
  while (given_ < position.given) {
    OCTET_ASSIGN_OR_RETURN(const std::optional<Example> example, Pop());
    if (example.has_value()) continue;
    return absl::InvalidArgumentError(
        "the data position is beyond the end of the data: the files have "
        "changed");
  }
  return absl::OkStatus();
}

absl::Status ExampleStream::ReadChunk() {
  if (batch_ended_) BeginBatch();
  std::vector<Document> documents;
  OCTET_RETURN_IF_ERROR(ReadDocuments(documents));
  OCTET_ASSIGN_OR_RETURN(std::vector<EncodedDocument> encoded,
                         EncodeAll(documents));
  for (EncodedDocument& each : encoded) Take(std::move(each));
  if (batch_ended_ && options_.pack) packer_.EndBatch(ready_);
  return absl::OkStatus();
}

void ExampleStream::BeginBatch() {
  batch_begin_ = next_batch_.has_value() ? std::move(next_batch_->begin)
                                         : mixer_->position();
  given_ = 0;
  batch_documents_ = 0;
  batch_ended_ = false;
}

// Sets batch_ended_ and at_end_ when they are seen.
absl::Status ExampleStream::ReadDocuments(std::vector<Document>& documents) {
  size_t num_bytes = 0;
  while (documents.size() < kChunkDocuments && num_bytes < kChunkBytes &&
         !batch_ended_) {
    MixPosition before;
    if (options_.batch_ends_with_dataset) before = mixer_->position();
    std::optional<Document> document;
    if (next_batch_.has_value()) {
      document = std::move(next_batch_->document);
      next_batch_.reset();
    } else {
      OCTET_ASSIGN_OR_RETURN(document, mixer_->Next());
    }
    if (!document.has_value()) {
      batch_ended_ = at_end_ = true;
    } else if (options_.batch_ends_with_dataset && batch_documents_ > 0 &&
               document->dataset != batch_dataset_) {
      next_batch_ = Begun{std::move(before), *std::move(document)};
      batch_ended_ = true;
    } else {
      batch_dataset_ = document->dataset;
      num_bytes += NumBytes(*document);
      documents.push_back(*std::move(document));
      batch_ended_ = ++batch_documents_ == options_.batch_rows;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<EncodedDocument>> ExampleStream::EncodeAll(
    const std::vector<Document>& documents) const {
  std::vector<absl::StatusOr<EncodedDocument>> results(documents.size());
  const size_t num_threads = std::max<size_t>(
      1, std::min<size_t>(options_.num_threads, documents.size()));
  const auto encode_share = [&](size_t share) {
    for (size_t i = share; i < documents.size(); i += num_threads) {
      results[i] = encoder_.Encode(documents[i]);
    }
  };
  std::vector<std::thread> threads;
  for (size_t share = 1; share < num_threads; ++share) {
    threads.emplace_back(encode_share, share);
  }
  encode_share(0);
  for (std::thread& thread : threads) thread.join();
  std::vector<EncodedDocument> encoded;
  for (auto& result : results) {
    OCTET_RETURN_IF_ERROR(result.status());
    encoded.push_back(*std::move(result));
  }
  return encoded;
}

void ExampleStream::Take(EncodedDocument encoded) {
  report_.empty_rows += encoded.outcome == EncodeOutcome::kEmpty;
  report_.dropped_rows += encoded.outcome == EncodeOutcome::kTooLong;
  report_.truncated_rows += encoded.outcome == EncodeOutcome::kTruncated;
  if (encoded.example.token_ids.empty()) return;
  if (options_.pack) {
    packer_.Add(encoded.example, ready_);
  } else {
    ready_.push_back(std::move(encoded.example));
  }
}

}  // namespace octet
