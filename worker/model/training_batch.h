// What one ForwardBackward or Forward of the whole group computes, the same on
// every rank, and where this rank's part of it lies.
//
// A slot is one microbatch: a packed row of one or more documents. Slots go to
// ranks in contiguous ranges. A document's attention and positions begin anew,
// so its bits do not depend on the documents beside it.
#ifndef OCTET_WORKER_MODEL_TRAINING_BATCH_H_
#define OCTET_WORKER_MODEL_TRAINING_BATCH_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/model/config.h"
#include "worker/nn/gradient_sink.h"
#include "worker/nn/slot_map.h"

namespace octet {

// A label that is not learnt.
inline constexpr int32_t kIgnoredLabel = -100;

// In replayed routes, where there is none.
inline constexpr int32_t kNoRoute = -1;

// One sequence. The label of a position is the token itself, or kIgnoredLabel.
// The loss of a label belongs to the position before it, so the first label is
// never learnt. The spans belong to the caller.
struct TrainingDocument {
  absl::Span<const int32_t> token_ids;
  absl::Span<const int32_t> labels;  // as many as token_ids
};

struct TrainingSlotInput {
  std::vector<TrainingDocument> documents;
  // Replayed routes: none, or L spans of [tokens of the slot, K] expert ids,
  // used instead of the router's choice. The K weights of a token are the
  // softmax over those experts' logits. K times kNoRoute: the router's choice
  // for this token. All slots of a batch have routes, or none.
  std::vector<absl::Span<const int32_t>> layer_routes;

  int64_t num_tokens() const;
  int64_t num_labels() const;  // that are learnt
};

struct TrainingBatch {
  std::vector<TrainingSlotInput> slots;  // [S], of all ranks
  // Rank r computes the slots [rank_slots[r], rank_slots[r + 1]).
  std::vector<int64_t> rank_slots;  // [R + 1]
  // What the batch's slot 0 is called: in the gradient sink (slots pending
  // since the last optimizer step), and in dropout (slots since the run began).
  int64_t first_sink_slot = 0;
  int64_t first_run_slot = 0;
  double loss_scale = 1;
};

// Slots in contiguous ranges for TrainingBatch::rank_slots, with as equal
// numbers of tokens as their order allows: rank r's range ends where the tokens
// before it come nearest to (r + 1) / R of all. Ranks may get no slot.
std::vector<int64_t> SplitSlots(absl::Span<const int64_t> slot_tokens,
                                int num_ranks);

// INVALID_ARGUMENT, one sentence that names slot, document and position: ids
// outside [0, V), labels that are neither the token nor kIgnoredLabel, slots or
// documents without tokens, documents longer than max_position, slots of 2^24
// tokens or more, routes of the wrong size, with an expert outside [0, E) or
// one twice for a token, or for some of a token's K places only; more than 2^31
// tokens times K.
absl::Status CheckTrainingBatch(const TrainingBatch& batch,
                                const ModelConfig& config);

// The host-side tables of a checked batch, as this rank needs them.
struct TrainingLayout {
  SlotMap slot_map;                  // tokens of all ranks
  std::vector<int64_t> rank_slots;   // [R + 1], as in the batch
  std::vector<int64_t> rank_tokens;  // [R] T_p
  std::vector<int64_t> label_begin;  // [S + 1] first learnt label of each slot
  int64_t first_slot = 0;            // of this rank
  // This rank's T tokens are rows 0..T-1.
  std::vector<int32_t> token_ids;             // [T]
  std::vector<int64_t> row_keys;              // [T] SlotMap::RowKey
  std::vector<SlotRows> slot_rows;            // of each own slot, sink numbers
  std::vector<int64_t> document_begin = {0};  // first row of each, and T
  // The n rows whose logits have a label, by rising row.
  std::vector<int32_t> label_rows;    // [n]
  std::vector<int32_t> label_ids;     // [n]
  std::vector<SlotRows> label_slots;  // of each own slot: which of the n
  // Empty, or [L] of [T, K].
  std::vector<std::vector<int32_t>> layer_routes;

  int64_t num_slots() const { return slot_map.num_slots(); }
  int64_t num_tokens() const { return static_cast<int64_t>(token_ids.size()); }
  int64_t num_labels(int64_t slot) const {
    return label_begin[slot + 1] - label_begin[slot];
  }
};
TrainingLayout LayOut(const TrainingBatch& batch, int rank);

}  // namespace octet

#endif  // OCTET_WORKER_MODEL_TRAINING_BATCH_H_
