// Chat messages to token ids.
//
//   mistral   The official Mixtral form (the default):
//             <s> [INST] q [/INST] answer</s> [INST] follow-up [/INST]
//   vanilla   The bare last user message after <s>: no history, no system
//             message. For base models.
//   alpaca, default, llama2, vicuna, zephyr, chatml
//             Those vendors' forms, with their system message where the form
//             has one and the messages do not.
//
// <s> stands once, llama2 has it before every turn. NAME-aurora is the form
// with <s> before every turn, as Aurora trained ("mistral-aurora").
//
// Each part (system text, question with its frame, answer) is tokenised by
// itself, so each has its own dummy-prefix space; </s> follows each answer.
// In the mistral forms a system message stands once, after the first <s> and
// outside [INST], as in Aurora. "[INST]" is ordinary text, not a control piece.
// chatml's <|im_start|> and <|im_end|> are pieces where the vocabulary has
// them; else they are text, and </s> closes an answer instead of <|im_end|>.
//
// Messages are an optional leading `system`, then `user` and `assistant` in
// turns, `user` first. Pure and thread-safe.
#ifndef OCTET_TEXT_CHAT_TEMPLATE_H_
#define OCTET_TEXT_CHAT_TEMPLATE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "text/tokenizer.h"

namespace octet {

inline constexpr absl::string_view kDefaultChatTemplate = "mistral";

struct ChatTurn {
  std::string role;  // "system", "user" or "assistant"
  std::string content;
};

// One exchange: in training the loss is on the target only.
struct DialogueTurn {
  std::vector<int32_t> source_ids;  // what the model is given
  // What it answers, with EOS (chatml: <|im_end|>); empty where the answer is
  // still to come.
  std::vector<int32_t> target_ids;
};

// The names that the functions below know.
std::vector<absl::string_view> ChatTemplateNames();

// Ids of a prompt that awaits an answer, so the last message is from `user`.
// InvalidArgument names the message (`messages[i].role`) or the template that
// is wrong, or says that the model has no BOS or EOS.
absl::StatusOr<std::vector<int32_t>> RenderChat(
    const Tokenizer& tokenizer, absl::Span<const ChatTurn> messages,
    absl::string_view template_name);

// The exchanges one by one; the last answer may be missing. Put together they
// are the whole sequence. Errors as for RenderChat.
absl::StatusOr<std::vector<DialogueTurn>> EncodeDialogue(
    const Tokenizer& tokenizer, absl::Span<const ChatTurn> messages,
    absl::string_view template_name);

}  // namespace octet

#endif  // OCTET_TEXT_CHAT_TEMPLATE_H_
