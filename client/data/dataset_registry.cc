#include "client/data/dataset_registry.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "client/data/byte_stream.h"
#include "client/data/lenient_json.h"
#include "client/data/row_reader.h"

namespace octet {
namespace {

using nlohmann::json;

constexpr size_t kMaxRegistryBytes = 16 << 20;

struct Column {
  const char* key;
  std::string ColumnNames::*name;
};
constexpr Column kAlpacaColumns[] = {{"prompt", &ColumnNames::prompt},
                                     {"query", &ColumnNames::query},
                                     {"response", &ColumnNames::response},
                                     {"history", &ColumnNames::history},
                                     {"system", &ColumnNames::system}};
constexpr Column kShareGptColumns[] = {{"messages", &ColumnNames::messages},
                                       {"role", &ColumnNames::role},
                                       {"content", &ColumnNames::content},
                                       {"system", &ColumnNames::system}};

absl::Span<const Column> ColumnsOf(RowFormat format) {
  if (format == RowFormat::kAlpaca) return kAlpacaColumns;
  return kShareGptColumns;
}

// "FILE: data set 'NAME' " and then what is wrong.
class EntryError {
 public:
  EntryError(absl::string_view file, absl::string_view dataset)
      : head_(absl::StrCat(file, ": data set '",
                           absl::Utf8SafeCHexEscape(dataset), "' ")) {}
  template <typename... Args>
  absl::Status operator()(const Args&... what) const {
    return absl::InvalidArgumentError(absl::StrCat(head_, what...));
  }

 private:
  const std::string head_;
};

std::string Join(absl::string_view dir, absl::string_view file) {
  return (std::filesystem::path(std::string(dir)) / std::string(file)).string();
}

// The files of a folder by name; those that begin with a dot are not seen.
absl::StatusOr<std::vector<std::string>> ListFolder(const std::string& dir) {
  std::error_code error;
  std::vector<std::string> files;
  for (std::filesystem::directory_iterator entry(dir, error), end;
       !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    std::error_code ignored;
    if (name[0] == '.' || entry->is_directory(ignored)) continue;
    files.push_back(entry->path().string());
  }
  if (error) {
    return absl::NotFoundError(
        absl::StrCat(dir, ": cannot read the folder: ", error.message()));
  }
  std::sort(files.begin(), files.end());
  return files;
}

absl::Status CheckKeys(const json& entry, const EntryError& wrong) {
  for (const char* hub : {"hf_hub_url", "ms_hub_url", "script_url"}) {
    if (!entry.contains(hub)) continue;
    return wrong("has '", hub,
                 "': nothing is downloaded here, expected 'file_name' of data "
                 "that is on this machine");
  }
  for (const auto& [key, value] : entry.items()) {
    if (key == "file_name" || key == "file_sha1" || key == "formatting" ||
        key == "columns") {
      continue;
    }
    if (key == "ranking") {
      if (!value.is_boolean()) {
        return wrong("has 'ranking' = ", JsonTypeName(value),
                     ", expected true or false");
      }
      if (!value.get<bool>()) continue;
      return wrong(
          "holds rankings, expected questions and answers or plain text: "
          "reward and preference training are not done here");
    }
    return wrong("has the field '", absl::Utf8SafeCHexEscape(key),
                 "', expected file_name, file_sha1, formatting, columns or "
                 "ranking");
  }
  if (!entry.contains("file_name") || !entry["file_name"].is_string() ||
      entry["file_name"].get_ref<const std::string&>().empty()) {
    return wrong("has no 'file_name', expected the name of a file or folder");
  }
  return absl::OkStatus();
}

absl::Status ReadFormat(const json& entry, const EntryError& wrong,
                        DatasetSpec& spec) {
  if (!entry.contains("formatting")) return absl::OkStatus();
  const json& format = entry["formatting"];
  if (format == "alpaca") {
    spec.format = RowFormat::kAlpaca;
  } else if (format == "sharegpt") {
    spec.format = RowFormat::kShareGpt;
  } else {
    return wrong("has a 'formatting' that is ",
                 format.is_string()
                     ? absl::StrCat("'",
                                    absl::Utf8SafeCHexEscape(
                                        format.get_ref<const std::string&>()),
                                    "'")
                     : std::string(JsonTypeName(format)),
                 ", expected 'alpaca' or 'sharegpt'");
  }
  return absl::OkStatus();
}

absl::Status ReadColumns(const json& entry, const EntryError& wrong,
                         UnnamedColumns unnamed, DatasetSpec& spec) {
  if (!entry.contains("columns")) return absl::OkStatus();
  const json& columns = entry["columns"];
  if (!columns.is_object()) {
    return wrong("has 'columns' that is ", JsonTypeName(columns),
                 ", expected an object");
  }
  const absl::Span<const Column> known = ColumnsOf(spec.format);
  if (unnamed == UnnamedColumns::kNone) {
    for (const Column& column : known) (spec.columns.*column.name).clear();
  }
  for (const auto& [key, value] : columns.items()) {
    const auto column =
        std::find_if(known.begin(), known.end(),
                     [&key = key](const Column& c) { return key == c.key; });
    if (column == known.end()) {
      return wrong(
          "has the column '", absl::Utf8SafeCHexEscape(key),
          "', expected one of ",
          absl::StrJoin(known, ", ", [](std::string* out, const Column& c) {
            out->append(c.key);
          }));
    }
    if (!value.is_string() && !value.is_null()) {
      return wrong("has the column '", key, "' = ", JsonTypeName(value),
                   ", expected the name of a field");
    }
    spec.columns.*column->name =
        value.is_null() ? "" : value.get<std::string>();
  }
  return absl::OkStatus();
}

// A file, or all files of a folder, which are of one type.
absl::Status ReadFiles(const std::string& path, const EntryError& wrong,
                       DatasetSpec& spec) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) {
    spec.files = {path};
  } else {
    OCTET_ASSIGN_OR_RETURN(spec.files, ListFolder(path));
    if (spec.files.empty())
      return wrong("is the folder ", path, ", which is empty");
  }
  const std::string extension = FileExtension(spec.files[0]);
  for (const std::string& file : spec.files) {
    OCTET_RETURN_IF_ERROR(CheckExtension(file));
    if (FileExtension(file) == extension) continue;
    return wrong("is a folder with ", spec.files[0], " and ", file,
                 ", expected files of one type");
  }
  return absl::OkStatus();
}

// A line of a text file is in the field "text".
void UseTextColumn(bool prompt_is_named, DatasetSpec& spec) {
  if (FileExtension(spec.files[0]) == ".txt" && !prompt_is_named) {
    spec.columns.prompt = "text";
  }
}

}  // namespace

absl::StatusOr<DatasetRegistry> DatasetRegistry::Load(const std::string& dir) {
  const std::string path = Join(dir, "dataset_info.json");
  OCTET_ASSIGN_OR_RETURN(auto stream, ByteStream::Open(path));
  std::string text;
  while (stream->Peek() >= 0 && text.size() <= kMaxRegistryBytes) {
    text.push_back(static_cast<char>(stream->Get()));
  }
  OCTET_RETURN_IF_ERROR(stream->status());
  if (text.size() > kMaxRegistryBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": the file has more than ", kMaxRegistryBytes,
                     " bytes, expected a list of data sets"));
  }
  return Parse(text, path, dir);
}

absl::StatusOr<DatasetRegistry> DatasetRegistry::Parse(absl::string_view text,
                                                       absl::string_view name,
                                                       absl::string_view dir) {
  OCTET_ASSIGN_OR_RETURN(LenientJson parsed,
                         ParseLenientJsonObject(text, name));
  DatasetRegistry registry;
  registry.name_ = std::string(name);
  registry.dir_ = std::string(dir);
  registry.entries_ = std::move(parsed.value);
  for (const int64_t line : parsed.comma_lines) {
    registry.warnings_.push_back(
        absl::StrCat(name, ":", line,
                     ": a comma before a closing bracket is "
                     "not valid JSON; read as if it were not "
                     "there"));
  }
  return registry;
}

absl::StatusOr<DatasetSpec> DatasetRegistry::Find(
    absl::string_view dataset, UnnamedColumns unnamed) const {
  const auto found = entries_.find(std::string(dataset));
  if (found == entries_.end()) {
    std::vector<std::string> names;
    for (const auto& item : entries_.items()) names.push_back(item.key());
    return absl::NotFoundError(absl::StrCat(
        name_, ": has no data set '", absl::Utf8SafeCHexEscape(dataset),
        "', expected one of: ", absl::StrJoin(names, ", ")));
  }
  const EntryError wrong(name_, dataset);
  const json& entry = *found;
  if (!entry.is_object()) {
    return wrong("is ", JsonTypeName(entry), ", expected an object");
  }
  DatasetSpec spec;
  spec.name = std::string(dataset);
  OCTET_RETURN_IF_ERROR(CheckKeys(entry, wrong));
  OCTET_RETURN_IF_ERROR(ReadFormat(entry, wrong, spec));
  OCTET_RETURN_IF_ERROR(ReadColumns(entry, wrong, unnamed, spec));
  OCTET_RETURN_IF_ERROR(
      ReadFiles(Join(dir_, entry["file_name"].get_ref<const std::string&>()),
                wrong, spec));
  const bool prompt_is_named =
      entry.contains("columns") &&
      (unnamed == UnnamedColumns::kNone || entry["columns"].contains("prompt"));
  UseTextColumn(prompt_is_named, spec);
  return spec;
}

absl::StatusOr<std::vector<DatasetSpec>> DatasetsOfFiles(
    const std::vector<std::string>& paths) {
  std::vector<DatasetSpec> specs;
  for (const std::string& path : paths) {
    OCTET_RETURN_IF_ERROR(CheckExtension(path));
    DatasetSpec spec;
    spec.name = std::filesystem::path(path).filename().string();
    spec.files = {path};
    UseTextColumn(/*prompt_is_named=*/false, spec);
    specs.push_back(std::move(spec));
  }
  return specs;
}

absl::StatusOr<std::vector<DatasetSpec>> DatasetsOfFolder(
    const std::string& dir, absl::string_view extension) {
  OCTET_ASSIGN_OR_RETURN(std::vector<std::string> files, ListFolder(dir));
  files.erase(std::remove_if(files.begin(), files.end(),
                             [&](const std::string& file) {
                               return FileExtension(file) != extension ||
                                      std::filesystem::path(file).filename() ==
                                          "dataset_info.json";
                             }),
              files.end());
  if (files.empty()) {
    return absl::NotFoundError(absl::StrCat(dir, ": the folder has no *",
                                            extension, " file to train on"));
  }
  return DatasetsOfFiles(files);
}

}  // namespace octet
