// The place of a run in its data as one line of text, for checkpoints.
#ifndef OCTET_CLIENT_DATA_POSITION_TEXT_H_
#define OCTET_CLIENT_DATA_POSITION_TEXT_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/data/example_feed.h"

namespace octet {

// `fingerprint` says of which data and options the position is.
std::string FormatPosition(const FeedPosition& position, uint64_t fingerprint);

// InvalidArgument for text that FormatPosition did not make, or made with
// another fingerprint.
absl::StatusOr<FeedPosition> ParsePosition(absl::string_view text,
                                           uint64_t fingerprint);

}  // namespace octet

#endif  // OCTET_CLIENT_DATA_POSITION_TEXT_H_
