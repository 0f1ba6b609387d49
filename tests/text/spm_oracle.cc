#include "tests/text/spm_oracle.h"

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/logging.h"

namespace octet::test {
namespace {

void RunCommand(const std::string& command) {
  OCTET_CHECK(std::system(command.c_str()) == 0) << command;
}

}  // namespace

std::optional<std::string> WhyNoSpm() {
  const char* check =
      "command -v spm_encode spm_decode spm_train >/dev/null 2>&1";
  if (std::system(check) == 0) return std::nullopt;
  return "spm_encode, spm_decode and spm_train are not installed "
         "(apt-get install sentencepiece)";
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  OCTET_CHECK(file.good()) << path;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

void WriteFile(const std::string& path, absl::string_view bytes) {
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  OCTET_CHECK(file.good()) << path;
}

std::vector<std::string> ReadLines(const std::string& path) {
  std::vector<std::string> lines = absl::StrSplit(ReadFile(path), '\n');
  if (lines.back().empty()) lines.pop_back();
  return lines;
}

std::vector<std::string> SpmOracle::Run(
    absl::string_view program, absl::string_view format_flag,
    const std::vector<std::string>& lines) const {
  TempDir dir;
  const std::string input = absl::StrCat(dir.path(), "/input");
  const std::string output = absl::StrCat(dir.path(), "/output");
  WriteFile(input, absl::StrCat(absl::StrJoin(lines, "\n"), "\n"));
  RunCommand(absl::StrCat(program, " --model='", model_path_, "' ", format_flag,
                          "=id --input='", input, "' --output='", output,
                          "' 2>/dev/null"));
  std::vector<std::string> results = ReadLines(output);
  OCTET_CHECK(results.size() == lines.size())
      << program << " answered " << results.size() << " lines for "
      << lines.size();
  return results;
}

std::vector<std::vector<int32_t>> SpmOracle::Encode(
    const std::vector<std::string>& lines) const {
  std::vector<std::vector<int32_t>> encoded;
  for (const std::string& line : Run("spm_encode", "--output_format", lines)) {
    std::vector<int32_t>& ids = encoded.emplace_back();
    for (const absl::string_view word :
         absl::StrSplit(line, ' ', absl::SkipEmpty())) {
      int32_t id = 0;
      OCTET_CHECK(absl::SimpleAtoi(word, &id)) << word;
      ids.push_back(id);
    }
  }
  return encoded;
}

std::vector<std::string> SpmOracle::Decode(
    const std::vector<std::vector<int32_t>>& ids) const {
  std::vector<std::string> lines;
  for (const std::vector<int32_t>& sequence : ids) {
    lines.push_back(absl::StrJoin(sequence, " "));
  }
  return Run("spm_decode", "--input_format", lines);
}

std::string TrainModel(const TempDir& dir, absl::string_view flags,
                       const std::vector<std::string>& lines) {
  const std::string corpus = absl::StrCat(dir.path(), "/corpus.txt");
  const std::string prefix = absl::StrCat(dir.path(), "/model");
  WriteFile(corpus, absl::StrCat(absl::StrJoin(lines, "\n"), "\n"));
  RunCommand(absl::StrCat(
      "spm_train --model_type=bpe --normalization_rule_name=identity "
      "--num_threads=1 --minloglevel=2 --hard_vocab_limit=false --input='",
      corpus, "' --model_prefix='", prefix, "' ", flags, " >/dev/null 2>&1"));
  return absl::StrCat(prefix, ".model");
}

}  // namespace octet::test
