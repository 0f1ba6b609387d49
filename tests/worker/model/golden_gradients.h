// The training pass on the golden checkpoints, one rank of it, and the
// comparison of its gradients with torch's: every weight, and every adapter.
#ifndef OCTET_TESTS_WORKER_MODEL_GOLDEN_GRADIENTS_H_
#define OCTET_TESTS_WORKER_MODEL_GOLDEN_GRADIENTS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "tests/worker/nn/recording_sink.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/comm/communicator.h"
#include "worker/model/config.h"
#include "worker/model/training_pass.h"

namespace octet::test {

// tests/golden/<name>, with the files of training open.
struct GoldenTraining {
  explicit GoldenTraining(const std::string& name);

  // The one with tensors of this name, or whose names begin so.
  const SafetensorsFile& FileOf(const std::string& name) const;
  double Number(const std::string& name) const;

  std::string dir;
  std::unique_ptr<SafetensorsFile> training, padding;
  ModelConfig config;
};

// Slots kept alive; movable, not copyable.
struct GoldenSlots {
  GoldenSlots() = default;
  GoldenSlots(GoldenSlots&&) = default;
  GoldenSlots& operator=(GoldenSlots&&) = default;

  std::vector<std::vector<int32_t>> ids, labels;
  std::vector<TrainingSlotInput> inputs;
};

struct GoldenPass {
  std::string prefix;  // of the golden's names
  GoldenSlots slots;
  TrainingPassOptions options;
  bool adapted = false;  // gradients of the adapters, else of the weights
  std::vector<int64_t> rank_slots;  // empty: SplitSlots
};

// `prefix`: "full/", slots with a mean of means; "lora/", the same with
// adapters on every module; "batch/", tokens' mean with statistics of the
// batch; "masked/" and "counted/", the same of a batch without its padding, and
// with. All with the router's auxiliary loss.
GoldenPass MakeGoldenPass(const GoldenTraining& golden,
                          const std::string& prefix);

struct GoldenRun {
  PassResult result;
  SlotGradients gradients;  // of this rank
};

// Collective: one rank's ForwardBackward in f32.
absl::StatusOr<GoldenRun> RunGoldenPass(const GoldenTraining& golden,
                                        const GoldenPass& pass,
                                        Communicator& group, Backend& backend);

// Fails the test where the gradients of all ranks are not within 1e-4 of the
// golden's, relative to the largest magnitude of each; prints the largest
// difference.
void CompareGradients(const GoldenTraining& golden, const GoldenPass& pass,
                      const SlotGradients& gradients);

}  // namespace octet::test

#endif  // OCTET_TESTS_WORKER_MODEL_GOLDEN_GRADIENTS_H_
