// What a row says, before it is tokenised.
#ifndef OCTET_CLIENT_DATA_DOCUMENT_H_
#define OCTET_CLIENT_DATA_DOCUMENT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/data/dataset_spec.h"
#include "nlohmann/json.hpp"
#include "text/chat_template.h"

namespace octet {

// Pre-training on plain text, or supervised fine-tuning on dialogues.
enum class Stage { kPretrain, kSft };

struct Document {
  int dataset = 0;   // which of the data sets it is from
  std::string text;  // kPretrain
  // kSft: perhaps `system`, then `user` and `assistant` in turns, at least one
  // of each. Empty where the row has no last question or no last answer: such
  // rows are counted and give no example, as in Aurora.
  std::vector<ChatTurn> messages;
};

// `fields` is an object. InvalidArgument names the field that is wrong, what it
// is and what was expected.
//
// ShareGPT: a first message whose role is `system` is the system message (of
// the row, where no system column is). After it two roles take turns, whatever
// their names; `observation` may ask in place of the first and `function_call`
// answer in place of the second. A last question without answer is left off.
absl::StatusOr<Document> MakeDocument(const nlohmann::json& fields,
                                      const DatasetSpec& spec, Stage stage);

}  // namespace octet

#endif  // OCTET_CLIENT_DATA_DOCUMENT_H_
