// What a rank writes of a state (worker/checkpoint/training_manifest.h): its
// file, with the elements that it owns, and on rank 0 the manifest. Nothing
// here refers to a run once it is made, so that a thread of its own may write
// while the run goes on.
//
// Threads: one at a time for each object.
#ifndef OCTET_WORKER_TRAIN_STATE_WRITER_H_
#define OCTET_WORKER_TRAIN_STATE_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/checkpoint/safetensors_writer.h"
#include "worker/checkpoint/training_manifest.h"
#include "worker/train/weight_trainer.h"

namespace octet {

// What goes with the parameters.
struct RunProgress {
  int64_t run_slots = 0;
  uint64_t seed = 0;
  double lora_scale = 0;  // 0: no adapters
  std::string client_state;
};

// FAILED_PRECONDITION while gradients wait for OptimStep: a state has none.
absl::Status CheckNothingPending(const WeightTrainer& trainer);

// A rank's elements, cut into pieces.
struct OwnState {
  std::string file_name;           // in the state's directory
  std::vector<TensorSpec> specs;   // kNumStateTensors of each piece
  std::vector<int> parameters;     // of each piece
  std::vector<size_t> ranges;      // of each piece (ShardMap::OwnedBy)
  std::vector<StatePiece> pieces;  // hashes are filled in by WriteOwnState

  int64_t num_bytes() const;  // of all tensors
};
OwnState CutOwnState(const WeightTrainer& trainer);

// [end - begin] f32 of a piece: 0 weight, 1 m, 2 v. Good until the next call.
using StateSource = std::function<absl::StatusOr<const float*>(
    const OwnState& own, size_t piece, int kind)>;
// Writes own.file_name into `dir`, synced.
absl::Status WriteOwnState(const std::string& dir, const StateSource& source,
                           OwnState& own);

// For rank 0: a rank's pieces as bytes, for WriteManifest.
std::string EncodePieces(const OwnState& own);

// The manifest but for its pieces and files.
TrainingManifest BeginManifest(WeightTrainer& trainer,
                               const RunProgress& progress);
// pieces: of each rank. The last file of a state.
absl::Status WriteManifest(const std::string& dir,
                           const std::vector<std::string>& pieces,
                           TrainingManifest manifest);

}  // namespace octet

#endif  // OCTET_WORKER_TRAIN_STATE_WRITER_H_
