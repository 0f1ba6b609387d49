// Examples in the order of the documents, made as they are asked for: read,
// tokenised (by several threads) and packed in batches of documents. The same
// for any number of threads. Not thread-safe.
#ifndef OCTET_CLIENT_DATA_EXAMPLE_STREAM_H_
#define OCTET_CLIENT_DATA_EXAMPLE_STREAM_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/data/data_report.h"
#include "client/data/document_encoder.h"
#include "client/data/document_mixer.h"
#include "client/data/example.h"
#include "client/data/packer.h"

namespace octet {

struct StreamPosition {
  MixPosition mix;    // where the batch begins
  int64_t given = 0;  // examples of the batch that were taken
};

struct StreamOptions {
  bool pack = false;
  int32_t block_len = 1024;
  bool keep_short_block = false;
  int batch_rows = 1000;                 // documents that are packed together
  bool batch_ends_with_dataset = false;  // a batch never spans two data sets
  int num_threads = 1;
};

class ExampleStream {
 public:
  // `report` must outlive this object.
  ExampleStream(std::unique_ptr<DocumentMixer> mixer, DocumentEncoder encoder,
                StreamOptions options, DataReport* report);

  // nullopt at the end. Errors as for DatasetReader.
  absl::StatusOr<std::optional<Example>> Next();

  StreamPosition position() const;
  // Reads the batch of `position` again, up to its place.
  absl::Status Restore(const StreamPosition& position);

 private:
  struct Begun {  // a batch whose first document had to be read to see its end
    MixPosition begin;
    Document document;
  };

  absl::StatusOr<std::optional<Example>> Pop();
  absl::Status ReadChunk();
  absl::Status ReadDocuments(std::vector<Document>& documents);
  absl::StatusOr<std::vector<EncodedDocument>> EncodeAll(
      const std::vector<Document>& documents) const;
  void Take(EncodedDocument encoded);
  void BeginBatch();

  const std::unique_ptr<DocumentMixer> mixer_;
  const DocumentEncoder encoder_;
  const StreamOptions options_;
  DataReport& report_;

  Packer packer_;
  std::deque<Example> ready_;
  MixPosition batch_begin_;
  int64_t given_ = 0;        // of the batch
  int batch_documents_ = 0;  // read so far
  int batch_dataset_ = 0;    // that it is from
  bool batch_ended_ = true;  // the next document begins another
  bool at_end_ = false;
  std::optional<Begun> next_batch_;
};

}  // namespace octet

#endif  // OCTET_CLIENT_DATA_EXAMPLE_STREAM_H_
