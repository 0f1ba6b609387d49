#include "tests/fakes/toy_tokenizer.h"

#include <fstream>

#include "base/logging.h"
#include "tests/text/model_builder.h"

namespace octet::test {

std::string ToyTokenizerBytes() {
  ModelBuilder builder;
  builder.AddBytes();
  float score = 0;
  for (const char* piece :
       {"\xE2\x96\x81", "a", "b", "c", "d", "e", "f", "\xC3\xA9",
        "\xE2\x96\x81"
        "a",
        "\xE2\x96\x81"
        "be",
        "cd", "ef",
        "\xE2\x96\x81"
        "cafe",
        "."}) {
    builder.Add(piece, score -= 1);
  }
  return builder.Build();
}

std::unique_ptr<Tokenizer> ToyTokenizer() {
  auto tokenizer = Tokenizer::Parse(ToyTokenizerBytes(), "toy.model");
  OCTET_CHECK(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::string WriteToyTokenizer(const std::string& folder) {
  const std::string path = folder + "/toy.model";
  std::ofstream(path, std::ios::binary) << ToyTokenizerBytes();
  return path;
}

}  // namespace octet::test
