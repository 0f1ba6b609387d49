#include "tests/fakes/kv_model.h"

#include "absl/strings/str_cat.h"

namespace octet::test {
namespace {

constexpr uint64_t kEmptyHash = 0x9e3779b97f4a7c15u;

uint64_t Extend(uint64_t hash, int32_t token) {
  hash ^= static_cast<uint64_t>(token) + 0x2545f4914f6cdd1du;
  hash *= 0xff51afd7ed558ccdu;
  return hash ^ (hash >> 29);
}

}  // namespace

uint64_t PrefixHash(absl::Span<const int32_t> tokens) {
  uint64_t hash = kEmptyHash;
  for (int32_t token : tokens) hash = Extend(hash, token);
  return hash;
}

KvModel::KvModel(int32_t num_blocks, int32_t block_tokens)
    : block_tokens_(block_tokens),
      slots_(static_cast<size_t>(num_blocks) * block_tokens) {}

absl::StatusOr<std::vector<uint64_t>> KvModel::Run(
    absl::Span<const int32_t> block_ids, int32_t start,
    absl::Span<const int32_t> tokens) {
  const int32_t end = start + static_cast<int32_t>(tokens.size());
  if (static_cast<int64_t>(block_ids.size()) * block_tokens_ < end) {
    return absl::InternalError(absl::StrCat("block table of ", block_ids.size(),
                                            " blocks for ", end, " tokens"));
  }
  const auto slot_at = [&](int32_t position) {
    return static_cast<size_t>(block_ids[position / block_tokens_]) *
               block_tokens_ +
           position % block_tokens_;
  };
  for (int32_t position = start; position < end; ++position) {
    const size_t slot = slot_at(position);
    if (slot >= slots_.size()) {
      return absl::InternalError(
          absl::StrCat("no block ", block_ids[position / block_tokens_]));
    }
    slots_[slot] = {position, tokens[position - start]};
  }
  std::vector<uint64_t> hashes;
  uint64_t hash = kEmptyHash;
  for (int32_t position = 0; position < end; ++position) {
    const Slot& slot = slots_[slot_at(position)];
    if (slot.position != position) {
      return absl::InternalError(absl::StrCat(
          "slot of position ", position, " holds position ", slot.position));
    }
    hash = Extend(hash, slot.token);
    if (position >= start) hashes.push_back(hash);
  }
  return hashes;
}

}  // namespace octet::test
