// The part of MpiChannel that finds out why the group ends.
#include <algorithm>
#include <cstring>
#include <iterator>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "worker/comm/mpi/mpi_channel.h"

namespace octet {
namespace {

// Well below the second between mpirun's request to end and its end of a rank.
constexpr std::chrono::milliseconds kRollCallPatience{300};

}  // namespace

MpiChannel::Result MpiChannel::CheckAbort() const {
  if (peer_failed_) {
    return {static_cast<absl::StatusCode>(incoming_failure_.code), Missing(),
            std::string(incoming_failure_.reason,
                        strnlen(incoming_failure_.reason,
                                sizeof(incoming_failure_.reason)))};
  }
  if (abort_requested_) {
    std::lock_guard lock(abort_mutex_);
    return {absl::StatusCode::kUnavailable, Missing(), abort_reason_};
  }
  if (const char* reason = environment_.abort_reason()) {
    return {absl::StatusCode::kUnavailable, Missing(), reason};
  }
  return {};
}

std::vector<int> MpiChannel::CallTheRoll(int64_t point,
                                         std::chrono::milliseconds patience) {
  roll_call_.Ask(patience, [this] {
    bool progress = false;
    return Poll(&progress).ok() && !peer_failed_;
  });
  return roll_call_.Behind(point);
}

std::vector<int> MpiChannel::RanksBehind(int64_t point,
                                         std::chrono::milliseconds patience) {
  std::lock_guard lock(environment_.mpi_mutex_);
  return failed_ ? std::vector<int>() : CallTheRoll(point, patience);
}

void MpiChannel::NameTheSilent(Result& result) {
  const bool late = result.code == absl::StatusCode::kDeadlineExceeded;
  const bool ended = result.code == absl::StatusCode::kUnavailable &&
                     !abort_requested_ && environment_.abort_reason();
  if (peer_failed_ || (!late && !ended)) return;
  std::vector<int> silent =
      CallTheRoll(std::numeric_limits<int64_t>::min(), kRollCallPatience);
  if (peer_failed_) {  // it has asked before
    result = CheckAbort();
    return;
  }
  std::vector<int> silent_and_missing;
  std::set_intersection(
      silent.begin(), silent.end(), result.missing_ranks.begin(),
      result.missing_ranks.end(), std::back_inserter(silent_and_missing));
  if (!silent_and_missing.empty()) silent = std::move(silent_and_missing);
  if (silent.empty()) return;
  if (ended) {
    absl::StrAppend(&result.reason, "; no answer from rank ",
                    absl::StrJoin(silent, ", "));
  }
  result.missing_ranks = std::move(silent);
}

void MpiChannel::RequestAbort(const std::string& reason) {
  {
    std::lock_guard lock(abort_mutex_);
    if (abort_requested_) return;
    abort_reason_ = reason;
    abort_requested_ = true;
  }
  AnnounceAbort();
}

void MpiChannel::AnnounceAbort() {
  // An exchange under way holds the lock, sees the request and tells the peers.
  std::unique_lock lock(environment_.mpi_mutex_, std::try_to_lock);
  if (!lock.owns_lock()) return;
  std::string reason;
  {
    std::lock_guard abort_lock(abort_mutex_);
    reason = abort_reason_;
  }
  Announce(absl::StatusCode::kUnavailable, reason);
}

}  // namespace octet
