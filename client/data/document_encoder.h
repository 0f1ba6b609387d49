// Documents to token ids and labels.
//
//   kPretrain  <s> text </s>; every token is learnt.
//   kSft       the template's exchanges; answers with their </s> are learnt.
//
// How long dialogues are cut, with the cut-off C in tokens:
//   kProportional    Aurora's. An exchange of s and t tokens keeps the first
//                    max(int(C t / (s + t)), reserved_label_len) of its answer
//                    and of its question what that leaves of C; the whole is
//                    then cut to C.
//   kDropLongSource  Chinese-Mixtral's. Without an example when the first
//                    question has C tokens or more; the whole is cut to C.
//   kKeep            not at all: packing cuts into blocks.
//
// Immutable and thread-safe.
#ifndef OCTET_CLIENT_DATA_DOCUMENT_ENCODER_H_
#define OCTET_CLIENT_DATA_DOCUMENT_ENCODER_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "client/data/document.h"
#include "client/data/example.h"
#include "text/tokenizer.h"

namespace octet {

enum class CutoffRule { kProportional, kDropLongSource, kKeep };

struct EncoderOptions {
  Stage stage = Stage::kSft;
  std::string chat_template = std::string(kDefaultChatTemplate);
  CutoffRule cutoff_rule = CutoffRule::kProportional;
  int32_t cutoff_len = 1024;       // C, at least 2
  int32_t reserved_label_len = 1;  // 1 to C
  bool train_on_prompt = false;    // questions are learnt too
  // kPretrain: </s> is never learnt, as Aurora has it (its padding is </s>).
  bool ignore_eos = false;
};

enum class EncodeOutcome { kWhole, kTruncated, kEmpty, kTooLong };

struct EncodedDocument {
  Example example;  // without tokens for kEmpty and kTooLong
  EncodeOutcome outcome = EncodeOutcome::kWhole;
};

class DocumentEncoder {
 public:
  // `tokenizer` must outlive this object. InvalidArgument for an option out of
  // range, a template that is not known, or a tokenizer without <s> or </s>.
  static absl::StatusOr<DocumentEncoder> Create(EncoderOptions options,
                                                const Tokenizer* tokenizer);

  absl::StatusOr<EncodedDocument> Encode(const Document& document) const;

 private:
  DocumentEncoder(EncoderOptions options, const Tokenizer* tokenizer)
      : options_(std::move(options)), tokenizer_(*tokenizer) {}

  EncodedDocument EncodeText(const std::string& text) const;
  absl::StatusOr<EncodedDocument> EncodeMessages(
      const std::vector<ChatTurn>& messages) const;
  // Cuts one exchange by kProportional; true when there was something to cut.
  bool CutProportionally(DialogueTurn& turn) const;

  EncoderOptions options_;
  const Tokenizer& tokenizer_;
};

}  // namespace octet

#endif  // OCTET_CLIENT_DATA_DOCUMENT_ENCODER_H_
