#include "client/data/document.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "client/data/row_reader.h"

namespace octet {
namespace {

using nlohmann::json;

constexpr size_t kMaxListedFields = 12;  // in an error

absl::Status WrongType(absl::string_view field, const json& value,
                       absl::string_view expected) {
  return absl::InvalidArgumentError(
      absl::StrCat("field '", absl::Utf8SafeCHexEscape(field), "' is ",
                   JsonTypeName(value), ", expected ", expected));
}

// The string of a field; null and, when it may be absent, nothing are "".
absl::StatusOr<std::string> StringField(const json& fields,
                                        const std::string& name,
                                        bool required) {
  if (name.empty() && required) {
    return absl::InvalidArgumentError(
        "the data set's columns name no field for the prompt or the response");
  }
  if (name.empty()) return std::string();
  const auto found = fields.find(name);
  if (found == fields.end()) {
    if (!required) return std::string();
    std::vector<std::string> names;
    for (const auto& item : fields.items()) {
      if (names.size() == kMaxListedFields) {
        names.push_back("...");
        break;
      }
      names.push_back(item.key());
    }
    return absl::InvalidArgumentError(absl::StrCat(
        "the row has no field '", absl::Utf8SafeCHexEscape(name),
        "', it has: ", absl::Utf8SafeCHexEscape(absl::StrJoin(names, ", "))));
  }
  if (found->is_null()) return std::string();
  if (!found->is_string()) return WrongType(name, *found, "a string");
  return found->get_ref<const std::string&>();
}

absl::Status AddHistory(const json& fields, const std::string& name,
                        std::vector<ChatTurn>& messages) {
  const auto found = name.empty() ? fields.end() : fields.find(name);
  if (found == fields.end() || found->is_null()) return absl::OkStatus();
  if (!found->is_array()) {
    return WrongType(name, *found, "a list of [question, answer]");
  }
  for (size_t i = 0; i < found->size(); ++i) {
    const json& pair = (*found)[i];
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() ||
        !pair[1].is_string()) {
      return absl::InvalidArgumentError(
          absl::StrCat("field '", name, "[", i,
                       "]' is not a pair of strings, expected [question, "
                       "answer]"));
    }
    messages.push_back({"user", pair[0].get_ref<const std::string&>()});
    messages.push_back({"assistant", pair[1].get_ref<const std::string&>()});
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ChatTurn>> AlpacaMessages(
    const json& fields, const ColumnNames& columns) {
  OCTET_ASSIGN_OR_RETURN(std::string question,
                         StringField(fields, columns.prompt, true));
  OCTET_ASSIGN_OR_RETURN(const std::string input,
                         StringField(fields, columns.query, false));
  OCTET_ASSIGN_OR_RETURN(std::string answer,
                         StringField(fields, columns.response, true));
  if (!input.empty()) absl::StrAppend(&question, "\n", input);
  std::vector<ChatTurn> messages;
  OCTET_RETURN_IF_ERROR(AddHistory(fields, columns.history, messages));
  if (question.empty() || answer.empty()) return std::vector<ChatTurn>();
  messages.push_back({"user", std::move(question)});
  messages.push_back({"assistant", std::move(answer)});
  return messages;
}

// The messages of a list with their own roles.
absl::StatusOr<std::vector<ChatTurn>> ListedMessages(
    const json& fields, const ColumnNames& columns) {
  const auto found = fields.find(columns.messages);
  if (found == fields.end()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the row has no field '", columns.messages, "', a list of messages"));
  }
  if (!found->is_array()) {
    return WrongType(columns.messages, *found, "a list of messages");
  }
  std::vector<ChatTurn> messages;
  for (size_t i = 0; i < found->size(); ++i) {
    const json& message = (*found)[i];
    ChatTurn turn;
    for (auto [name, text] : {std::pair(&columns.role, &turn.role),
                              std::pair(&columns.content, &turn.content)}) {
      const auto value =
          message.is_object() ? message.find(*name) : message.end();
      if (value == message.end() || !value->is_string()) {
        return absl::InvalidArgumentError(
            absl::StrCat("field '", columns.messages, "[", i, "].", *name,
                         "' is not a string, expected a message with '",
                         columns.role, "' and '", columns.content, "'"));
      }
      *text = value->get_ref<const std::string&>();
    }
    messages.push_back(std::move(turn));
  }
  return messages;
}

// Renames the roles to `user` and `assistant`; `offset` is the index of
// messages[0] in the row.
absl::Status NameSides(const ColumnNames& columns, size_t offset,
                       std::vector<ChatTurn>& messages) {
  std::string sides[2];  // who asks and who answers; empty: not seen yet
  constexpr absl::string_view kToolRoles[2] = {"observation", "function_call"};
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string role = messages[i].role;
    messages[i].role = i % 2 == 0 ? "user" : "assistant";
    if (role == kToolRoles[i % 2]) continue;
    std::string& side = sides[i % 2];
    const std::string& other = sides[1 - i % 2];
    if (side.empty() && role != other) side = role;
    if (role == side) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "field '", columns.messages, "[", i + offset, "].", columns.role,
        "' is '", absl::Utf8SafeCHexEscape(role), "', expected ",
        side.empty() ? "another role than " : "", "'",
        absl::Utf8SafeCHexEscape(side.empty() ? other : side), "'"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ChatTurn>> ShareGptMessages(
    const json& fields, const ColumnNames& columns, std::string& system) {
  OCTET_ASSIGN_OR_RETURN(std::vector<ChatTurn> messages,
                         ListedMessages(fields, columns));
  size_t offset = 0;
  if (!messages.empty() && messages[0].role == "system") {
    if (system.empty()) system = std::move(messages[0].content);
    messages.erase(messages.begin());
    offset = 1;
  }
  if (messages.size() % 2 != 0) messages.pop_back();
  OCTET_RETURN_IF_ERROR(NameSides(columns, offset, messages));
  if (messages.empty() || messages.back().content.empty() ||
      messages[messages.size() - 2].content.empty()) {
    return std::vector<ChatTurn>();
  }
  return messages;
}

}  // namespace

absl::StatusOr<Document> MakeDocument(const json& fields,
                                      const DatasetSpec& spec, Stage stage) {
  Document document;
  if (stage == Stage::kPretrain) {
    OCTET_ASSIGN_OR_RETURN(document.text,
                           StringField(fields, spec.columns.prompt, true));
    return document;
  }
  OCTET_ASSIGN_OR_RETURN(std::string system,
                         StringField(fields, spec.columns.system, false));
  if (spec.format == RowFormat::kAlpaca) {
    OCTET_ASSIGN_OR_RETURN(document.messages,
                           AlpacaMessages(fields, spec.columns));
  } else {
    OCTET_ASSIGN_OR_RETURN(document.messages,
                           ShareGptMessages(fields, spec.columns, system));
  }
  if (!system.empty() && !document.messages.empty()) {
    document.messages.insert(document.messages.begin(),
                             {"system", std::move(system)});
  }
  return document;
}

}  // namespace octet
