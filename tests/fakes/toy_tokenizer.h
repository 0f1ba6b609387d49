// A SentencePiece model of 3 control pieces, 256 bytes and a few words.
#ifndef OCTET_TESTS_FAKES_TOY_TOKENIZER_H_
#define OCTET_TESTS_FAKES_TOY_TOKENIZER_H_

#include <memory>
#include <string>

#include "text/tokenizer.h"

namespace octet::test {

// The bytes of the `.model` file.
std::string ToyTokenizerBytes();
std::unique_ptr<Tokenizer> ToyTokenizer();
// Writes the file into `folder` and returns its path.
std::string WriteToyTokenizer(const std::string& folder);

}  // namespace octet::test

#endif  // OCTET_TESTS_FAKES_TOY_TOKENIZER_H_
