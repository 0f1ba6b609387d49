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

namespace octet {

// One sequence. The label of a position is the token itself, or -100: not
// learnt. The loss of a label belongs to the position before it, so the first
// label is never learnt. The spans belong to the caller.
struct TrainingDocument {
  absl::Span<const int32_t> token_ids;
  absl::Span<const int32_t> labels;  // as many as token_ids
};

struct TrainingSlotInput {
  std::vector<TrainingDocument> documents;
  // Replayed routes: none, or L spans of [tokens of the slot, K] expert ids,
  // used instead of the router's choice. The K weights of a token are the
  // softmax over those experts' logits.
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

// INVALID_ARGUMENT, one sentence that names slot, document and position: ids
// outside [0, V), labels that are neither the token nor -100, empty slots or
// documents, documents longer than max_position, slots of 2^24 tokens or more,
// routes of the wrong size, with an expert outside [0, E) or one twice for a
// token; rank_slots that do not cover the slots in order.
absl::Status CheckTrainingBatch(const TrainingBatch& batch,
                                const ModelConfig& config, int num_ranks);

// The host-side tables of a checked batch, as every rank can compute them.
struct TrainingLayout {
  int64_t first_slot = 0;            // of this rank, in the batch
  std::vector<int64_t> slot_tokens;  // [S + 1] first token of each slot, among
                                     // all ranks' tokens one after the other
  std::vector<int64_t> slot_labels;  // [S + 1] the same of learnt labels
  std::vector<int64_t> rank_tokens;  // [R] T_p
  // This rank's T tokens, rows 0..T-1.
  std::vector<int32_t> token_ids;   // [T]
  std::vector<SlotRows> slot_rows;  // of each own slot, sink numbers
  std::vector<int64_t> row_keys;    // [T] run slot << 24 | token in the slot
  // Rows whose logits have a label, by rising row, and the labels.
  std::vector<int32_t> label_rows;  // [n]
  std::vector<int32_t> label_ids;   // [n]

  int64_t num_slots() const {
    return static_cast<int64_t>(slot_tokens.size()) - 1;
  }
  int64_t num_tokens() const { return static_cast<int64_t>(token_ids.size()); }
  // The batch's slot that the token lies in; token counts among all ranks'.
  int64_t SlotOf(int64_t token) const;
};
TrainingLayout LayOut(const TrainingBatch& batch, int rank);

}  // namespace octet

#endif  // OCTET_WORKER_MODEL_TRAINING_BATCH_H_
