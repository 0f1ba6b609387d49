#include "client/data/example.h"

namespace octet {

void AddToSlot(const Example& example, bool isolate, v1::TrainingSlot& slot) {
  const size_t num_tokens = example.token_ids.size();
  const size_t num_sequences = isolate ? example.starts.size() : 1;
  for (size_t i = 0; i < num_sequences; ++i) {
    const size_t begin = isolate ? example.starts[i] : 0;
    const size_t end =
        i + 1 < num_sequences ? example.starts[i + 1] : num_tokens;
    v1::TrainingSequence* sequence = slot.add_sequences();
    sequence->mutable_token_ids()->Add(example.token_ids.begin() + begin,
                                       example.token_ids.begin() + end);
    sequence->mutable_labels()->Add(example.labels.begin() + begin,
                                    example.labels.begin() + end);
  }
}

}  // namespace octet
