// Reads the protobuf wire format field by field, so that a .model file can be
// parsed without linking protobuf. Every length is checked against the bytes
// that are there. Format: protobuf.dev/programming-guides/encoding.
// Groups (wire types 3 and 4) are refused: no SentencePiece message has any.
// Not thread-safe; the bytes must outlive the reader. Errors name the offset in
// the whole file, never the file itself: the caller puts its name before.
#ifndef OCTET_TEXT_WIRE_READER_H_
#define OCTET_TEXT_WIRE_READER_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace octet {

enum class WireType {
  kVarint = 0,
  kFixed64 = 1,
  kLengthDelimited = 2,
  kFixed32 = 5
};

struct WireField {
  uint32_t number = 0;
  WireType type = WireType::kVarint;
  uint64_t value = 0;       // of a varint, fixed64 or fixed32
  absl::string_view bytes;  // of a length-delimited field
  size_t offset = 0;        // of the field's tag in the file
  size_t bytes_offset = 0;  // of `bytes` in the file
};

class WireReader {
 public:
  // `offset` is where `bytes` begins in the file.
  WireReader(absl::string_view bytes, size_t offset)
      : bytes_(bytes), offset_(offset) {}

  bool AtEnd() const { return position_ == bytes_.size(); }
  // REQUIRES: !AtEnd().
  absl::StatusOr<WireField> Next();

 private:
  absl::StatusOr<uint64_t> ReadVarint();
  absl::StatusOr<uint64_t> ReadFixed(size_t num_bytes);

  const absl::string_view bytes_;
  const size_t offset_;
  size_t position_ = 0;
};

}  // namespace octet

#endif  // OCTET_TEXT_WIRE_READER_H_
