// Random texts that tokenizers find hard. Deterministic for a given generator.
#ifndef OCTET_TESTS_TEXT_RANDOM_TEXT_H_
#define OCTET_TESTS_TEXT_RANDOM_TEXT_H_

#include <cstddef>
#include <random>
#include <string>

namespace octet::test {

// Any bytes but a newline, mostly broken UTF-8.
std::string RandomBytes(std::mt19937& random, size_t num_bytes);
// Valid characters from all planes, without a newline.
std::string RandomUnicode(std::mt19937& random, size_t num_chars);
// Spaces, tabs, no-break and ideographic spaces, U+2581, and a few letters.
std::string RandomWhitespace(std::mt19937& random, size_t num_chars);

void AppendUtf8(char32_t code_point, std::string& text);

}  // namespace octet::test

#endif  // OCTET_TESTS_TEXT_RANDOM_TEXT_H_
