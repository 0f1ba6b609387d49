// What a run needs of one rank's memory, before anything is allocated.
#ifndef OCTET_WORKER_TRAIN_MEMORY_PLAN_H_
#define OCTET_WORKER_TRAIN_MEMORY_PLAN_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/training.pb.h"
#include "worker/model/training_pass.h"
#include "worker/train/parameters.h"
#include "worker/train/shard_map.h"
#include "worker/train/weight_trainer.h"

namespace octet {

// What this rank's memory holds and has left, in bytes.
struct RankMemory {
  int64_t available_bytes =
      0;                       // before the run; 0: unknown, nothing is refused
  int64_t kv_cache_bytes = 0;  // of serving
  // Where `available_bytes` are a device's: what its host has left, for the
  // copy that background saves are written from. 0: unknown.
  std::optional<int64_t> host_available_bytes = std::nullopt;
};

// What a run is planned with, beside its tokens.
struct MemoryNeeds {
  TrainingPassOptions pass;
  bool background_saves = false;
};

// Bytes of one rank for calls of up to `rank_tokens` of its tokens, with
// routing as even as the placement allows. Gradients: one node of the slot tree
// per weight, the shards that wait for the optimizer, and what travels.
v1::RankMemoryPlan PlanMemory(const RankModel& model,
                              const ParameterSet& parameters,
                              const ShardMap& shards, const MemoryNeeds& needs,
                              const RankMemory& memory, int64_t rank_tokens);

// Bytes that a plan asks for beside those that are there already, of the
// memory that available_bytes are of.
int64_t NewBytes(const v1::RankMemoryPlan& plan);

// The most tokens in [1, limit] that fit, in powers of two times 64 (or limit);
// RESOURCE_EXHAUSTED with the plan's numbers when 64 (or limit) do not.
absl::StatusOr<int64_t> TokensThatFit(const RankModel& model,
                                      const ParameterSet& parameters,
                                      const ShardMap& shards,
                                      const MemoryNeeds& needs,
                                      const RankMemory& memory, int64_t limit);

// OK, or RESOURCE_EXHAUSTED: one sentence with the plan's numbers.
absl::Status CheckFits(const v1::RankMemoryPlan& plan, int64_t rank_tokens);

}  // namespace octet

#endif  // OCTET_WORKER_TRAIN_MEMORY_PLAN_H_
