#include "worker/train/refusal.h"

namespace octet {

bool IsRefusal(const absl::Status& status) {
  return !status.ok() && !absl::IsUnavailable(status) &&
         !absl::IsDeadlineExceeded(status) && !absl::IsInternal(status);
}

absl::Status EndsGroup(const absl::Status& status) {
  if (!IsRefusal(status)) return status;
  return absl::InternalError(status.message());
}

}  // namespace octet
