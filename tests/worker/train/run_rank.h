// One rank of a group that trains a golden checkpoint, and the golden's calls.
#ifndef OCTET_TESTS_WORKER_TRAIN_RUN_RANK_H_
#define OCTET_TESTS_WORKER_TRAIN_RUN_RANK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/backend.h"
#include "proto/training.pb.h"
#include "worker/comm/communicator.h"
#include "worker/model/config.h"
#include "worker/model/weights.h"
#include "worker/moe/placement.h"
#include "worker/train/run.h"

namespace octet::test {

struct RunRankOptions {
  // Empty: the CPU backend.
  std::function<absl::StatusOr<std::unique_ptr<Backend>>()> new_backend;
  std::string checkpoint;  // directory
  std::string placement;   // empty: the default
  std::optional<DType> dtype;
  RankMemory memory;
};

// What a run stands on. Not movable: members point at others.
struct RunRank {
  RunRank() = default;
  RunRank(const RunRank&) = delete;

  static absl::StatusOr<std::unique_ptr<RunRank>> New(
      Communicator& communicator, const RunRankOptions& options);

  RankModel model() {
    return {backend.get(), communicator, &config, &*placement, &weights};
  }
  TrainingEnvironment environment;
  Communicator* communicator = nullptr;
  ModelConfig config;
  std::unique_ptr<Backend> backend;
  std::optional<Placement> placement;
  ModelWeights weights;
};

// Directory of a golden checkpoint.
std::string GoldenPath(absl::string_view name);
// A tensor of tests/golden/<name>/training.safetensors.
std::vector<float> GoldenFloats(absl::string_view name, const std::string& key);
// Its four slots.
v1::ForwardBackwardRequest GoldenSlots(absl::string_view name);
// As the golden's 50 steps: aux loss 0.02 over each slot.
v1::CreateRunRequest GoldenFullRun();
v1::CreateRunRequest GoldenLoraRun(absl::string_view name);
v1::OptimStepRequest GoldenStep();

}  // namespace octet::test

#endif  // OCTET_TESTS_WORKER_TRAIN_RUN_RANK_H_
