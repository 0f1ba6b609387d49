#include "client/data/example_text.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "text/incremental_decoder.h"

namespace octet {
namespace {

absl::StatusOr<std::string> Decode(const std::vector<int32_t>& ids,
                                   const Tokenizer& tokenizer) {
  IncrementalDecoder::Options options;
  options.skip_special = false;
  IncrementalDecoder decoder(tokenizer, options);
  std::string text;
  for (const int32_t id : ids) {
    OCTET_RETURN_IF_ERROR(decoder.Push(id, text));
  }
  decoder.Finish(text);
  return text;
}

}  // namespace

absl::StatusOr<std::string> ExampleText(const Example& example,
                                        const Tokenizer& tokenizer) {
  std::vector<int32_t> learnt;
  std::copy_if(example.labels.begin(), example.labels.end(),
               std::back_inserter(learnt),
               [](int32_t label) { return label != kIgnoredLabel; });
  OCTET_ASSIGN_OR_RETURN(const std::string inputs,
                         Decode(example.token_ids, tokenizer));
  OCTET_ASSIGN_OR_RETURN(const std::string labels, Decode(learnt, tokenizer));
  return absl::StrCat("input_ids:\n[", absl::StrJoin(example.token_ids, ", "),
                      "]\ninputs:\n", inputs, "\nlabel_ids:\n[",
                      absl::StrJoin(example.labels, ", "), "]\nlabels:\n",
                      labels, "\n");
}

}  // namespace octet
