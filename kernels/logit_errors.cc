#include "kernels/logit_errors.h"

#include "absl/strings/str_cat.h"

namespace octet {

absl::Status NotFiniteLogits(absl::string_view operation, int64_t row,
                             absl::string_view what) {
  return absl::InternalError(absl::StrCat(operation, ": logits of row ", row,
                                          " contain ", what,
                                          ", expected finite numbers"));
}

absl::Status NothingToDraw(absl::string_view operation, int64_t row) {
  return absl::InvalidArgumentError(
      absl::StrCat(operation, ": every token of row ", row,
                   " is banned or minus infinity, expected one that can be "
                   "drawn"));
}

}  // namespace octet
