#include "tests/text/random_text.h"

#include <iterator>

namespace octet::test {
namespace {

size_t Pick(std::mt19937& random, size_t bound) { return random() % bound; }

}  // namespace

void AppendUtf8(char32_t code_point, std::string& text) {
  const auto tail = [&](int shift) {
    text.push_back(static_cast<char>(0x80 | (code_point >> shift & 0x3F)));
  };
  if (code_point < 0x80) {
    text.push_back(static_cast<char>(code_point));
  } else if (code_point < 0x800) {
    text.push_back(static_cast<char>(0xC0 | code_point >> 6));
    tail(0);
  } else if (code_point < 0x10000) {
    text.push_back(static_cast<char>(0xE0 | code_point >> 12));
    tail(6);
    tail(0);
  } else {
    text.push_back(static_cast<char>(0xF0 | code_point >> 18));
    tail(12);
    tail(6);
    tail(0);
  }
}

std::string RandomBytes(std::mt19937& random, size_t num_bytes) {
  std::string text;
  while (text.size() < num_bytes) {
    // Lead and trail bytes more often than chance has them, so that almost
    // valid sequences occur.
    const size_t kind = Pick(random, 4);
    unsigned byte = static_cast<unsigned>(Pick(random, 256));
    if (kind == 1) byte = 0x80 | (byte & 0x3F);
    if (kind == 2) byte = 0xC0 | (byte & 0x3F);
    if (kind == 3) byte = ' ' + byte % 95;
    if (byte != '\n') text.push_back(static_cast<char>(byte));
  }
  return text;
}

std::string RandomUnicode(std::mt19937& random, size_t num_chars) {
  constexpr char32_t kEdges[] = {0x7F,   0x80,   0x7FF,   0x800,   0xD7FF,
                                 0xE000, 0xFFFD, 0xFFFF,  0x10000, 0x10FFFF,
                                 0x2581, 0x2047, 0x1F600, 0x200D,  0xFE0F};
  std::string text;
  for (size_t i = 0; i < num_chars; ++i) {
    char32_t code_point = 0;
    switch (Pick(random, 6)) {
      case 0:
        code_point = kEdges[Pick(random, std::size(kEdges))];
        break;
      case 1:
        code_point = static_cast<char32_t>(Pick(random, 0x110000));
        break;
      case 2:
        code_point = static_cast<char32_t>(0x4E00 + Pick(random, 0x5200));
        break;
      case 3:
        code_point = static_cast<char32_t>(0xA0 + Pick(random, 0x500));
        break;
      default:
        code_point = static_cast<char32_t>(' ' + Pick(random, 95));
    }
    const bool surrogate = code_point >= 0xD800 && code_point < 0xE000;
    if (!surrogate && code_point != '\n') AppendUtf8(code_point, text);
  }
  return text;
}

std::string RandomWhitespace(std::mt19937& random, size_t num_chars) {
  constexpr char32_t kChars[] = {' ', ' ',    ' ',    ' ',    '\t', '\r',
                                 'a', 0x00A0, 0x3000, 0x2581, 'b',  0x200B};
  std::string text;
  for (size_t i = 0; i < num_chars; ++i) {
    AppendUtf8(kChars[Pick(random, std::size(kChars))], text);
  }
  return text;
}

}  // namespace octet::test
