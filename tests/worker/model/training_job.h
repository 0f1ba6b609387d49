// Runs training passes over a tiny model on any number of ranks and gathers
// what they say.
#ifndef OCTET_TESTS_WORKER_MODEL_TRAINING_JOB_H_
#define OCTET_TESTS_WORKER_MODEL_TRAINING_JOB_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/worker/model/tiny_model.h"
#include "tests/worker/nn/recording_sink.h"
#include "worker/model/training_pass.h"

namespace octet::test {

// A document, kept alive.
struct Document {
  std::vector<int32_t> ids, labels;
};
using Slots = std::vector<std::vector<Document>>;

// Five slots of one to three documents of 1 to 40 tokens; one slot and one
// document have no labels that are learnt.
Slots MakeSlots(int64_t vocab_size);
// Views of them.
std::vector<TrainingSlotInput> InputsOf(const Slots& slots);

// Random adapters of rank 4 on every linear layer of a rank's weights.
absl::Status AttachTinyAdapters(const TinyModel& model, float dropout,
                                Backend& backend, ModelWeights& weights);

struct TrainingJob {
  const TinyModel* model = nullptr;
  int num_ranks = 1;
  std::string placement;
  DType dtype = DType::kF32;
  CpuBackendOptions backend;
  std::optional<float> adapter_dropout;  // absent: no adapters
  TrainingPassOptions options;
  TrainingBatch batch;  // rank_slots empty: SplitSlots
  bool backward = true;
};

struct TrainingOutcome {
  PassResult result;        // of rank 0
  SlotGradients gradients;  // of all ranks
  std::vector<std::vector<int32_t>>
      routes;  // [L], all ranks' one after another
};

// Fails the test when a rank fails, when ranks disagree about the result, or
// when two ranks have a gradient of the same slot of the same weight.
TrainingOutcome RunTraining(TrainingJob job);

// Everything but seconds and routes to the last bit.
void ExpectSameBits(const TrainingOutcome& actual,
                    const TrainingOutcome& expected, const std::string& name);

}  // namespace octet::test

#endif  // OCTET_TESTS_WORKER_MODEL_TRAINING_JOB_H_
