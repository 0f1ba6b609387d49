#include "worker/train/state_saver.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/train/state_files.h"

namespace octet {
namespace {

namespace fs = std::filesystem;

fs::path Normal(const std::string& path) {
  const fs::path clean = fs::path(path).lexically_normal();
  return clean.has_filename() ? clean : clean.parent_path();
}

bool IsWithin(const fs::path& inner, const fs::path& outer) {
  const auto [at_outer, at_inner] =
      std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end());
  return at_outer == outer.end();
}

v1::StateSave ToSave(const std::string& path, v1::SaveStage stage,
                     int64_t optimizer_steps, int64_t num_bytes) {
  v1::StateSave save;
  save.set_path(path);
  save.set_stage(stage);
  save.set_optimizer_steps(optimizer_steps);
  save.set_num_bytes(num_bytes);
  return save;
}

}  // namespace

absl::StatusOr<v1::SaveStateResponse> StateSaver::Save(
    WeightTrainer& trainer, const v1::SaveStateRequest& request,
    const RunProgress& progress, int64_t step_id) {
  if (request.background() && !background_) {
    return absl::FailedPreconditionError(
        "background is true, expected false in a run that was created without "
        "background_saves: its memory plan has no room for the copy");
  }
  OCTET_RETURN_IF_ERROR(Settle(step_id));
  const std::string& path = request.path();
  const int64_t steps = trainer.optimizer().num_steps();
  v1::SaveStateResponse response;
  if (request.background()) {
    OCTET_ASSIGN_OR_RETURN(
        save_, BackgroundSave::Begin(trainer, path, progress, bytes_per_second_,
                                     snapshot_, step_id));
    response.set_num_bytes(save_->num_bytes());
    response.set_writing(true);
    last_ = ToSave(path, v1::SAVE_STAGE_WRITING, steps, response.num_bytes());
    return response;
  }
  OCTET_ASSIGN_OR_RETURN(const int64_t num_bytes,
                         SaveTrainingState(trainer, path, progress, step_id));
  response.set_num_bytes(num_bytes);
  last_ = ToSave(path, v1::SAVE_STAGE_COMPLETE, steps, num_bytes);
  return response;
}

absl::Status StateSaver::Settle(int64_t step_id) {
  OCTET_RETURN_IF_ERROR(Advance(/*wait=*/true, step_id));
  return std::exchange(untold_, absl::OkStatus());
}

absl::Status StateSaver::Check(int64_t step_id) {
  return Advance(/*wait=*/false, step_id);
}

absl::Status StateSaver::Advance(bool wait, int64_t step_id) {
  if (save_ == nullptr) return absl::OkStatus();
  OCTET_ASSIGN_OR_RETURN(const bool done, save_->Advance(wait, step_id));
  if (!done) return absl::OkStatus();
  const absl::Status& result = save_->result();
  last_->set_stage(result.ok() ? v1::SAVE_STAGE_COMPLETE
                               : v1::SAVE_STAGE_FAILED);
  if (!result.ok()) {
    untold_ = absl::Status(
        result.code(),
        absl::StrCat("the save in the background to ", last_->path(),
                     " after step ", last_->optimizer_steps(),
                     " failed: ", result.message()));
    last_->set_error(std::string(untold_.message()));
  }
  save_.reset();
  return absl::OkStatus();
}

bool StateSaver::Touches(const std::string& path) const {
  if (save_ == nullptr) return false;
  const fs::path asked = Normal(path), saved = Normal(last_->path());
  return IsWithin(asked, saved) || IsWithin(saved, asked);
}

}  // namespace octet
