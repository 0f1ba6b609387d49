// The documents of several data sets as one sequence, read as it is asked for.
// Not thread-safe.
#ifndef OCTET_CLIENT_DATA_DOCUMENT_MIXER_H_
#define OCTET_CLIENT_DATA_DOCUMENT_MIXER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/data/dataset_reader.h"

namespace octet {

// The rules of Hugging Face datasets' interleave_datasets.
enum class MixStrategy {
  kConcat,           // one after the other
  kInterleaveUnder,  // in turns or by chance, until one has ended
  kInterleaveOver,   // until all have; one that ends early begins again
};

struct MixPosition {
  // kConcat: which data set is read; else the draws so far.
  int64_t draws = 0;
  std::vector<DatasetPosition> datasets;
  std::vector<bool> ended;  // of each data set: once at least
};

class DocumentMixer {
 public:
  // `probabilities` is empty (in turns) or has one for each data set, with sum
  // 1. `seed` draws. InvalidArgument says what does not fit.
  static absl::StatusOr<std::unique_ptr<DocumentMixer>> Create(
      std::vector<std::unique_ptr<DatasetReader>> datasets,
      MixStrategy strategy, std::vector<double> probabilities, uint64_t seed);

  // nullopt at the end; errors as for DatasetReader.
  absl::StatusOr<std::optional<Document>> Next();

  MixPosition position() const;
  // InvalidArgument when `position` is of another number of data sets.
  absl::Status Restore(const MixPosition& position);

  int num_datasets() const { return static_cast<int>(datasets_.size()); }

 private:
  DocumentMixer(std::vector<std::unique_ptr<DatasetReader>> datasets,
                MixStrategy strategy, std::vector<double> probabilities,
                uint64_t seed);
  absl::StatusOr<std::optional<Document>> NextOfConcat();
  bool HasEnded() const;
  size_t Draw() const;

  const std::vector<std::unique_ptr<DatasetReader>> datasets_;
  const MixStrategy strategy_;
  const std::vector<double> probabilities_;
  const uint64_t seed_;
  int64_t draws_ = 0;
  std::vector<bool> ended_;
};

}  // namespace octet

#endif  // OCTET_CLIENT_DATA_DOCUMENT_MIXER_H_
