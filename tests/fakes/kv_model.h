// A stand-in for a rank's KV cache and for the model: it remembers which token
// at which position each block slot holds, and "computes" a hash of all tokens
// that a sequence can see through its block table. A wrong block table, a
// block written by two sequences, a stale prefix or a skipped position change
// the hash, and with it every later token.
#ifndef OCTET_TESTS_FAKES_KV_MODEL_H_
#define OCTET_TESTS_FAKES_KV_MODEL_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace octet::test {

// What the model knows after `tokens`; the oracle that uses no blocks.
uint64_t PrefixHash(absl::Span<const int32_t> tokens);

class KvModel {
 public:
  KvModel(int32_t num_blocks, int32_t block_tokens);

  // Writes `tokens` at positions from `start` on through the block table and
  // returns, for each of them, the hash of everything up to and including it
  // as read back from the blocks. An error names a slot that holds another
  // position than the table promises.
  absl::StatusOr<std::vector<uint64_t>> Run(absl::Span<const int32_t> block_ids,
                                            int32_t start,
                                            absl::Span<const int32_t> tokens);

 private:
  struct Slot {
    int32_t position = -1;
    int32_t token = -1;
  };
  const int32_t block_tokens_;
  std::vector<Slot> slots_;  // [num_blocks * block_tokens]
};

}  // namespace octet::test

#endif  // OCTET_TESTS_FAKES_KV_MODEL_H_
