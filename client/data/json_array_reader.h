// The objects of a JSON array one by one, see row_reader.h.
#ifndef OCTET_CLIENT_DATA_JSON_ARRAY_READER_H_
#define OCTET_CLIENT_DATA_JSON_ARRAY_READER_H_

#include <memory>

#include "client/data/row_reader.h"

namespace octet {

// REQUIRES: `stream` begins with '[', after white space. An element that is
// not valid JSON inside its own brackets is a bad row; brackets or commas that
// do not fit break the file. A comma after the last element is accepted.
std::unique_ptr<RowReader> MakeJsonArrayReader(
    std::unique_ptr<ByteStream> stream);

}  // namespace octet

#endif  // OCTET_CLIENT_DATA_JSON_ARRAY_READER_H_
