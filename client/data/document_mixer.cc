#include "client/data/document_mixer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/data/random.h"

namespace octet {
namespace {

constexpr uint64_t kMixPurpose = 1;
constexpr double kSumTolerance = 1e-6;  // of probabilities written in decimal

absl::Status CheckProbabilities(const std::vector<double>& probabilities,
                                size_t num_datasets, MixStrategy strategy) {
  if (probabilities.empty()) return absl::OkStatus();
  if (strategy == MixStrategy::kConcat) {
    return absl::InvalidArgumentError(
        "interleave_probs is given with mix_strategy concat, expected it with "
        "interleave_under or interleave_over only");
  }
  if (probabilities.size() != num_datasets) {
    return absl::InvalidArgumentError(absl::StrCat(
        "interleave_probs has ", probabilities.size(),
        " numbers, expected one for each of ", num_datasets, " data sets"));
  }
  double sum = 0;
  for (const double probability : probabilities) {
    // A data set that is never drawn would never end.
    if (!(probability > 0 && probability <= 1)) {
      return absl::InvalidArgumentError(
          absl::StrCat("interleave_probs has ", probability,
                       ", expected numbers above 0 and at most 1"));
    }
    sum += probability;
  }
  if (std::abs(sum - 1) > kSumTolerance) {
    return absl::InvalidArgumentError(
        absl::StrCat("interleave_probs has the sum ", sum, ", expected 1"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<DocumentMixer>> DocumentMixer::Create(
    std::vector<std::unique_ptr<DatasetReader>> datasets, MixStrategy strategy,
    std::vector<double> probabilities, uint64_t seed) {
  OCTET_RETURN_IF_ERROR(
      CheckProbabilities(probabilities, datasets.size(), strategy));
  if (strategy != MixStrategy::kConcat) {
    for (const auto& dataset : datasets) {
      OCTET_ASSIGN_OR_RETURN(const bool empty, dataset->AtEnd());
      if (!empty) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("data set '", dataset->spec().name,
                       "' has no rows, expected some to interleave"));
    }
  }
  return absl::WrapUnique(new DocumentMixer(std::move(datasets), strategy,
                                            std::move(probabilities), seed));
}

DocumentMixer::DocumentMixer(
    std::vector<std::unique_ptr<DatasetReader>> datasets, MixStrategy strategy,
    std::vector<double> probabilities, uint64_t seed)
    : datasets_(std::move(datasets)),
      strategy_(strategy),
      probabilities_(std::move(probabilities)),
      seed_(seed),
      ended_(datasets_.size(), false) {}

absl::StatusOr<std::optional<Document>> DocumentMixer::Next() {
  if (strategy_ == MixStrategy::kConcat) return NextOfConcat();
  if (HasEnded()) return std::nullopt;
  const size_t drawn = Draw();
  DatasetReader& dataset = *datasets_[drawn];
  OCTET_ASSIGN_OR_RETURN(std::optional<Document> document, dataset.Next());
  OCTET_ASSIGN_OR_RETURN(const bool at_end, dataset.AtEnd());
  if (at_end) {
    ended_[drawn] = true;
    dataset.Rewind();
  }
  ++draws_;
  return document;
}

absl::StatusOr<std::optional<Document>> DocumentMixer::NextOfConcat() {
  while (draws_ < num_datasets()) {
    OCTET_ASSIGN_OR_RETURN(std::optional<Document> document,
                           datasets_[draws_]->Next());
    if (document.has_value()) return document;
    ended_[draws_++] = true;
  }
  return std::nullopt;
}

// By chance the end is seen before each draw; in turns only after a round.
bool DocumentMixer::HasEnded() const {
  if (probabilities_.empty() && draws_ % num_datasets() != 0) return false;
  const auto is_true = [](bool ended) { return ended; };
  return strategy_ == MixStrategy::kInterleaveUnder
             ? std::any_of(ended_.begin(), ended_.end(), is_true)
             : std::all_of(ended_.begin(), ended_.end(), is_true);
}

size_t DocumentMixer::Draw() const {
  if (probabilities_.empty()) return draws_ % num_datasets();
  double left = RandomUniform({seed_, kMixPurpose, 0}, draws_);
  for (size_t i = 0; i + 1 < probabilities_.size(); ++i) {
    left -= probabilities_[i];
    if (left < 0) return i;
  }
  return probabilities_.size() - 1;
}

MixPosition DocumentMixer::position() const {
  MixPosition position;
  position.draws = draws_;
  position.ended = ended_;
  for (const auto& dataset : datasets_) {
    position.datasets.push_back(dataset->position());
  }
  return position;
}

absl::Status DocumentMixer::Restore(const MixPosition& position) {
  if (position.datasets.size() != datasets_.size() ||
      position.ended.size() != datasets_.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the data position is of ", position.datasets.size(),
                     " data sets, expected ", datasets_.size()));
  }
  for (size_t i = 0; i < datasets_.size(); ++i) {
    datasets_[i]->Restore(position.datasets[i]);
  }
  draws_ = position.draws;
  ended_ = position.ended;
  return absl::OkStatus();
}

}  // namespace octet
