#include "worker/train/state_files.h"

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/checkpoint/content_hash.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/checkpoint/staged_directory.h"
#include "worker/checkpoint/training_manifest.h"
#include "worker/comm/group_messages.h"
#include "worker/model/json_file.h"
#include "worker/train/file_op.h"
#include "worker/train/refusal.h"

namespace octet {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);
constexpr uint64_t kMaxManifestBytes = uint64_t{1} << 30;

// Part of a range's state.
Tensor StateOf(WeightTrainer& trainer, int kind, size_t range, int64_t begin,
               int64_t end) {
  const int rank = trainer.model().communicator->rank();
  const OwnedRange& owned = trainer.shards().OwnedBy(rank)[range];
  return trainer.optimizer()
      .state(kStateKinds[kind], range)
      .Rows(begin - owned.begin, end - begin);
}

// The optimizer's state, copied to the host piece by piece.
StateSource LiveSource(WeightTrainer& trainer, std::vector<float>& values) {
  return [&](const OwnState& own, size_t i,
             int kind) -> absl::StatusOr<const float*> {
    const StatePiece& piece = own.pieces[i];
    values.resize(piece.end - piece.begin);
    Backend& backend = *trainer.model().backend;
    const Tensor state =
        StateOf(trainer, kind, own.ranges[i], piece.begin, piece.end);
    OCTET_RETURN_IF_ERROR(backend.CopyToHost(
        values.data(), state.data(), state.num_bytes(), trainer.stream()));
    OCTET_RETURN_IF_ERROR(backend.Synchronize(trainer.stream()));
    return values.data();
  };
}

// A state on disk, as this rank reads it.
class StateReader {
 public:
  StateReader(WeightTrainer& trainer, const std::string& path)
      : trainer_(trainer), path_(path) {}

  absl::Status Open(const RunProgress& current) {
    OCTET_RETURN_IF_ERROR(CheckCheckpointDirectory(path_));
    const std::string name = absl::StrCat(path_, "/", kManifestFile);
    OCTET_ASSIGN_OR_RETURN(const std::string text,
                           ReadSmallFile(name, kMaxManifestBytes));
    OCTET_ASSIGN_OR_RETURN(manifest_, ParseTrainingManifest(text, name));
    return CheckMatches(name, current);
  }

  // Calls use(range, piece) for what this rank owns of each piece.
  using Use = std::function<absl::Status(size_t range, const Parameter&,
                                         const StatePiece&)>;
  absl::Status ForEachPiece(const Use& use) {
    const absl::Span<const OwnedRange> owned =
        trainer_.shards().OwnedBy(trainer_.model().communicator->rank());
    for (size_t i = 0; i < owned.size(); ++i) {
      const Parameter& parameter =
          trainer_.parameters().parameters()[owned[i].parameter];
      for (const StatePiece& piece :
           manifest_.parameters[owned[i].parameter].pieces) {
        if (piece.end <= owned[i].begin || piece.begin >= owned[i].end) {
          continue;
        }
        OCTET_RETURN_IF_ERROR(use(i, parameter, piece));
      }
    }
    return absl::OkStatus();
  }

  // Are the pieces there, and what they were when they were written?
  absl::Status Verify() {
    std::vector<float> values;
    return ForEachPiece([&](size_t /*range*/, const Parameter& parameter,
                            const StatePiece& piece) -> absl::Status {
      values.resize(piece.end - piece.begin);
      for (int kind = 0; kind < kNumStateTensors; ++kind) {
        OCTET_RETURN_IF_ERROR(
            Read(parameter, piece, kind, piece.begin, absl::MakeSpan(values)));
        if (ContentHash(values.data(), values.size() * kFloatBytes) !=
            piece.hashes[kind]) {
          return absl::DataLossError(absl::StrCat(
              path_, "/", manifest_.files[piece.file], ": tensor '",
              StateTensorName(parameter.name, kind, piece.begin),
              "' is damaged: its content hash is not the manifest's"));
        }
      }
      return absl::OkStatus();
    });
  }

  absl::Status Fill() {
    std::vector<float> values;
    const absl::Span<const OwnedRange> owned =
        trainer_.shards().OwnedBy(trainer_.model().communicator->rank());
    Backend& backend = *trainer_.model().backend;
    return ForEachPiece([&](size_t range, const Parameter& parameter,
                            const StatePiece& piece) -> absl::Status {
      const int64_t begin = std::max(piece.begin, owned[range].begin);
      const int64_t end = std::min(piece.end, owned[range].end);
      values.resize(end - begin);
      for (int kind = 0; kind < kNumStateTensors; ++kind) {
        OCTET_RETURN_IF_ERROR(
            Read(parameter, piece, kind, begin, absl::MakeSpan(values)));
        const Tensor state = StateOf(trainer_, kind, range, begin, end);
        OCTET_RETURN_IF_ERROR(backend.CopyToDevice(
            state.data(), values.data(), state.num_bytes(), trainer_.stream()));
        OCTET_RETURN_IF_ERROR(backend.Synchronize(trainer_.stream()));
      }
      return absl::OkStatus();
    });
  }

  const TrainingManifest& manifest() const { return manifest_; }

 private:
  absl::Status CheckMatches(const std::string& name,
                            const RunProgress& current) {
    const auto error = [&](absl::string_view what, const auto& found,
                           const auto& expected) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": ", what, " is ", found, ", expected ", expected,
                       " as in this run"));
    };
    if (manifest_.seed != current.seed) {
      return error("seed", manifest_.seed, current.seed);
    }
    const auto kind = [](float lora_scale) {
      return lora_scale > 0 ? "LoRA" : "FULL or FREEZE";
    };
    if ((manifest_.lora_scale > 0) != (current.lora_scale > 0)) {
      return error("method", kind(manifest_.lora_scale),
                   kind(current.lora_scale));
    }
    if (manifest_.lora_scale != current.lora_scale) {
      return error("lora_scale", manifest_.lora_scale, current.lora_scale);
    }
    const auto parameters = trainer_.parameters().parameters();
    for (size_t i = 0;
         i < std::max(parameters.size(), manifest_.parameters.size()); ++i) {
      const std::string what = absl::StrCat("parameter ", i);
      if (i == parameters.size()) {
        return error(what, manifest_.parameters[i].name, "none");
      }
      if (i == manifest_.parameters.size()) {
        return error(what, "missing", parameters[i].name);
      }
      const StateParameter& found = manifest_.parameters[i];
      if (found.name != parameters[i].name) {
        return error(what, found.name, parameters[i].name);
      }
      if (found.shape != parameters[i].shape()) {
        return error(absl::StrCat("shape of ", found.name),
                     ShapeToString(found.shape),
                     ShapeToString(parameters[i].shape()));
      }
    }
    return absl::OkStatus();
  }

  // Elements from `begin` on of a piece's tensor.
  absl::Status Read(const Parameter& parameter, const StatePiece& piece,
                    int kind, int64_t begin, absl::Span<float> out) {
    std::unique_ptr<SafetensorsFile>& file = files_[piece.file];
    if (file == nullptr) {
      OCTET_ASSIGN_OR_RETURN(
          file, SafetensorsFile::Open(
                    absl::StrCat(path_, "/", manifest_.files[piece.file])));
    }
    const std::string name = StateTensorName(parameter.name, kind, piece.begin);
    const SafetensorsEntry* entry = file->Find(name);
    if (entry == nullptr || entry->dtype != "F32" ||
        entry->shape != std::vector<int64_t>{piece.end - piece.begin}) {
      return absl::DataLossError(
          absl::StrCat(file->path(), ": tensor '", name,
                       "' is missing or of another shape, expected F32 ",
                       ShapeToString({piece.end - piece.begin})));
    }
    return file->Read(*entry, (begin - piece.begin) * kFloatBytes,
                      out.size() * kFloatBytes, out.data());
  }

  WeightTrainer& trainer_;
  const std::string path_;
  TrainingManifest manifest_;
  std::map<int, std::unique_ptr<SafetensorsFile>> files_;
};

}  // namespace

absl::StatusOr<int64_t> SaveTrainingState(WeightTrainer& trainer,
                                          const std::string& path,
                                          const RunProgress& progress,
                                          int64_t step_id) {
  OCTET_RETURN_IF_ERROR(CheckNothingPending(trainer));
  Communicator& communicator = *trainer.model().communicator;
  const OpInfo op = FileOp("save state", step_id);
  const bool root = communicator.rank() == 0;
  const StagedDirectory directory(path);
  OCTET_RETURN_IF_ERROR(AgreeOnStatus(
      communicator, root ? directory.Begin() : absl::OkStatus(), op));
  OwnState own = CutOwnState(trainer);
  std::vector<float> values;
  absl::Status status = AgreeOnStatus(
      communicator,
      WriteOwnState(directory.staging_path(), LiveSource(trainer, values), own),
      op);
  if (status.ok()) {
    OCTET_ASSIGN_OR_RETURN(const std::vector<std::string> pieces,
                           GatherMessages(communicator, EncodePieces(own), op));
    absl::Status finished;
    if (root) {
      finished = WriteManifest(directory.staging_path(), pieces,
                               BeginManifest(trainer, progress));
      if (finished.ok()) finished = directory.Commit();
    }
    status = AgreeOnStatus(communicator, finished, op);
  }
  if (!status.ok()) {
    if (root) directory.Abandon();
    return status;
  }
  int64_t num_bytes = own.num_bytes();
  OCTET_RETURN_IF_ERROR(communicator.AllReduceI64(absl::MakeSpan(&num_bytes, 1),
                                                  ReduceOp::kSum, op));
  return num_bytes;
}

absl::StatusOr<RunProgress> LoadTrainingState(WeightTrainer& trainer,
                                              const std::string& path,
                                              const RunProgress& current,
                                              int64_t step_id) {
  OCTET_RETURN_IF_ERROR(CheckNothingPending(trainer));
  StateReader reader(trainer, path);
  absl::Status status = reader.Open(current);
  if (status.ok()) status = reader.Verify();
  OCTET_RETURN_IF_ERROR(AgreeOnStatus(*trainer.model().communicator, status,
                                      FileOp("load state", step_id)));
  OCTET_RETURN_IF_ERROR(EndsGroup(reader.Fill()));
  const TrainingManifest& manifest = reader.manifest();
  trainer.optimizer().set_num_steps(manifest.optimizer_steps);
  OCTET_RETURN_IF_ERROR(EndsGroup(trainer.Publish(step_id)));
  return RunProgress{manifest.run_slots, manifest.seed, manifest.lora_scale,
                     manifest.client_state};
}

}  // namespace octet
