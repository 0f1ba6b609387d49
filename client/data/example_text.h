// An example for people to read.
#ifndef OCTET_CLIENT_DATA_EXAMPLE_TEXT_H_
#define OCTET_CLIENT_DATA_EXAMPLE_TEXT_H_

#include <string>

#include "absl/status/statusor.h"
#include "client/data/example.h"
#include "text/tokenizer.h"

namespace octet {

// As Aurora prints the first example: the ids, their text with the names of
// control pieces, the label ids, and the text of the labels that are learnt:
//
//   input_ids:
//   [1, 733, 16289]
//   inputs:
//   <s> [INST
//   label_ids:
//   [-100, -100, 16289]
//   labels:
//   INST
//
// InvalidArgument for an id that the tokenizer does not have.
absl::StatusOr<std::string> ExampleText(const Example& example,
                                        const Tokenizer& tokenizer);

}  // namespace octet

#endif  // OCTET_CLIENT_DATA_EXAMPLE_TEXT_H_
