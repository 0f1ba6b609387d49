#include "text/chat_template.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"

namespace octet {
namespace {

struct ChatTemplate {
  absl::string_view name;
  absl::string_view before_user;
  absl::string_view after_user;
  bool bos_every_turn;
  bool uses_history;  // false: no system message and only the last exchange
};

constexpr ChatTemplate kTemplates[] = {
    {kDefaultChatTemplate, "[INST] ", " [/INST]", false, true},
    {"mistral-aurora", "[INST] ", " [/INST]", true, true},
    {"vanilla", "", "", false, false},
};

absl::StatusOr<ChatTemplate> FindTemplate(absl::string_view name) {
  for (const ChatTemplate& chat_template : kTemplates) {
    if (chat_template.name == name) return chat_template;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("chat template '", absl::Utf8SafeCHexEscape(name),
                   "' is not known, expected one of: ",
                   absl::StrJoin(ChatTemplateNames(), ", ")));
}

absl::Status CheckRole(const ChatTurn& message, size_t index,
                       absl::string_view expected) {
  if (message.role == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "messages[", index, "].role is '", absl::Utf8SafeCHexEscape(message.role),
      "', expected '", expected, "'"));
}

absl::Status CheckMessages(absl::Span<const ChatTurn> messages) {
  if (messages.empty()) {
    return absl::InvalidArgumentError(
        "messages is empty, expected at least one message from 'user'");
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string& role = messages[i].role;
    if (role != "system" && role != "user" && role != "assistant") {
      return absl::InvalidArgumentError(absl::StrCat(
          "messages[", i, "].role is '", absl::Utf8SafeCHexEscape(role),
          "', expected 'system', 'user' or 'assistant'"));
    }
  }
  const size_t first = messages[0].role == "system" ? 1 : 0;
  if (first == messages.size()) {
    return absl::InvalidArgumentError(
        "messages has only a message from 'system', expected one from 'user' "
        "after it");
  }
  for (size_t i = first; i < messages.size(); ++i) {
    OCTET_RETURN_IF_ERROR(
        CheckRole(messages[i], i, (i - first) % 2 == 0 ? "user" : "assistant"));
  }
  return absl::OkStatus();
}

absl::Status CheckSpecialIds(const Tokenizer& tokenizer) {
  if (tokenizer.bos_id() >= 0 && tokenizer.eos_id() >= 0) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "the tokenizer has no ", tokenizer.bos_id() < 0 ? "beginning" : "end",
      "-of-sequence piece, which chat templates need"));
}

void Append(const std::vector<int32_t>& more, std::vector<int32_t>& ids) {
  ids.insert(ids.end(), more.begin(), more.end());
}

}  // namespace

std::vector<absl::string_view> ChatTemplateNames() {
  std::vector<absl::string_view> names;
  for (const ChatTemplate& chat_template : kTemplates) {
    names.push_back(chat_template.name);
  }
  return names;
}

absl::StatusOr<std::vector<DialogueTurn>> EncodeDialogue(
    const Tokenizer& tokenizer, absl::Span<const ChatTurn> messages,
    absl::string_view template_name) {
  OCTET_ASSIGN_OR_RETURN(const ChatTemplate chat_template,
                         FindTemplate(template_name));
  OCTET_RETURN_IF_ERROR(CheckMessages(messages));
  OCTET_RETURN_IF_ERROR(CheckSpecialIds(tokenizer));
  std::string system;
  if (messages[0].role == "system") {
    system = messages[0].content;
    messages.remove_prefix(1);
  }
  if (!chat_template.uses_history) {
    system.clear();
    messages.remove_prefix((messages.size() - 1) / 2 * 2);
  }
  std::vector<DialogueTurn> turns;
  for (size_t i = 0; i < messages.size(); i += 2) {
    DialogueTurn turn;
    if (i == 0 || chat_template.bos_every_turn) {
      turn.source_ids.push_back(tokenizer.bos_id());
    }
    if (i == 0) Append(tokenizer.Encode(system), turn.source_ids);
    Append(tokenizer.Encode(absl::StrCat(chat_template.before_user,
                                         messages[i].content,
                                         chat_template.after_user)),
           turn.source_ids);
    if (i + 1 < messages.size()) {
      turn.target_ids = tokenizer.Encode(messages[i + 1].content);
      turn.target_ids.push_back(tokenizer.eos_id());
    }
    turns.push_back(std::move(turn));
  }
  return turns;
}

absl::StatusOr<std::vector<int32_t>> RenderChat(
    const Tokenizer& tokenizer, absl::Span<const ChatTurn> messages,
    absl::string_view template_name) {
  OCTET_ASSIGN_OR_RETURN(const std::vector<DialogueTurn> turns,
                         EncodeDialogue(tokenizer, messages, template_name));
  if (messages.back().role != "user") {
    return CheckRole(messages.back(), messages.size() - 1, "user");
  }
  std::vector<int32_t> ids;
  for (const DialogueTurn& turn : turns) {
    Append(turn.source_ids, ids);
    Append(turn.target_ids, ids);
  }
  return ids;
}

}  // namespace octet
