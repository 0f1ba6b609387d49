#include "worker/model/training_batch.h"

#include <algorithm>
#include <cstdlib>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace octet {
namespace {

constexpr int64_t kMaxSlotTokens = int64_t{1} << 24;  // SlotMap::RowKey

absl::Status CheckDocument(const TrainingDocument& document,
                           const std::string& where,
                           const ModelConfig& config) {
  const int64_t length = static_cast<int64_t>(document.token_ids.size());
  if (length < 1 || length > config.max_position) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, " has ", length, " tokens, expected 1 to ",
                     config.max_position, " (max_position_embeddings)"));
  }
  if (document.labels.size() != document.token_ids.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, " has ", document.labels.size(),
                     " labels, expected one for each of ", length, " tokens"));
  }
  for (int64_t i = 0; i < length; ++i) {
    const int32_t id = document.token_ids[i], label = document.labels[i];
    if (id < 0 || id >= config.vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ", position ", i, ": token ", id,
                       ", expected 0 to ", config.vocab_size - 1));
    }
    if (label != id && label != kIgnoredLabel) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ", position ", i, ": label ", label,
                       ", expected the token ", id, " or ", kIgnoredLabel));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckRoutes(absl::Span<const int32_t> routes,
                         const std::string& where, int64_t num_tokens,
                         const ModelConfig& config) {
  const int k = config.top_k;
  if (static_cast<int64_t>(routes.size()) != num_tokens * k) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, " have ", routes.size(), " experts, expected ",
                     num_tokens * k, " (", k, " for each token)"));
  }
  for (size_t i = 0; i < routes.size(); ++i) {
    const int32_t of_token = routes[i / k * k];
    if (routes[i] == kNoRoute && of_token == kNoRoute) continue;
    if (of_token == kNoRoute) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ", token ", i / k, ": expert ", routes[i],
                       " beside ", kNoRoute, ", expected ", k, " times ",
                       kNoRoute, " where the router is to choose"));
    }
    if (routes[i] < 0 || routes[i] >= config.num_experts) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ", token ", i / k, ": expert ", routes[i],
                       ", expected 0 to ", config.num_experts - 1));
    }
    const auto first = routes.begin() + i / k * k, here = routes.begin() + i;
    if (std::find(first, here, *here) != here) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ", token ", i / k, ": expert ", routes[i],
                       " twice, expected different ones"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSlot(const TrainingSlotInput& slot, const std::string& name,
                       bool routed, const ModelConfig& config) {
  if (slot.documents.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " has no documents, expected at least one"));
  }
  for (size_t d = 0; d < slot.documents.size(); ++d) {
    OCTET_RETURN_IF_ERROR(CheckDocument(
        slot.documents[d], absl::StrCat(name, ", document ", d), config));
  }
  if (slot.num_tokens() >= kMaxSlotTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " has ", slot.num_tokens(),
                     " tokens, expected less than ", kMaxSlotTokens));
  }
  const size_t num_layers = routed ? config.num_layers : 0;
  if (slot.layer_routes.size() != num_layers) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, " has routes of ", slot.layer_routes.size(),
                     " layers, expected ", num_layers, " as the first slot"));
  }
  for (size_t layer = 0; layer < num_layers; ++layer) {
    OCTET_RETURN_IF_ERROR(
        CheckRoutes(slot.layer_routes[layer],
                    absl::StrCat(name, ", routes of layer ", layer),
                    slot.num_tokens(), config));
  }
  return absl::OkStatus();
}

// One slot of this rank, whose rows begin at `row`.
void AppendSlot(const TrainingSlotInput& slot, int64_t index,
                TrainingLayout& layout) {
  const SlotMap& map = layout.slot_map;
  const int64_t first_row = layout.num_tokens();
  const int64_t first_label = static_cast<int64_t>(layout.label_rows.size());
  for (const TrainingDocument& document : slot.documents) {
    const size_t length = document.token_ids.size();
    for (size_t i = 0; i + 1 < length; ++i) {
      if (document.labels[i + 1] == kIgnoredLabel) continue;
      layout.label_rows.push_back(
          static_cast<int32_t>(layout.num_tokens() + i));
      layout.label_ids.push_back(document.labels[i + 1]);
    }
    layout.token_ids.insert(layout.token_ids.end(), document.token_ids.begin(),
                            document.token_ids.end());
    layout.document_begin.push_back(layout.num_tokens());
  }
  const int64_t sink_slot = map.first_sink_slot + index;
  layout.slot_rows.push_back({sink_slot, first_row, layout.num_tokens()});
  layout.label_slots.push_back(
      {sink_slot, first_label, static_cast<int64_t>(layout.label_rows.size())});
  for (int64_t i = map.token_begin[index]; i < map.token_begin[index + 1];
       ++i) {
    layout.row_keys.push_back(map.RowKey(index, i));
  }
  layout.layer_routes.resize(slot.layer_routes.size());
  for (size_t layer = 0; layer < slot.layer_routes.size(); ++layer) {
    layout.layer_routes[layer].insert(layout.layer_routes[layer].end(),
                                      slot.layer_routes[layer].begin(),
                                      slot.layer_routes[layer].end());
  }
}

}  // namespace

int64_t TrainingSlotInput::num_tokens() const {
  int64_t total = 0;
  for (const TrainingDocument& document : documents) {
    total += static_cast<int64_t>(document.token_ids.size());
  }
  return total;
}

int64_t TrainingSlotInput::num_labels() const {
  int64_t total = 0;
  for (const TrainingDocument& document : documents) {
    if (document.labels.empty()) continue;
    total +=
        std::count_if(document.labels.begin() + 1, document.labels.end(),
                      [](int32_t label) { return label != kIgnoredLabel; });
  }
  return total;
}

std::vector<int64_t> SplitSlots(absl::Span<const int64_t> slot_tokens,
                                int num_ranks) {
  std::vector<int64_t> begin = {0};  // tokens before each slot
  for (int64_t tokens : slot_tokens) begin.push_back(begin.back() + tokens);
  std::vector<int64_t> rank_slots = {0};
  size_t slot = 0;
  for (int rank = 0; rank < num_ranks; ++rank) {
    // In units of 1 / R tokens.
    const int64_t target = begin.back() * (rank + 1);
    while (slot < slot_tokens.size() &&
           std::abs(begin[slot + 1] * num_ranks - target) <=
               std::abs(begin[slot] * num_ranks - target)) {
      ++slot;
    }
    rank_slots.push_back(static_cast<int64_t>(slot));
  }
  rank_slots.back() = static_cast<int64_t>(slot_tokens.size());
  return rank_slots;
}

absl::Status CheckTrainingBatch(const TrainingBatch& batch,
                                const ModelConfig& config) {
  if (batch.slots.empty()) {
    return absl::InvalidArgumentError(
        "slots: there are none, expected at least one");
  }
  const bool routed = !batch.slots[0].layer_routes.empty();
  int64_t num_tokens = 0;
  for (size_t s = 0; s < batch.slots.size(); ++s) {
    OCTET_RETURN_IF_ERROR(
        CheckSlot(batch.slots[s], absl::StrCat("slot ", s), routed, config));
    num_tokens += batch.slots[s].num_tokens();
  }
  const int64_t max_tokens = std::numeric_limits<int32_t>::max() / config.top_k;
  if (num_tokens > max_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("slots: ", num_tokens, " tokens in all, expected at most ",
                     max_tokens));
  }
  return absl::OkStatus();
}

TrainingLayout LayOut(const TrainingBatch& batch, int rank) {
  TrainingLayout layout;
  layout.rank_slots = batch.rank_slots;
  layout.first_slot = batch.rank_slots[rank];
  layout.slot_map.first_sink_slot = batch.first_sink_slot;
  layout.slot_map.first_run_slot = batch.first_run_slot;
  layout.label_begin = {0};
  std::vector<int64_t>& token_begin = layout.slot_map.token_begin;
  for (const TrainingSlotInput& slot : batch.slots) {
    token_begin.push_back(token_begin.back() + slot.num_tokens());
    layout.label_begin.push_back(layout.label_begin.back() + slot.num_labels());
  }
  for (size_t r = 0; r + 1 < batch.rank_slots.size(); ++r) {
    layout.rank_tokens.push_back(token_begin[batch.rank_slots[r + 1]] -
                                 token_begin[batch.rank_slots[r]]);
  }
  for (int64_t s = batch.rank_slots[rank]; s < batch.rank_slots[rank + 1];
       ++s) {
    AppendSlot(batch.slots[s], s, layout);
  }
  return layout;
}

}  // namespace octet
