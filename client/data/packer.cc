#include "client/data/packer.h"

#include <algorithm>
#include <utility>

namespace octet {

void Packer::Add(const Example& document, std::deque<Example>& blocks) {
  size_t begin = 0;
  while (begin < document.token_ids.size()) {
    const size_t count = std::min(document.token_ids.size() - begin,
                                  block_len_ - open_.token_ids.size());
    open_.starts.push_back(static_cast<int32_t>(open_.token_ids.size()));
    open_.token_ids.insert(open_.token_ids.end(),
                           document.token_ids.begin() + begin,
                           document.token_ids.begin() + begin + count);
    open_.labels.insert(open_.labels.end(), document.labels.begin() + begin,
                        document.labels.begin() + begin + count);
    begin += count;
    if (open_.token_ids.size() < block_len_) continue;
    blocks.push_back(std::exchange(open_, Example{{}, {}, {}}));
    batch_has_block_ = true;
  }
}

void Packer::EndBatch(std::deque<Example>& blocks) {
  if (keep_short_ && !batch_has_block_ && !open_.token_ids.empty()) {
    blocks.push_back(std::move(open_));
  }
  Clear();
}

void Packer::Clear() {
  open_ = Example{{}, {}, {}};
  batch_has_block_ = false;
}

}  // namespace octet
