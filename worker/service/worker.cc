#include "worker/service/worker.h"

#include <algorithm>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "worker/comm/local/local_group.h"
#include "worker/serve/group_loop.h"
#include "worker/service/coordinator_link.h"
#include "worker/service/rank.h"

namespace octet {
namespace {

// Cache for this many sequences at full length is enough, however much memory
// the host has.
constexpr int64_t kDefaultSequences = 16;

absl::Status CheckOptions(const WorkerOptions& options) {
  if (options.kv_block_tokens < 1) {
    return absl::InvalidArgumentError(absl::StrCat("kv_block_tokens is ",
                                                   options.kv_block_tokens,
                                                   ", expected at least 1"));
  }
  if (options.moe_chunks < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "moe_chunks is ", options.moe_chunks, ", expected at least 1"));
  }
  if (options.max_step_tokens < 1) {
    return absl::InvalidArgumentError(absl::StrCat("max_step_tokens is ",
                                                   options.max_step_tokens,
                                                   ", expected at least 1"));
  }
  if (options.kv_blocks < 0 ||
      (options.kv_blocks > 0 && options.kv_cache_bytes > 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("kv_blocks is ", options.kv_blocks,
                     ", expected at least 0, and 0 with kv_cache_bytes"));
  }
  if (options.kv_cache_bytes < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "kv_cache_bytes is ", options.kv_cache_bytes, ", expected at least 0"));
  }
  return absl::OkStatus();
}

// Up to the first plan.
absl::Status SetUp(const WorkerOptions& options, Communicator& communicator,
                   std::unique_ptr<Rank>& rank,
                   std::unique_ptr<CoordinatorLink>& link) {
  OCTET_RETURN_IF_ERROR(CheckOptions(options));
  OCTET_ASSIGN_OR_RETURN(rank, Rank::Create(options, &communicator));
  OCTET_ASSIGN_OR_RETURN(const auto hello, rank->MakeHello());
  if (!hello.has_value()) return absl::OkStatus();
  OCTET_ASSIGN_OR_RETURN(link, CoordinatorLink::Connect(
                                   options.coordinator_address, *hello,
                                   options.connect_timeout, options.cancelled));
  OCTET_LOG(INFO) << communicator.size() << " ranks over "
                  << communicator.transport() << " serve " << options.model_dir
                  << ", epoch " << link->epoch();
  return absl::OkStatus();
}

}  // namespace

int64_t DefaultKvCacheBytes(int64_t available_bytes, int ranks_on_host,
                            int64_t bytes_per_block, int64_t block_tokens,
                            int64_t max_position) {
  const int64_t blocks_per_sequence =
      (max_position + block_tokens - 1) / block_tokens;
  const int64_t enough =
      std::min(kMaxKvBlocks, kDefaultSequences * blocks_per_sequence) *
      bytes_per_block;
  const int64_t share = available_bytes / 4 / ranks_on_host;
  return std::max(bytes_per_block, std::min(enough, share));
}

absl::Status RunWorkerRank(const WorkerOptions& options,
                           Communicator& communicator) {
  std::unique_ptr<Rank> rank;
  std::unique_ptr<CoordinatorLink> link;
  const absl::Status status = SetUp(options, communicator, rank, link);
  if (!status.ok()) {
    communicator.Abort(status);
    return status;
  }
  OCTET_RETURN_IF_ERROR(GroupLoop(&communicator, &rank->engine(),
                                  &rank->trainer(), rank->config().num_experts,
                                  link.get())
                            .Run());
  return link != nullptr ? link->end() : absl::OkStatus();
}

absl::Status RunLocalWorkers(const WorkerOptions& options, int num_ranks,
                             absl::Duration timeout) {
  LocalGroupOptions group_options;
  group_options.communicator.timeout = timeout;
  const std::vector<std::unique_ptr<Communicator>> group =
      NewLocalGroup(num_ranks, group_options);
  std::vector<absl::Status> results(num_ranks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < num_ranks; ++rank) {
    threads.emplace_back(
        [&, rank] { results[rank] = RunWorkerRank(options, *group[rank]); });
  }
  for (std::thread& thread : threads) thread.join();
  // UNAVAILABLE is what the others say about the rank that failed.
  absl::Status first;
  for (const absl::Status& result : results) {
    if (result.ok()) continue;
    if (first.ok() || absl::IsUnavailable(first)) first = result;
  }
  return first;
}

}  // namespace octet
