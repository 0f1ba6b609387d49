// SentencePiece itself, as the separate programs of Debian's package
// `sentencepiece`: the oracle of the tokenizer tests.
#ifndef OCTET_TESTS_TEXT_SPM_ORACLE_H_
#define OCTET_TESTS_TEXT_SPM_ORACLE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "tests/support/data.h"

namespace octet::test {

// The reason to skip, or nullopt when spm_encode, spm_decode and spm_train are
// there.
std::optional<std::string> WhyNoSpm();

class SpmOracle {
 public:
  explicit SpmOracle(std::string model_path)
      : model_path_(std::move(model_path)) {}

  // One process for all `lines`, none of which may hold a newline.
  std::vector<std::vector<int32_t>> Encode(
      const std::vector<std::string>& lines) const;
  // No element of `ids` may be empty or decode to text with a newline: the
  // program has no way to tell them.
  std::vector<std::string> Decode(
      const std::vector<std::vector<int32_t>>& ids) const;

 private:
  std::vector<std::string> Run(absl::string_view program,
                               absl::string_view format_flag,
                               const std::vector<std::string>& lines) const;

  std::string model_path_;
};

// Runs spm_train with `flags` on `lines`; the path of the model, in `dir`.
std::string TrainModel(const TempDir& dir, absl::string_view flags,
                       const std::vector<std::string>& lines);

std::string ReadFile(const std::string& path);
void WriteFile(const std::string& path, absl::string_view bytes);
// Without the newlines; a last line without one counts.
std::vector<std::string> ReadLines(const std::string& path);

}  // namespace octet::test

#endif  // OCTET_TESTS_TEXT_SPM_ORACLE_H_
