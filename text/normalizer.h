// Text as the vocabulary sees it, by the rules of SentencePiece's identity
// normaliser: broken UTF-8 becomes U+FFFD (one per byte), spaces become U+2581,
// a space is put before the text and extra spaces are removed where the model
// says so. User-defined pieces pass as they are. Pure.
#ifndef OCTET_TEXT_NORMALIZER_H_
#define OCTET_TEXT_NORMALIZER_H_

#include <string>

#include "absl/strings/string_view.h"
#include "text/prefix_matcher.h"

namespace octet {

struct NormalizerOptions {
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

// The result is valid UTF-8; empty text (also once extra spaces are gone) stays
// empty.
std::string Normalize(absl::string_view text, const NormalizerOptions& options,
                      const PrefixMatcher& user_defined);

}  // namespace octet

#endif  // OCTET_TEXT_NORMALIZER_H_
