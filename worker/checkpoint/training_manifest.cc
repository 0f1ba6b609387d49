#include "worker/checkpoint/training_manifest.h"

#include <cmath>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"
#include "worker/model/json_file.h"

namespace octet {
namespace {

constexpr char kFormat[] = "octet-training-state";
constexpr int64_t kVersion = 1;
constexpr const char* kKindNames[kNumStateTensors] = {"weight", "m", "v"};
constexpr int64_t kMaxElements = int64_t{1} << 48;

// Reads one manifest; sentences begin with the file's name.
class ManifestReader {
 public:
  explicit ManifestReader(absl::string_view name) : name_(name) {}

  absl::StatusOr<TrainingManifest> Read(const nlohmann::json& root) {
    TrainingManifest manifest;
    OCTET_RETURN_IF_ERROR(CheckHeader(root));
    OCTET_ASSIGN_OR_RETURN(manifest.optimizer_steps,
                           Count(root, "optimizer_steps"));
    OCTET_ASSIGN_OR_RETURN(manifest.run_slots, Count(root, "run_slots"));
    const nlohmann::json& seed = Field(root, "seed");
    if (!seed.is_number_unsigned()) return Error("seed", seed, "a number");
    manifest.seed = seed.get<uint64_t>();
    const nlohmann::json& scale = Field(root, "lora_scale");
    if (!scale.is_number() || !(scale.get<double>() >= 0) ||
        !std::isfinite(scale.get<double>())) {
      return Error("lora_scale", scale, "0 or a number above it");
    }
    manifest.lora_scale = scale.get<double>();
    OCTET_ASSIGN_OR_RETURN(manifest.client_state, Text(root, "client_state"));
    OCTET_RETURN_IF_ERROR(ReadFiles(Field(root, "files"), &manifest));
    const nlohmann::json& parameters = Field(root, "parameters");
    if (!parameters.is_array()) {
      return Error("parameters", parameters, "a list");
    }
    absl::flat_hash_set<std::string> names;
    for (const nlohmann::json& entry : parameters) {
      OCTET_ASSIGN_OR_RETURN(StateParameter parameter,
                             ReadParameter(entry, manifest.files.size()));
      if (!names.insert(parameter.name).second) {
        return absl::InvalidArgumentError(
            absl::StrCat(name_, ": parameter '", parameter.name,
                         "' is listed twice, expected it once"));
      }
      manifest.parameters.push_back(std::move(parameter));
    }
    return manifest;
  }

 private:
  absl::Status Error(absl::string_view what, const nlohmann::json& found,
                     absl::string_view expected) const {
    return absl::InvalidArgumentError(
        absl::StrCat(name_, ": ", what, " is ",
                     found.is_null() ? "missing" : JsonExcerpt(found),
                     ", expected ", expected));
  }

  static const nlohmann::json& Field(const nlohmann::json& object,
                                     const char* key) {
    static const auto* missing = new nlohmann::json();
    if (!object.is_object()) return *missing;
    const auto found = object.find(key);
    return found == object.end() ? *missing : *found;
  }

  absl::Status CheckHeader(const nlohmann::json& root) const {
    const nlohmann::json& format = Field(root, "format");
    if (format != kFormat) {
      return Error("format", format, absl::StrCat("\"", kFormat, "\""));
    }
    const nlohmann::json& version = Field(root, "version");
    if (version != kVersion) {
      return Error("version", version, absl::StrCat(kVersion));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<int64_t> Number(const nlohmann::json& found,
                                 absl::string_view what, int64_t low,
                                 int64_t high) const {
    if (found.is_number_integer() &&
        (!found.is_number_unsigned() ||
         found.get<uint64_t>() <= static_cast<uint64_t>(high))) {
      const int64_t value = found.get<int64_t>();
      if (value >= low && value <= high) return value;
    }
    return Error(what, found,
                 absl::StrCat("a whole number from ", low, " to ", high));
  }
  absl::StatusOr<int64_t> Count(const nlohmann::json& object,
                                const char* key) const {
    return Number(Field(object, key), key, 0, kMaxElements);
  }
  absl::StatusOr<std::string> Text(const nlohmann::json& object,
                                   const char* key) const {
    const nlohmann::json& found = Field(object, key);
    if (!found.is_string()) return Error(key, found, "text");
    return found.get<std::string>();
  }

  absl::Status ReadFiles(const nlohmann::json& files,
                         TrainingManifest* manifest) const {
    if (!files.is_array()) return Error("files", files, "a list");
    for (const nlohmann::json& file : files) {
      if (!file.is_string() || file == "" || file == "." || file == ".." ||
          file.get_ref<const std::string&>().find_first_of(
              std::string("/\0", 2)) != std::string::npos) {
        return Error("a file", file, "the name of a file in the directory");
      }
      manifest->files.push_back(file.get<std::string>());
    }
    return absl::OkStatus();
  }

  absl::StatusOr<StateParameter> ReadParameter(const nlohmann::json& entry,
                                               size_t num_files) const {
    StateParameter parameter;
    OCTET_ASSIGN_OR_RETURN(parameter.name, Text(entry, "name"));
    const nlohmann::json& shape = Field(entry, "shape");
    if (!shape.is_array() || shape.empty()) {
      return Error("a shape", shape, "a list of sizes");
    }
    int64_t num_elements = 1;
    for (const nlohmann::json& dim : shape) {
      OCTET_ASSIGN_OR_RETURN(
          const int64_t size,
          Number(dim, "a size", 1, kMaxElements / num_elements));
      num_elements *= size;
      parameter.shape.push_back(size);
    }
    const nlohmann::json& pieces = Field(entry, "pieces");
    if (!pieces.is_array()) return Error("pieces", pieces, "a list");
    int64_t next = 0;
    for (const nlohmann::json& piece : pieces) {
      OCTET_ASSIGN_OR_RETURN(StatePiece read,
                             ReadPiece(piece, next, num_elements, num_files));
      next = read.end;
      parameter.pieces.push_back(read);
    }
    if (next != num_elements) {
      return absl::InvalidArgumentError(
          absl::StrCat(name_, ": pieces of parameter '", parameter.name,
                       "' have ", next, " elements, expected ", num_elements));
    }
    return parameter;
  }

  // [file, end, hash, hash, hash]; it begins where the last one ends.
  absl::StatusOr<StatePiece> ReadPiece(const nlohmann::json& piece,
                                       int64_t begin, int64_t num_elements,
                                       size_t num_files) const {
    if (!piece.is_array() || piece.size() != 2 + kNumStateTensors) {
      return Error("a piece", piece, "[file, end, three hashes]");
    }
    StatePiece out;
    OCTET_ASSIGN_OR_RETURN(const int64_t file,
                           Number(piece[0], "the file of a piece", 0,
                                  static_cast<int64_t>(num_files) - 1));
    out.file = static_cast<int>(file);
    out.begin = begin;
    OCTET_ASSIGN_OR_RETURN(out.end, Number(piece[1], "the end of a piece",
                                           begin + 1, num_elements));
    for (int kind = 0; kind < kNumStateTensors; ++kind) {
      const nlohmann::json& hash = piece[2 + kind];
      if (!hash.is_string() ||
          hash.get_ref<const std::string&>().size() != 16 ||
          !absl::SimpleHexAtoi(hash.get_ref<const std::string&>(),
                               &out.hashes[kind])) {
        return Error("a hash", hash, "16 hexadecimal digits");
      }
    }
    return out;
  }

  const absl::string_view name_;
};

}  // namespace

absl::StatusOr<TrainingManifest> ParseTrainingManifest(absl::string_view json,
                                                       absl::string_view name) {
  OCTET_ASSIGN_OR_RETURN(const nlohmann::json root,
                         ParseJsonObject(json, name));
  return ManifestReader(name).Read(root);
}

std::string TrainingManifestToJson(const TrainingManifest& manifest) {
  nlohmann::ordered_json root;
  root["format"] = kFormat;
  root["version"] = kVersion;
  root["optimizer_steps"] = manifest.optimizer_steps;
  root["run_slots"] = manifest.run_slots;
  root["seed"] = manifest.seed;
  root["lora_scale"] = manifest.lora_scale;
  root["client_state"] = manifest.client_state;
  root["files"] = manifest.files;
  nlohmann::ordered_json& parameters = root["parameters"];
  parameters = nlohmann::ordered_json::array();
  for (const StateParameter& parameter : manifest.parameters) {
    nlohmann::ordered_json pieces = nlohmann::ordered_json::array();
    for (const StatePiece& piece : parameter.pieces) {
      nlohmann::ordered_json entry = {piece.file, piece.end};
      for (uint64_t hash : piece.hashes) {
        entry.push_back(absl::StrFormat("%016x", hash));
      }
      pieces.push_back(std::move(entry));
    }
    parameters.push_back({{"name", parameter.name},
                          {"shape", parameter.shape},
                          {"pieces", std::move(pieces)}});
  }
  return root.dump(1) + "\n";
}

std::string StateTensorName(absl::string_view parameter, int kind,
                            int64_t begin) {
  return absl::StrCat(parameter, ":", kKindNames[kind], ":", begin);
}

}  // namespace octet
