// One rank of a group that trains a tiny model's weights with scripted
// gradients.
#ifndef OCTET_TESTS_WORKER_TRAIN_TRAINER_RANK_H_
#define OCTET_TESTS_WORKER_TRAIN_TRAINER_RANK_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/training.pb.h"
#include "tests/worker/model/tiny_model.h"
#include "worker/comm/communicator.h"
#include "worker/train/weight_trainer.h"

namespace octet::test {

// E 4, two layers; embedding and head have several chunks, so that dense
// parameters are split over ranks within a tensor too.
ModelConfig TrainerConfig(bool tied = false);

v1::CreateRunRequest FullRequest();
// Every linear layer, embedding and norms in full.
v1::CreateRunRequest LoraRequest();

class TrainerRank {
 public:
  static absl::StatusOr<std::unique_ptr<TrainerRank>> New(
      Communicator& communicator, const ModelConfig& config, DType dtype,
      const v1::CreateRunRequest& request,
      const PeftAdapter* adapter = nullptr);

  // One ForwardBackward of `num_slots` slots.
  absl::Status Accumulate(int64_t num_slots, uint64_t seed);

  // Collective; every rank gets every trained parameter, from its owners.
  absl::StatusOr<std::map<std::string, std::vector<float>>> Values();
  // The live weights and adapters of this rank, by any name, as they are used.
  absl::StatusOr<std::map<std::string, std::vector<float>>> LiveValues();

  WeightTrainer& trainer() { return *trainer_; }
  ModelWeights& weights() { return weights_; }
  Backend& backend() { return *backend_; }
  const ModelConfig& config() const { return config_; }
  const Placement& placement() const { return *placement_; }

 private:
  TrainerRank() = default;

  ModelConfig config_;
  std::unique_ptr<Backend> backend_;
  std::optional<Placement> placement_;
  ModelWeights weights_;
  Communicator* communicator_ = nullptr;
  DType dtype_ = DType::kF32;
  std::unique_ptr<WeightTrainer> trainer_;
};

v1::AdamWConfig TestAdamW();

}  // namespace octet::test

#endif  // OCTET_TESTS_WORKER_TRAIN_TRAINER_RANK_H_
