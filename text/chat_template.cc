#include "text/chat_template.h"

#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "text/chat_form.h"

namespace octet {
namespace {

absl::StatusOr<ChatForm> FindForm(absl::string_view name) {
  for (const ChatForm& form : ChatForms()) {
    if (form.name == name) return form;
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

// Makes ids of parts: text waits until a piece or the end of the part comes.
class PartWriter {
 public:
  PartWriter(const Tokenizer& tokenizer, std::vector<int32_t>& ids)
      : tokenizer_(tokenizer), ids_(ids) {}

  void Write(ChatPart part, absl::string_view content) {
    for (const absl::string_view element : part) {
      if (element == "</s>") {
        WritePiece(tokenizer_.eos_id());
      } else if (const auto piece = MarkerId(tokenizer_, element)) {
        WritePiece(*piece);
      } else {
        text_ += Fill(element, content);
      }
    }
    FlushText();
  }

  // The id of a marker that the vocabulary has as a piece of its own.
  static std::optional<int32_t> MarkerId(const Tokenizer& tokenizer,
                                         absl::string_view element) {
    if (!absl::StartsWith(element, "<|")) return std::nullopt;
    return tokenizer.PieceToId(element);
  }
  static std::string Fill(absl::string_view element,
                          absl::string_view content) {
    const size_t hole = element.find("{}");
    if (hole == element.npos) return std::string(element);
    return absl::StrCat(element.substr(0, hole), content,
                        element.substr(hole + 2));
  }

 private:
  void WritePiece(int32_t id) {
    FlushText();
    ids_.push_back(id);
  }
  void FlushText() {
    const std::vector<int32_t> ids = tokenizer_.Encode(text_);
    ids_.insert(ids_.end(), ids.begin(), ids.end());
    text_.clear();
  }

  const Tokenizer& tokenizer_;
  std::vector<int32_t>& ids_;
  std::string text_;
};

std::vector<int32_t> EncodeSource(const Tokenizer& tokenizer,
                                  const ChatForm& form, bool first,
                                  absl::string_view system,
                                  const std::string& content) {
  std::vector<int32_t> ids;
  PartWriter writer(tokenizer, ids);
  if (!first) writer.Write(form.between, "");
  if (first || form.bos_every_turn) ids.push_back(tokenizer.bos_id());
  std::string head;
  if (first && !system.empty()) {
    if (form.system_in_user) {
      head = PartWriter::Fill(form.system[0], system);
    } else {
      writer.Write(form.system, system);
      writer.Write(form.between, "");
    }
  }
  writer.Write(form.user, head + content);
  return ids;
}

}  // namespace

std::vector<absl::string_view> ChatTemplateNames() {
  std::vector<absl::string_view> names;
  for (const ChatForm& form : ChatForms()) names.push_back(form.name);
  return names;
}

absl::StatusOr<std::vector<DialogueTurn>> EncodeDialogue(
    const Tokenizer& tokenizer, absl::Span<const ChatTurn> messages,
    absl::string_view template_name) {
  OCTET_ASSIGN_OR_RETURN(const ChatForm form, FindForm(template_name));
  OCTET_RETURN_IF_ERROR(CheckMessages(messages));
  OCTET_RETURN_IF_ERROR(CheckSpecialIds(tokenizer));
  absl::string_view system;
  if (messages[0].role == "system") {
    system = messages[0].content;
    messages.remove_prefix(1);
  }
  if (system.empty()) system = form.default_system;
  if (!form.uses_history) {
    system = "";
    messages.remove_prefix((messages.size() - 1) / 2 * 2);
  }
  const int32_t turn_end = PartWriter::MarkerId(tokenizer, form.turn_end)
                               .value_or(tokenizer.eos_id());
  std::vector<DialogueTurn> turns;
  for (size_t i = 0; i < messages.size(); i += 2) {
    DialogueTurn turn;
    turn.source_ids = EncodeSource(tokenizer, form, /*first=*/i == 0, system,
                                   messages[i].content);
    if (i + 1 < messages.size()) {
      turn.target_ids = tokenizer.Encode(messages[i + 1].content);
      turn.target_ids.push_back(turn_end);
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
    ids.insert(ids.end(), turn.source_ids.begin(), turn.source_ids.end());
    ids.insert(ids.end(), turn.target_ids.begin(), turn.target_ids.end());
  }
  return ids;
}

}  // namespace octet
