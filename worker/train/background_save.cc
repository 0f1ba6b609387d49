#include "worker/train/background_save.h"

#include <algorithm>
#include <chrono>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "worker/comm/group_messages.h"
#include "worker/train/file_op.h"
#include "worker/train/refusal.h"

namespace octet {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);
// Between looks at the group while this rank waits for its own file.
constexpr std::chrono::milliseconds kLook(50);
// What clocks count without overflow.
constexpr absl::Duration kLongestPause = absl::Hours(24 * 365);

// A file that cannot be written is no reason to end the group, whatever code
// the system's error has.
absl::Status AsRefusal(const absl::Status& status) {
  if (status.ok() || IsRefusal(status)) return status;
  return absl::UnknownError(status.message());
}

}  // namespace

absl::Status StateSnapshot::Take(WeightTrainer& trainer) {
  const int rank = trainer.model().communicator->rank();
  const absl::Span<const OwnedRange> owned = trainer.shards().OwnedBy(rank);
  const int64_t num_elements = trainer.shards().NumOwned(rank);
  if (values_ == nullptr) {
    // Not filled with zeros: a page is touched when it is copied to.
    values_.reset(new (std::nothrow) float[kNumStateTensors * num_elements]);
    if (values_ == nullptr) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "the copy for a save in the background takes ",
          kNumStateTensors * num_elements * kFloatBytes,
          " bytes of host memory of rank ", rank, ", which are not there"));
    }
    num_elements_ = num_elements;
    int64_t offset = 0;
    for (const OwnedRange& range : owned) {
      offsets_.push_back(offset - range.begin);
      offset += range.end - range.begin;
    }
  }
  Backend& backend = *trainer.model().backend;
  for (int kind = 0; kind < kNumStateTensors; ++kind) {
    for (size_t i = 0; i < owned.size(); ++i) {
      const Tensor state = trainer.optimizer().state(kStateKinds[kind], i);
      float* to = &values_[kind * num_elements_ + offsets_[i] + owned[i].begin];
      OCTET_RETURN_IF_ERROR(EndsGroup(backend.CopyToHost(
          to, state.data(), state.num_bytes(), trainer.stream())));
    }
  }
  return EndsGroup(backend.Synchronize(trainer.stream()));
}

const float* StateSnapshot::Values(int kind, size_t range,
                                   int64_t begin) const {
  return &values_[kind * num_elements_ + offsets_[range] + begin];
}

BackgroundSave::BackgroundSave(WeightTrainer& trainer, const std::string& path,
                               const RunProgress& progress,
                               int64_t bytes_per_second,
                               const StateSnapshot& snapshot)
    : communicator_(*trainer.model().communicator),
      root_(communicator_.rank() == 0),
      directory_(path),
      snapshot_(snapshot),
      bytes_per_second_(bytes_per_second),
      manifest_(BeginManifest(trainer, progress)),
      own_(CutOwnState(trainer)) {}

absl::StatusOr<std::unique_ptr<BackgroundSave>> BackgroundSave::Begin(
    WeightTrainer& trainer, const std::string& path,
    const RunProgress& progress, int64_t bytes_per_second,
    StateSnapshot& snapshot, int64_t step_id) {
  OCTET_RETURN_IF_ERROR(CheckNothingPending(trainer));
  const OpInfo op = FileOp("begin background save", step_id);
  std::unique_ptr<BackgroundSave> save(
      new BackgroundSave(trainer, path, progress, bytes_per_second, snapshot));
  Communicator& communicator = save->communicator_;
  OCTET_RETURN_IF_ERROR(AgreeOnStatus(
      communicator, save->root_ ? save->directory_.Begin() : absl::OkStatus(),
      op));
  const absl::Status copied =
      AgreeOnStatus(communicator, snapshot.Take(trainer), op);
  if (!copied.ok()) {
    if (save->root_) save->directory_.Abandon();
    return copied;
  }
  save->num_bytes_ = save->own_.num_bytes();
  OCTET_RETURN_IF_ERROR(communicator.AllReduceI64(
      absl::MakeSpan(&save->num_bytes_, 1), ReduceOp::kSum, op));
  save->start_ = absl::Now();
  save->thread_ = std::thread([save = save.get()] { save->Run(); });
  return save;
}

BackgroundSave::~BackgroundSave() {
  if (stage_ == Stage::kDone || !thread_.joinable()) return;
  End(absl::CancelledError("the group has ended"));
}

// ---- the inner thread

void BackgroundSave::Run() {
  Report(Reached::kFile, WriteFile());
  if (!root_ || !AwaitHandOver()) return;
  std::vector<std::string> pieces;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    pieces = std::move(pieces_);
  }
  absl::Status status =
      WriteManifest(directory_.staging_path(), pieces, manifest_);
  if (status.ok()) status = directory_.Commit();
  Report(Reached::kCommit, std::move(status));
}

absl::Status BackgroundSave::WriteFile() {
  const StateSource source = [this](const OwnState& own, size_t i,
                                    int kind) -> absl::StatusOr<const float*> {
    const StatePiece& piece = own.pieces[i];
    OCTET_RETURN_IF_ERROR(Pace((piece.end - piece.begin) * kFloatBytes));
    return snapshot_.Values(kind, own.ranges[i], piece.begin);
  };
  return WriteOwnState(directory_.staging_path(), source, own_);
}

absl::Status BackgroundSave::Pace(int64_t num_bytes) {
  paced_bytes_ += num_bytes;
  std::unique_lock<std::mutex> lock(mutex_);
  if (bytes_per_second_ > 0) {
    const absl::Duration since_start =
        absl::Seconds(static_cast<double>(paced_bytes_) /
                      static_cast<double>(bytes_per_second_));
    const absl::Duration left =
        std::min(start_ + since_start - absl::Now(), kLongestPause);
    changed_.wait_for(lock, absl::ToChronoNanoseconds(left),
                      [this] { return hurry_ || cancelled_; });
  }
  if (cancelled_) return absl::CancelledError("the save was given up");
  return absl::OkStatus();
}

bool BackgroundSave::AwaitHandOver() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return handed_over_ || cancelled_; });
  return !cancelled_;
}

void BackgroundSave::Report(Reached point, absl::Status status) {
  const std::lock_guard<std::mutex> lock(mutex_);
  reached_ = point;
  status_ = AsRefusal(status);
  changed_.notify_all();
}

// ---- the group loop's thread

absl::StatusOr<bool> BackgroundSave::Advance(bool wait, int64_t step_id) {
  const OpInfo op = FileOp("background save", step_id);
  if (wait) {
    const std::lock_guard<std::mutex> lock(mutex_);
    hurry_ = true;
    changed_.notify_all();
  }
  if (stage_ == Stage::kFiles) {
    OCTET_ASSIGN_OR_RETURN(const bool there,
                           AllReached(Reached::kFile, true, wait, op));
    if (!there) return false;
    const absl::Status status =
        AgreeOnStatus(communicator_, ThreadStatus(), op);
    if (IsRefusal(status)) {
      End(status);
    } else {
      OCTET_RETURN_IF_ERROR(status);
      OCTET_RETURN_IF_ERROR(HandOver(op));
    }
  }
  if (stage_ == Stage::kCommit) {
    OCTET_ASSIGN_OR_RETURN(const bool there,
                           AllReached(Reached::kCommit, root_, wait, op));
    if (!there) return false;
    const absl::Status status = AgreeOnStatus(
        communicator_, root_ ? ThreadStatus() : absl::OkStatus(), op);
    if (!status.ok() && !IsRefusal(status)) return status;
    End(status);
  }
  return true;
}

absl::StatusOr<bool> BackgroundSave::AllReached(Reached point, bool own,
                                                bool wait, const OpInfo& op) {
  if (own && wait) OCTET_RETURN_IF_ERROR(AwaitOwn(point, op));
  int64_t missing = 0;
  if (own) {
    const std::lock_guard<std::mutex> lock(mutex_);
    missing = reached_ < point ? 1 : 0;
  }
  OCTET_RETURN_IF_ERROR(communicator_.AllReduceI64(absl::MakeSpan(&missing, 1),
                                                   ReduceOp::kMax, op));
  return missing == 0;
}

absl::Status BackgroundSave::AwaitOwn(Reached point, const OpInfo& op) {
  const auto there = [this, point] { return reached_ >= point; };
  const absl::Time deadline = absl::Now() + *op.timeout;
  while (true) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      if (changed_.wait_for(lock, kLook, there)) break;
    }
    OCTET_RETURN_IF_ERROR(communicator_.Poll(op));
    if (absl::Now() > deadline) {
      return absl::DeadlineExceededError(absl::StrCat(
          directory_.staging_path(), ": rank ", communicator_.rank(),
          " has not written its file in ", absl::FormatDuration(*op.timeout)));
    }
  }
  return absl::OkStatus();
}

absl::Status BackgroundSave::ThreadStatus() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return status_;
}

absl::Status BackgroundSave::HandOver(const OpInfo& op) {
  OCTET_ASSIGN_OR_RETURN(std::vector<std::string> pieces,
                         GatherMessages(communicator_, EncodePieces(own_), op));
  stage_ = Stage::kCommit;
  const std::lock_guard<std::mutex> lock(mutex_);
  pieces_ = std::move(pieces);
  handed_over_ = true;
  changed_.notify_all();
  return absl::OkStatus();
}

void BackgroundSave::End(const absl::Status& result) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    cancelled_ = true;
    changed_.notify_all();
  }
  thread_.join();
  // A directory that was renamed before has another name than this.
  if (root_ && !result.ok()) directory_.Abandon();
  stage_ = Stage::kDone;
  result_ = result;
}

}  // namespace octet
