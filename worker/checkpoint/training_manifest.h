// manifest.json of a training state: a directory with the optimizer's state of
// every trained parameter, keyed by the parameter's name, whatever ranks wrote
// it.
//
// A parameter's elements are cut into pieces; each piece is three f32 vectors
// (master weight and the moments m and v) in one of the safetensors files,
// named by StateTensorName, with a hash of each. The manifest is written last,
// so a directory without it is not a state.
#ifndef OCTET_WORKER_CHECKPOINT_TRAINING_MANIFEST_H_
#define OCTET_WORKER_CHECKPOINT_TRAINING_MANIFEST_H_

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace octet {

inline constexpr char kManifestFile[] = "manifest.json";
// weight, m, v
inline constexpr int kNumStateTensors = 3;

struct StatePiece {
  int64_t begin = 0;  // elements of the parameter
  int64_t end = 0;
  int file = 0;  // index in TrainingManifest::files
  std::array<uint64_t, kNumStateTensors> hashes = {};  // ContentHash

  bool operator==(const StatePiece&) const = default;
};

struct StateParameter {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<StatePiece> pieces;  // by rising element: all of it

  bool operator==(const StateParameter&) const = default;
};

struct TrainingManifest {
  int64_t optimizer_steps = 0;
  int64_t run_slots = 0;  // that the run has trained on: numbers dropout
  uint64_t seed = 0;      // of the run
  double lora_scale = 0;  // alpha / r; 0: no adapters
  std::string client_state;
  std::vector<std::string> files;  // names in the directory
  std::vector<StateParameter> parameters;

  bool operator==(const TrainingManifest&) const = default;
};

// `name` (a path) leads every sentence. INVALID_ARGUMENT unless the text is a
// manifest of this version, pieces make up their parameters, and files lie in
// the directory.
absl::StatusOr<TrainingManifest> ParseTrainingManifest(absl::string_view json,
                                                       absl::string_view name);
// ParseTrainingManifest gives `manifest` back.
std::string TrainingManifestToJson(const TrainingManifest& manifest);

// Name of a piece's tensor in its file; kind: 0 weight, 1 m, 2 v.
std::string StateTensorName(absl::string_view parameter, int kind,
                            int64_t begin);

}  // namespace octet

#endif  // OCTET_WORKER_CHECKPOINT_TRAINING_MANIFEST_H_
