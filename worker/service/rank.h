// Everything one rank consists of, built in order from the checkpoint.
#ifndef OCTET_WORKER_SERVICE_RANK_H_
#define OCTET_WORKER_SERVICE_RANK_H_

#include <memory>
#include <optional>

#include "absl/status/statusor.h"
#include "proto/cluster.pb.h"
#include "proto/worker.pb.h"
#include "worker/comm/communicator.h"
#include "worker/model/config.h"
#include "worker/model/kv_cache.h"
#include "worker/model/transformer.h"
#include "worker/model/weights.h"
#include "worker/moe/placement.h"
#include "worker/serve/engine.h"
#include "worker/service/trainer.h"
#include "worker/service/worker.h"

namespace octet {

class Rank {
 public:
  // Collective: every rank calls it. Errors of this rank's files and memory
  // are its own; the caller aborts the group.
  static absl::StatusOr<std::unique_ptr<Rank>> Create(
      const WorkerOptions& options, Communicator* communicator);

  Engine& engine() { return *engine_; }
  Trainer& trainer() { return *trainer_; }
  const ModelConfig& config() const { return config_; }

  // Collective. Rank 0 gets the introduction of the group, the others nothing.
  absl::StatusOr<std::optional<v1::Hello>> MakeHello();

 private:
  Rank(const WorkerOptions& options, Communicator* communicator)
      : options_(options), communicator_(communicator) {}

  absl::Status NewBackend();
  absl::Status LoadWeights();
  absl::Status NewCache();
  absl::Status NewEngine();
  void NewTrainer();
  TrainingEnvironment Environment() const;
  int RanksOnHost() const;
  v1::RankInfo Info() const;

  const WorkerOptions options_;
  Communicator* communicator_;
  ModelConfig config_;
  std::optional<Placement> placement_;
  // Later members use earlier ones and go first.
  std::unique_ptr<Backend> backend_;
  ModelWeights weights_;
  std::optional<KvCache> cache_;
  std::unique_ptr<Transformer> transformer_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Trainer> trainer_;
};

}  // namespace octet

#endif  // OCTET_WORKER_SERVICE_RANK_H_
