// Documents one after another, cut into blocks of one length: what the seeds
// call packing. Not thread-safe.
#ifndef OCTET_CLIENT_DATA_PACKER_H_
#define OCTET_CLIENT_DATA_PACKER_H_

#include <cstdint>
#include <deque>

#include "client/data/example.h"

namespace octet {

class Packer {
 public:
  // `keep_short`: a batch that is shorter than one block is a block by itself
  // (Chinese-Mixtral); else it vanishes (Aurora).
  Packer(int32_t block_len, bool keep_short)
      : block_len_(block_len), keep_short_(keep_short) {}

  // Blocks that are now full go to the end of `blocks`.
  void Add(const Example& document, std::deque<Example>& blocks);
  // The end of a batch: what fills no block is dropped.
  void EndBatch(std::deque<Example>& blocks);
  // As new: what is in no block yet is forgotten.
  void Clear();

 private:
  const size_t block_len_;
  const bool keep_short_;
  Example open_ = {{}, {}, {}};
  bool batch_has_block_ = false;
};

}  // namespace octet

#endif  // OCTET_CLIENT_DATA_PACKER_H_
