// Looks for stop strings in a text that comes in parts, and holds back any end
// of it that could be the beginning of one. The result does not depend on how
// the text was cut: the match is the stop string that ends first in the text,
// and the longest of those that end at the same place.
//
// One Knuth-Morris-Pratt automaton per stop string; work is proportional to
// text bytes times stop strings. When stop strings and text are valid UTF-8,
// what is let through is too, if each part is.
// Not thread-safe: one matcher per stream.
#ifndef OCTET_TEXT_STOP_MATCHER_H_
#define OCTET_TEXT_STOP_MATCHER_H_

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace octet {

class StopMatcher {
 public:
  // InvalidArgument when a stop string is empty. No stop strings: everything
  // passes.
  static absl::StatusOr<StopMatcher> Create(std::vector<std::string> stops);

  // The text that is now known to stand before any stop string. Once one has
  // matched, later text is ignored.
  std::string Push(absl::string_view text);
  // At the end of the text: what was held back.
  std::string Finish();

  // Index of the stop string that was found.
  std::optional<size_t> matched() const { return matched_; }

 private:
  struct Pattern {
    std::string text;
    std::vector<size_t> fallback;  // [size + 1] longest border of each prefix
    size_t num_matched = 0;        // bytes of `text` that end the text so far
  };

  static void Advance(Pattern& pattern, char byte);

  std::vector<Pattern> patterns_;
  std::string held_;
  std::optional<size_t> matched_;
};

}  // namespace octet

#endif  // OCTET_TEXT_STOP_MATCHER_H_
