// What became of the rows, for the user to read at the end.
#ifndef OCTET_CLIENT_DATA_DATA_REPORT_H_
#define OCTET_CLIENT_DATA_DATA_REPORT_H_

#include <cstdint>
#include <string>
#include <vector>

namespace octet {

inline constexpr size_t kMaxReportedRows = 10;

struct DataReport {
  int64_t rows = 0;            // read, bad ones too
  int64_t bad_rows = 0;        // wrong, and skipped
  int64_t empty_rows = 0;      // without a question or an answer: no example
  int64_t dropped_rows = 0;    // the question alone is too long: no example
  int64_t truncated_rows = 0;  // cut to the length
  int64_t examples = 0;
  int64_t tokens = 0;
  int64_t labels = 0;                       // of tokens that are learnt
  std::vector<std::string> bad_row_errors;  // the first kMaxReportedRows
  std::vector<std::string> warnings;

  // One line per thing that there is to say.
  std::string Text() const;
};

}  // namespace octet

#endif  // OCTET_CLIENT_DATA_DATA_REPORT_H_
