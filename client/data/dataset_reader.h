// The documents of one data set in the order of its files, with what is to be
// done about bad rows. Not thread-safe.
#ifndef OCTET_CLIENT_DATA_DATASET_READER_H_
#define OCTET_CLIENT_DATA_DATASET_READER_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/data/data_report.h"
#include "client/data/dataset_spec.h"
#include "client/data/document.h"
#include "client/data/row_reader.h"

namespace octet {

enum class BadRowPolicy {
  kStop,  // the first bad row is the error
  kSkip,  // counted, the first ones reported, and left out
};

// Where a data set is being read.
struct DatasetPosition {
  int64_t file = 0;
  BytePosition bytes = {-1, 1};  // in the file; offset -1: not opened yet
  int64_t documents = 0;         // given so far
};

class DatasetReader {
 public:
  // `dataset` goes into the documents. At most `max_documents`, 0: all.
  // `report` must outlive this object.
  DatasetReader(DatasetSpec spec, int dataset, Stage stage,
                BadRowPolicy bad_rows, int64_t max_documents,
                DataReport* report);

  // nullopt at the end. Errors: a bad row (with kStop), "FILE:LINE: " first,
  // or a file that cannot be read.
  absl::StatusOr<std::optional<Document>> Next();
  // Whether Next would give nullopt.
  absl::StatusOr<bool> AtEnd();
  void Rewind() { Restore(DatasetPosition()); }

  const DatasetPosition& position() const { return position_; }
  void Restore(const DatasetPosition& position);

  const DatasetSpec& spec() const { return spec_; }

 private:
  absl::StatusOr<std::optional<Document>> Read();
  absl::StatusOr<std::optional<Row>> ReadRow();
  absl::Status OpenFile();
  // OK when the bad row is skipped.
  absl::Status OnBadRow(const absl::Status& error);

  const DatasetSpec spec_;
  const int dataset_;
  const Stage stage_;
  const BadRowPolicy bad_rows_;
  const int64_t max_documents_;
  DataReport& report_;

  DatasetPosition position_;                      // before `ahead_`
  DatasetPosition next_;                          // after it
  std::unique_ptr<RowReader> reader_;             // at next_
  std::optional<std::optional<Document>> ahead_;  // that AtEnd has read
};

}  // namespace octet

#endif  // OCTET_CLIENT_DATA_DATASET_READER_H_
