#include "client/train/padding.h"

#include <algorithm>

#include "client/data/example.h"

namespace octet {

int64_t NumTokens(const v1::TrainingSlot& slot) {
  int64_t tokens = 0;
  for (const v1::TrainingSequence& sequence : slot.sequences()) {
    tokens += sequence.token_ids_size();
  }
  return tokens;
}

void PadToLongest(int32_t padding_id, std::vector<v1::TrainingSlot>& rows) {
  int64_t longest = 0;
  for (const v1::TrainingSlot& row : rows) {
    longest = std::max(longest, NumTokens(row));
  }
  for (v1::TrainingSlot& row : rows) {
    v1::TrainingSequence& last =
        *row.mutable_sequences(row.sequences_size() - 1);
    for (int64_t i = NumTokens(row); i < longest; ++i) {
      last.add_token_ids(padding_id);
      last.add_labels(kIgnoredLabel);
    }
  }
}

}  // namespace octet
