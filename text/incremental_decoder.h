// Token ids to text while they come: every Push gives the text that is now
// certain. The bytes of a character that is spread over byte pieces are held
// back until it is whole, so each result is valid UTF-8, and all results put
// together equal Tokenizer::Decode of all ids.
//
// Not thread-safe: one decoder per stream. The tokenizer must outlive it.
#ifndef OCTET_TEXT_INCREMENTAL_DECODER_H_
#define OCTET_TEXT_INCREMENTAL_DECODER_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "text/tokenizer.h"

namespace octet {

class IncrementalDecoder {
 public:
  struct Options {
    // Control pieces such as </s> are invisible, as in Tokenizer::Decode.
    // False shows their names.
    bool skip_special = true;
    // The first id begins a text, so its dummy-prefix space goes. False for
    // text that continues something: a completion after its prompt.
    bool at_start = true;
  };

  explicit IncrementalDecoder(const Tokenizer& tokenizer)
      : IncrementalDecoder(tokenizer, Options()) {}
  IncrementalDecoder(const Tokenizer& tokenizer, Options options)
      : tokenizer_(tokenizer), options_(options), at_start_(options.at_start) {}

  // The newly certain text, which may be empty. An id out of range is an
  // InvalidArgument that names it, and changes nothing.
  absl::StatusOr<std::string> Push(int32_t id);
  // The same, appended to `text`.
  absl::Status Push(int32_t id, std::string& text);

  // What was held back, one U+FFFD for each byte that begins no character.
  // The decoder is then as new.
  std::string Finish();
  void Finish(std::string& text);

 private:
  void PushByte(char byte, std::string& text);
  void FlushBytes(std::string& text);
  void Append(absl::string_view piece, std::string& text);

  const Tokenizer& tokenizer_;
  const Options options_;
  bool at_start_;      // the next piece may lose its leading space
  std::string bytes_;  // a proper prefix of a character, or empty
};

}  // namespace octet

#endif  // OCTET_TEXT_INCREMENTAL_DECODER_H_
