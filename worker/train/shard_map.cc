#include "worker/train/shard_map.h"

#include <algorithm>
#include <map>

#include "kernels/training_backend.h"

namespace octet {
namespace {

constexpr int64_t kChunk = TrainingBackend::kSquareChunk;

}  // namespace

ShardMap::ShardMap(const ParameterSet& parameters, const Placement& placement)
    : ranges_of_parameter_(parameters.parameters().size()),
      ranges_of_rank_(placement.num_ranks()),
      num_owned_(placement.num_ranks(), 0) {
  // Elements that have the same holders, and how many are dealt out so far.
  struct Group {
    int64_t total = 0;
    int64_t dealt = 0;
  };
  std::map<std::vector<int>, Group> groups;
  for (const Parameter& parameter : parameters.parameters()) {
    holders_.push_back(octet::HoldersOf(parameter.weight, placement));
    groups[holders_.back()].total += parameter.num_elements();
  }
  for (size_t p = 0; p < holders_.size(); ++p) {
    const std::vector<int>& holders = holders_[p];
    Group& group = groups[holders];
    const int64_t num_elements = parameters.parameters()[p].num_elements();
    for (int64_t begin = 0; begin < num_elements; begin += kChunk) {
      const int64_t end = std::min(begin + kChunk, num_elements);
      // A chunk goes to the holder in whose part its middle lies.
      const double middle =
          (static_cast<double>(group.dealt) + 0.5 * (end - begin)) /
          static_cast<double>(group.total);
      const size_t part = std::min(
          holders.size() - 1,
          static_cast<size_t>(middle * static_cast<double>(holders.size())));
      group.dealt += end - begin;
      const int rank = holders[part];
      num_owned_[rank] += end - begin;
      std::vector<OwnedRange>& ranges = ranges_of_parameter_[p];
      if (!ranges.empty() && ranges.back().rank == rank) {
        ranges.back().end = end;
      } else {
        ranges.push_back({static_cast<int>(p), rank, begin, end});
      }
    }
  }
  for (const std::vector<OwnedRange>& ranges : ranges_of_parameter_) {
    for (const OwnedRange& range : ranges) {
      ranges_of_rank_[range.rank].push_back(range);
    }
  }
}

bool ShardMap::Holds(int rank, int parameter) const {
  const std::vector<int>& holders = holders_[parameter];
  return std::binary_search(holders.begin(), holders.end(), rank);
}

}  // namespace octet
