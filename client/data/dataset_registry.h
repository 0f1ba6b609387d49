// The registry of data sets, DIR/dataset_info.json, in Aurora's form:
//
//   {"poems": {"file_name": "poems.txt"},          // a file or a folder
//    "chat": {"file_name": "chat.json", "formatting": "sharegpt",
//             "columns": {"messages": "conversations"}}}
//
// The formats and the names in `columns` are those of dataset_spec.h. A comma
// before a closing bracket, which Aurora's own file has, is accepted with a
// warning; anything else that is not strict JSON is refused. Data sets of a
// hub, of a script and of rankings are refused when they are asked for.
#ifndef OCTET_CLIENT_DATA_DATASET_REGISTRY_H_
#define OCTET_CLIENT_DATA_DATASET_REGISTRY_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/data/dataset_spec.h"
#include "nlohmann/json.hpp"

namespace octet {

// Which field stands for a column that `columns` does not name.
enum class UnnamedColumns {
  kDefault,  // the one of ColumnNames
  kNone,     // none, once `columns` is there: as Aurora has it
};

class DatasetRegistry {
 public:
  // Reads DIR/dataset_info.json.
  static absl::StatusOr<DatasetRegistry> Load(const std::string& dir);
  // From memory; `name` stands at the head of errors, files are under `dir`.
  static absl::StatusOr<DatasetRegistry> Parse(absl::string_view text,
                                               absl::string_view name,
                                               absl::string_view dir);

  // InvalidArgument says what is wrong with the entry; NotFound lists the
  // names there are. Looks at the file system: a folder is its files by name.
  absl::StatusOr<DatasetSpec> Find(absl::string_view dataset,
                                   UnnamedColumns unnamed) const;

  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  DatasetRegistry() = default;

  std::string name_;
  std::string dir_;
  nlohmann::json entries_;  // an object
  std::vector<std::string> warnings_;
};

// A data set of its own for each file, with the default columns.
absl::StatusOr<std::vector<DatasetSpec>> DatasetsOfFiles(
    const std::vector<std::string>& paths);
// The same for the files DIR/*EXTENSION, by name, as Chinese-Mixtral takes
// its data. `extension` is ".txt" or ".json".
absl::StatusOr<std::vector<DatasetSpec>> DatasetsOfFolder(
    const std::string& dir, absl::string_view extension);

}  // namespace octet

#endif  // OCTET_CLIENT_DATA_DATASET_REGISTRY_H_
