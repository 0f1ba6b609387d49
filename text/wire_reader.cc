#include "text/wire_reader.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace octet {

absl::StatusOr<uint64_t> WireReader::ReadVarint() {
  const size_t begin = position_;
  uint64_t value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (AtEnd()) {
      return absl::InvalidArgumentError(
          absl::StrCat("the number at byte ", offset_ + begin, " is cut off"));
    }
    const uint64_t byte = static_cast<unsigned char>(bytes_[position_++]);
    value |= (byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the number at byte ", offset_ + begin,
                   " is longer than the 10 bytes a varint may have"));
}

absl::StatusOr<uint64_t> WireReader::ReadFixed(size_t num_bytes) {
  if (bytes_.size() - position_ < num_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the number at byte ", offset_ + position_, " is cut off"));
  }
  uint64_t value = 0;
  for (size_t i = 0; i < num_bytes; ++i) {
    const uint64_t byte = static_cast<unsigned char>(bytes_[position_++]);
    value |= byte << (8 * i);
  }
  return value;
}

absl::StatusOr<WireField> WireReader::Next() {
  WireField field;
  field.offset = offset_ + position_;
  OCTET_ASSIGN_OR_RETURN(const uint64_t tag, ReadVarint());
  const uint64_t number = tag >> 3;
  if (number == 0 || number >= (uint64_t{1} << 29)) {
    return absl::InvalidArgumentError(
        absl::StrCat("the field at byte ", field.offset, " has number ", number,
                     ", expected 1 to 536870911"));
  }
  field.number = static_cast<uint32_t>(number);
  field.type = static_cast<WireType>(tag & 7);
  switch (field.type) {
    case WireType::kVarint: {
      OCTET_ASSIGN_OR_RETURN(field.value, ReadVarint());
      return field;
    }
    case WireType::kFixed64: {
      OCTET_ASSIGN_OR_RETURN(field.value, ReadFixed(8));
      return field;
    }
    case WireType::kFixed32: {
      OCTET_ASSIGN_OR_RETURN(field.value, ReadFixed(4));
      return field;
    }
    case WireType::kLengthDelimited: {
      OCTET_ASSIGN_OR_RETURN(const uint64_t length, ReadVarint());
      const size_t left = bytes_.size() - position_;
      if (length > left) {
        return absl::InvalidArgumentError(
            absl::StrCat("the field at byte ", field.offset, " says it has ",
                         length, " bytes, but ", left, " are left"));
      }
      field.bytes_offset = offset_ + position_;
      field.bytes = bytes_.substr(position_, length);
      position_ += length;
      return field;
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the field at byte ", field.offset, " has wire type ",
                   tag & 7, ", expected 0, 1, 2 or 5"));
}

}  // namespace octet
