#include "client/data/document_encoder.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace octet {

absl::StatusOr<DocumentEncoder> DocumentEncoder::Create(
    EncoderOptions options, const Tokenizer* tokenizer) {
  if (options.cutoff_len < 2) {
    return absl::InvalidArgumentError(absl::StrCat(
        "cutoff_len is ", options.cutoff_len, ", expected at least 2"));
  }
  if (options.reserved_label_len < 1 ||
      options.reserved_label_len > options.cutoff_len) {
    return absl::InvalidArgumentError(
        absl::StrCat("reserved_label_len is ", options.reserved_label_len,
                     ", expected 1 to cutoff_len (", options.cutoff_len, ")"));
  }
  // Says now what would be wrong with every document.
  const ChatTurn probe[] = {{"user", "?"}};
  OCTET_RETURN_IF_ERROR(
      EncodeDialogue(*tokenizer, probe,
                     options.stage == Stage::kSft
                         ? absl::string_view(options.chat_template)
                         : kDefaultChatTemplate)
          .status());
  return DocumentEncoder(std::move(options), tokenizer);
}

absl::StatusOr<EncodedDocument> DocumentEncoder::Encode(
    const Document& document) const {
  if (options_.stage == Stage::kPretrain) return EncodeText(document.text);
  if (document.messages.empty()) {
    return EncodedDocument{Example(), EncodeOutcome::kEmpty};
  }
  return EncodeMessages(document.messages);
}

EncodedDocument DocumentEncoder::EncodeText(const std::string& text) const {
  EncodedDocument encoded;
  std::vector<int32_t>& ids = encoded.example.token_ids;
  ids = tokenizer_.EncodeWithBos(text);
  ids.push_back(tokenizer_.eos_id());
  encoded.example.labels = ids;
  if (options_.ignore_eos) {
    std::replace(encoded.example.labels.begin(), encoded.example.labels.end(),
                 tokenizer_.eos_id(), kIgnoredLabel);
  }
  return encoded;
}

absl::StatusOr<EncodedDocument> DocumentEncoder::EncodeMessages(
    const std::vector<ChatTurn>& messages) const {
  OCTET_ASSIGN_OR_RETURN(
      std::vector<DialogueTurn> turns,
      EncodeDialogue(tokenizer_, messages, options_.chat_template));
  EncodedDocument encoded;
  const size_t cutoff = options_.cutoff_len;
  if (options_.cutoff_rule == CutoffRule::kDropLongSource &&
      turns[0].source_ids.size() >= cutoff) {
    encoded.outcome = EncodeOutcome::kTooLong;
    return encoded;
  }
  std::vector<int32_t>& ids = encoded.example.token_ids;
  std::vector<int32_t>& labels = encoded.example.labels;
  bool cut = false;
  for (DialogueTurn& turn : turns) {
    if (options_.cutoff_rule == CutoffRule::kProportional) {
      cut |= CutProportionally(turn);
    }
    ids.insert(ids.end(), turn.source_ids.begin(), turn.source_ids.end());
    ids.insert(ids.end(), turn.target_ids.begin(), turn.target_ids.end());
    if (options_.train_on_prompt) {
      labels.insert(labels.end(), turn.source_ids.begin(),
                    turn.source_ids.end());
    } else {
      labels.insert(labels.end(), turn.source_ids.size(), kIgnoredLabel);
    }
    labels.insert(labels.end(), turn.target_ids.begin(), turn.target_ids.end());
  }
  if (options_.cutoff_rule != CutoffRule::kKeep && ids.size() > cutoff) {
    ids.resize(cutoff);
    labels.resize(cutoff);
    cut = true;
  }
  if (cut) encoded.outcome = EncodeOutcome::kTruncated;
  return encoded;
}

bool DocumentEncoder::CutProportionally(DialogueTurn& turn) const {
  const size_t source = turn.source_ids.size();
  const size_t target = turn.target_ids.size();
  // In double and cut to an integer, as Python's int(C * (t / (s + t))).
  const double share =
      static_cast<double>(target) / static_cast<double>(source + target);
  const int64_t max_target =
      std::max<int64_t>(static_cast<int64_t>(options_.cutoff_len * share),
                        options_.reserved_label_len);
  const int64_t max_source = options_.cutoff_len - max_target;
  turn.source_ids.resize(std::min<size_t>(source, max_source));
  turn.target_ids.resize(std::min<size_t>(target, max_target));
  return turn.source_ids.size() < source || turn.target_ids.size() < target;
}

}  // namespace octet
