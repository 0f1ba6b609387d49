// Rows of a CSV file (RFC 4180), see row_reader.h.
#ifndef OCTET_CLIENT_DATA_CSV_READER_H_
#define OCTET_CLIENT_DATA_CSV_READER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "client/data/row_reader.h"

namespace octet {

// Reads the header: the error is of the file when there is none.
//
// A quote inside a field that does not begin with one is text. Blank lines are
// passed over. A record with more or fewer fields than columns, or with text
// after a closing quote, is a bad row; a quote that is never closed breaks the
// file, for nobody knows what it should have held.
absl::StatusOr<std::unique_ptr<RowReader>> MakeCsvReader(
    std::unique_ptr<ByteStream> stream);

}  // namespace octet

#endif  // OCTET_CLIENT_DATA_CSV_READER_H_
