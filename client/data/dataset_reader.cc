#include "client/data/dataset_reader.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace octet {

DatasetReader::DatasetReader(DatasetSpec spec, int dataset, Stage stage,
                             BadRowPolicy bad_rows, int64_t max_documents,
                             DataReport* report)
    : spec_(std::move(spec)),
      dataset_(dataset),
      stage_(stage),
      bad_rows_(bad_rows),
      max_documents_(max_documents),
      report_(*report) {}

absl::StatusOr<std::optional<Document>> DatasetReader::Next() {
  std::optional<Document> document;
  if (ahead_.has_value()) {
    document = *std::move(ahead_);
    ahead_.reset();
  } else {
    OCTET_ASSIGN_OR_RETURN(document, Read());
  }
  position_ = next_;
  return document;
}

absl::StatusOr<bool> DatasetReader::AtEnd() {
  if (!ahead_.has_value()) {
    OCTET_ASSIGN_OR_RETURN(ahead_, Read());
  }
  return !ahead_->has_value();
}

void DatasetReader::Restore(const DatasetPosition& position) {
  position_ = next_ = position;
  ahead_.reset();
  reader_.reset();
}

absl::StatusOr<std::optional<Document>> DatasetReader::Read() {
  if (max_documents_ > 0 && next_.documents >= max_documents_) {
    return std::nullopt;
  }
  while (next_.file < static_cast<int64_t>(spec_.files.size())) {
    if (reader_ == nullptr) OCTET_RETURN_IF_ERROR(OpenFile());
    const absl::StatusOr<std::optional<Row>> row = ReadRow();
    if (!row.ok()) {
      OCTET_RETURN_IF_ERROR(OnBadRow(row.status()));
      continue;
    }
    if (!row->has_value()) {
      ++next_.file;
      next_.bytes = DatasetPosition().bytes;
      reader_.reset();
      continue;
    }
    absl::StatusOr<Document> document =
        MakeDocument((*row)->fields, spec_, stage_);
    if (!document.ok()) {
      OCTET_RETURN_IF_ERROR(OnBadRow(absl::InvalidArgumentError(
          absl::StrCat(reader_->file(), ":", (*row)->line, ": ",
                       document.status().message()))));
      continue;
    }
    ++next_.documents;
    document->dataset = dataset_;
    return *std::move(document);
  }
  return std::nullopt;
}

absl::StatusOr<std::optional<Row>> DatasetReader::ReadRow() {
  absl::StatusOr<std::optional<Row>> row = reader_->Next();
  next_.bytes = reader_->position();
  if (!row.ok() || row->has_value()) ++report_.rows;
  return row;
}

absl::Status DatasetReader::OpenFile() {
  OCTET_ASSIGN_OR_RETURN(reader_, OpenRowReader(spec_.files[next_.file]));
  if (next_.bytes.offset >= 0) reader_->Seek(next_.bytes);
  return absl::OkStatus();
}

absl::Status DatasetReader::OnBadRow(const absl::Status& error) {
  if (!absl::IsInvalidArgument(error) || bad_rows_ == BadRowPolicy::kStop) {
    return error;
  }
  ++report_.bad_rows;
  if (report_.bad_row_errors.size() < kMaxReportedRows) {
    report_.bad_row_errors.emplace_back(error.message());
  }
  return absl::OkStatus();
}

}  // namespace octet
