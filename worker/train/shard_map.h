// Who owns which elements of the trained parameters: the optimizer's state is
// sharded over the ranks that hold a parameter (ZeRO-1, Rajbhandari et al.,
// 2020), all ranks for dense ones, the replicas for an expert's.
//
// Parameters are cut in chunks of kSquareChunk elements. Parameters with the
// same holders are laid one after the other and cut in as many even parts as
// there are holders, at chunk boundaries, so a rank has few, long ranges. The
// same on every rank. Immutable, so any thread may read it.
#ifndef OCTET_WORKER_TRAIN_SHARD_MAP_H_
#define OCTET_WORKER_TRAIN_SHARD_MAP_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "worker/moe/placement.h"
#include "worker/train/parameters.h"

namespace octet {

// Elements [begin, end) of one parameter, owned by `rank`.
struct OwnedRange {
  int parameter = 0;
  int rank = 0;
  int64_t begin = 0;  // a multiple of kSquareChunk
  int64_t end = 0;

  int64_t num_elements() const { return end - begin; }
};

class ShardMap {
 public:
  ShardMap(const ParameterSet& parameters, const Placement& placement);

  int num_ranks() const { return static_cast<int>(ranges_of_rank_.size()); }
  // Of one parameter, by rising element: together all of it.
  absl::Span<const OwnedRange> RangesOf(int parameter) const {
    return ranges_of_parameter_[parameter];
  }
  // Of one rank, by parameter and element.
  absl::Span<const OwnedRange> OwnedBy(int rank) const {
    return ranges_of_rank_[rank];
  }
  int64_t NumOwned(int rank) const { return num_owned_[rank]; }
  // Rising.
  absl::Span<const int> HoldersOf(int parameter) const {
    return holders_[parameter];
  }
  bool Holds(int rank, int parameter) const;

 private:
  std::vector<std::vector<OwnedRange>> ranges_of_parameter_;
  std::vector<std::vector<OwnedRange>> ranges_of_rank_;
  std::vector<int64_t> num_owned_;
  std::vector<std::vector<int>> holders_;
};

}  // namespace octet

#endif  // OCTET_WORKER_TRAIN_SHARD_MAP_H_
