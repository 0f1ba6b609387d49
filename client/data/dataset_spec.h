// What one data set is: its files and how their rows are to be read.
#ifndef OCTET_CLIENT_DATA_DATASET_SPEC_H_
#define OCTET_CLIENT_DATA_DATASET_SPEC_H_

#include <string>
#include <vector>

namespace octet {

enum class RowFormat {
  kAlpaca,    // one question and answer in fields, perhaps with a history
  kShareGpt,  // a list of messages
};

// The fields of a row; an empty name means that there is none.
struct ColumnNames {
  // Alpaca. The question is `prompt`, and `query` on a line of its own after
  // it where that is not empty. In pre-training `prompt` is the text.
  std::string prompt = "instruction";
  std::string query = "input";
  std::string response = "output";
  std::string history;  // a list of [question, answer]
  // ShareGPT.
  std::string messages = "conversations";
  std::string role = "from";
  std::string content = "value";
  // Both.
  std::string system;
};

struct DatasetSpec {
  std::string name;
  std::vector<std::string> files;  // paths, in the order they are read
  RowFormat format = RowFormat::kAlpaca;
  ColumnNames columns;
};

}  // namespace octet

#endif  // OCTET_CLIENT_DATA_DATASET_SPEC_H_
