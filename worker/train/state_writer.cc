#include "worker/train/state_writer.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "worker/checkpoint/content_hash.h"

namespace octet {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);
// Elements of a piece: what a rank with other shards reads too much of, at
// most, at either end of a range.
constexpr int64_t kPieceElements = 4 << 20;

std::string FileName(int rank, int num_ranks) {
  return absl::StrFormat("state-%05d-of-%05d.safetensors", rank + 1, num_ranks);
}

void Decode(const std::string& text, int rank, TrainingManifest* manifest) {
  constexpr size_t kNumbers = 3 + kNumStateTensors;
  std::vector<uint64_t> numbers(text.size() / sizeof(uint64_t));
  std::copy_n(text.data(), numbers.size() * sizeof(uint64_t),
              reinterpret_cast<char*>(numbers.data()));
  for (size_t i = 0; i + kNumbers <= numbers.size(); i += kNumbers) {
    StatePiece piece;
    piece.begin = static_cast<int64_t>(numbers[i + 1]);
    piece.end = static_cast<int64_t>(numbers[i + 2]);
    piece.file = rank;
    std::copy_n(&numbers[i + 3], kNumStateTensors, piece.hashes.begin());
    manifest->parameters[numbers[i]].pieces.push_back(piece);
  }
}

}  // namespace

absl::Status CheckNothingPending(const WeightTrainer& trainer) {
  if (trainer.pending_slots() == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "gradients of ", trainer.pending_slots(),
      " slots are pending, expected OptimStep or ZeroGrad before this"));
}

int64_t OwnState::num_bytes() const {
  int64_t bytes = 0;
  for (const StatePiece& piece : pieces) {
    bytes += kNumStateTensors * kFloatBytes * (piece.end - piece.begin);
  }
  return bytes;
}

OwnState CutOwnState(const WeightTrainer& trainer) {
  const Communicator& communicator = *trainer.model().communicator;
  const int rank = communicator.rank();
  OwnState out;
  out.file_name = FileName(rank, communicator.size());
  const absl::Span<const OwnedRange> owned = trainer.shards().OwnedBy(rank);
  for (size_t i = 0; i < owned.size(); ++i) {
    const Parameter& parameter =
        trainer.parameters().parameters()[owned[i].parameter];
    for (int64_t begin = owned[i].begin; begin < owned[i].end;
         begin += kPieceElements) {
      StatePiece piece;
      piece.file = rank;
      piece.begin = begin;
      piece.end = std::min(begin + kPieceElements, owned[i].end);
      for (int kind = 0; kind < kNumStateTensors; ++kind) {
        out.specs.push_back({StateTensorName(parameter.name, kind, begin),
                             DType::kF32,
                             {piece.end - piece.begin}});
      }
      out.parameters.push_back(owned[i].parameter);
      out.pieces.push_back(piece);
      out.ranges.push_back(i);
    }
  }
  return out;
}

absl::Status WriteOwnState(const std::string& dir, const StateSource& source,
                           OwnState& own) {
  OCTET_ASSIGN_OR_RETURN(
      const std::unique_ptr<SafetensorsWriter> writer,
      SafetensorsWriter::Create(absl::StrCat(dir, "/", own.file_name),
                                own.specs, {}));
  size_t tensor = 0;
  for (size_t i = 0; i < own.pieces.size(); ++i) {
    StatePiece& piece = own.pieces[i];
    const int64_t num_bytes = (piece.end - piece.begin) * kFloatBytes;
    for (int kind = 0; kind < kNumStateTensors; ++kind, ++tensor) {
      OCTET_ASSIGN_OR_RETURN(const float* values, source(own, i, kind));
      piece.hashes[kind] = ContentHash(values, num_bytes);
      OCTET_RETURN_IF_ERROR(writer->Write(tensor, 0, values, num_bytes));
    }
  }
  return writer->Finish();
}

// Pieces as integers: parameter, begin, end, three hashes.
std::string EncodePieces(const OwnState& own) {
  std::vector<uint64_t> numbers;
  for (size_t i = 0; i < own.pieces.size(); ++i) {
    const StatePiece& piece = own.pieces[i];
    numbers.insert(numbers.end(), {static_cast<uint64_t>(own.parameters[i]),
                                   static_cast<uint64_t>(piece.begin),
                                   static_cast<uint64_t>(piece.end)});
    numbers.insert(numbers.end(), piece.hashes.begin(), piece.hashes.end());
  }
  return std::string(reinterpret_cast<const char*>(numbers.data()),
                     numbers.size() * sizeof(uint64_t));
}

TrainingManifest BeginManifest(WeightTrainer& trainer,
                               const RunProgress& progress) {
  TrainingManifest manifest;
  manifest.optimizer_steps = trainer.optimizer().num_steps();
  manifest.run_slots = progress.run_slots;
  manifest.seed = progress.seed;
  manifest.lora_scale = progress.lora_scale;
  manifest.client_state = progress.client_state;
  for (const Parameter& parameter : trainer.parameters().parameters()) {
    manifest.parameters.push_back({parameter.name, parameter.shape(), {}});
  }
  return manifest;
}

absl::Status WriteManifest(const std::string& dir,
                           const std::vector<std::string>& pieces,
                           TrainingManifest manifest) {
  const int num_ranks = static_cast<int>(pieces.size());
  for (int rank = 0; rank < num_ranks; ++rank) {
    manifest.files.push_back(FileName(rank, num_ranks));
    Decode(pieces[rank], rank, &manifest);
  }
  for (StateParameter& parameter : manifest.parameters) {
    std::sort(parameter.pieces.begin(), parameter.pieces.end(),
              [](const StatePiece& a, const StatePiece& b) {
                return a.begin < b.begin;
              });
  }
  return WriteFileAtomically(absl::StrCat(dir, "/", kManifestFile),
                             TrainingManifestToJson(manifest));
}

}  // namespace octet
