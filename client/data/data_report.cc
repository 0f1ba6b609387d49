#include "client/data/data_report.h"

#include "absl/strings/str_cat.h"

namespace octet {

std::string DataReport::Text() const {
  std::string text;
  for (const std::string& warning : warnings) {
    absl::StrAppend(&text, "warning: ", warning, "\n");
  }
  absl::StrAppend(&text, rows, " rows, ", examples, " examples, ", tokens,
                  " tokens, ", labels, " labels\n");
  const struct {
    int64_t count;
    const char* what;
  } notes[] = {
      {empty_rows, "without a question or an answer, left out"},
      {dropped_rows, "with a question that is too long, left out"},
      {truncated_rows, "cut to the length"},
      {bad_rows, "bad, skipped"},
  };
  for (const auto& note : notes) {
    if (note.count == 0) continue;
    absl::StrAppend(&text, note.count, note.count == 1 ? " row " : " rows ",
                    note.what, "\n");
  }
  for (const std::string& error : bad_row_errors) {
    absl::StrAppend(&text, "  ", error, "\n");
  }
  if (bad_rows > static_cast<int64_t>(bad_row_errors.size())) {
    absl::StrAppend(&text, "  ...\n");
  }
  return text;
}

}  // namespace octet
