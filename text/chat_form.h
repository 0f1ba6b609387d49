// The forms that the chat templates are made of. Internal to chat_template.cc
// and its tests of the table.
#ifndef OCTET_TEXT_CHAT_FORM_H_
#define OCTET_TEXT_CHAT_FORM_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace octet {

// A part is a list of elements, in this notation:
//   "</s>"     the end-of-sequence id
//   "<|...|>"  that control or user-defined piece where the vocabulary has it,
//              else its text
//   others     text, with the content in place of "{}"
// Neighbours that are text are tokenised together.
using ChatPart = absl::Span<const absl::string_view>;

struct ChatForm {
  absl::string_view name;
  ChatPart system;             // after the first <s>; not there without a text
  ChatPart between;            // after `system`, and before each later `user`
  ChatPart user;               // up to where the answer begins
  absl::string_view turn_end;  // closes the answer; </s> where it is no piece
  absl::string_view default_system;  // when the messages have none
  bool system_in_user;  // `system` is the head of the first user's content
  bool bos_every_turn;
  bool uses_history;  // false: no system message and only the last exchange
};

// Every form by its name; those that differ in BOS only have two names.
const std::vector<ChatForm>& ChatForms();

}  // namespace octet

#endif  // OCTET_TEXT_CHAT_FORM_H_
