// UTF-8 one character at a time, by SentencePiece's rule for broken text: a
// byte that does not begin a valid character counts as one U+FFFD by itself.
// Overlong forms, surrogates and code points above U+10FFFF are invalid.
// Pure functions.
#ifndef OCTET_TEXT_UTF8_H_
#define OCTET_TEXT_UTF8_H_

#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace octet {

inline constexpr absl::string_view kReplacementCharacter = "\xEF\xBF\xBD";
// U+2581, which stands for a space inside pieces.
inline constexpr absl::string_view kSpaceSymbol = "\xE2\x96\x81";
inline constexpr uint32_t kNumCodePoints = 0x110000;

struct Utf8Char {
  uint32_t code_point;  // U+FFFD when not valid
  size_t num_bytes;     // 1 when not valid
  bool valid;
};

// Bytes of a character that begins with `lead`; 1 for a byte that begins none.
inline size_t Utf8Length(unsigned char lead) {
  if ((lead & 0xE0) == 0xC0) return 2;
  if ((lead & 0xF0) == 0xE0) return 3;
  if ((lead & 0xF8) == 0xF0) return 4;
  return 1;
}

// The first character of `text`, which must not be empty.
inline Utf8Char DecodeUtf8(absl::string_view text) {
  constexpr Utf8Char kInvalid = {0xFFFD, 1, false};
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const unsigned char lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return {lead, 1, true};
  const size_t num_bytes = Utf8Length(lead);
  if (num_bytes == 1 || num_bytes > text.size()) return kInvalid;
  uint32_t code_point = lead & (0x7F >> num_bytes);
  for (size_t i = 1; i < num_bytes; ++i) {
    const unsigned char trail = static_cast<unsigned char>(text[i]);
    if ((trail & 0xC0) != 0x80) return kInvalid;
    code_point = (code_point << 6) | (trail & 0x3F);
  }
  const bool surrogate = code_point >= 0xD800 && code_point < 0xE000;
  if (code_point < kSmallest[num_bytes] || surrogate ||
      code_point >= kNumCodePoints) {
    return kInvalid;
  }
  return {code_point, num_bytes, true};
}

// Bytes before the first that is not part of a character.
inline size_t ValidUtf8Prefix(absl::string_view text) {
  size_t pos = 0;
  while (pos < text.size()) {
    const Utf8Char next = DecodeUtf8(text.substr(pos));
    if (!next.valid) break;
    pos += next.num_bytes;
  }
  return pos;
}

// True when `text` is a proper prefix of something that DecodeUtf8 may accept,
// so that more bytes must be seen before it can be judged.
inline bool IsIncompleteUtf8(absl::string_view text) {
  if (text.empty()) return false;
  if (text.size() >= Utf8Length(static_cast<unsigned char>(text[0]))) {
    return false;
  }
  for (size_t i = 1; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) return false;
  }
  return true;
}

inline bool IsValidUtf8(absl::string_view text) {
  while (!text.empty()) {
    const Utf8Char character = DecodeUtf8(text);
    if (!character.valid) return false;
    text.remove_prefix(character.num_bytes);
  }
  return true;
}

}  // namespace octet

#endif  // OCTET_TEXT_UTF8_H_
