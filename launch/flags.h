// Command-line flags and YAML files that mean the same: `--key value` is `key:
// value` in the file given with
// `--config FILE`. A flag on the command line wins over the file.
//
//   Flags flags("octet serve", "Serves a model on this machine.");
//   flags.Add("workers", &options.workers, "worker ranks", {.min = 1, .max =
//   1024}); OCTET_ASSIGN_OR_RETURN(bool go_on, flags.Parse(args));  // false:
//   help was asked for and printed
//
// Underscores in names mean dashes (`--learning_rate`, as the seeds write it),
// and a switch may have its value as the next argument ("--plot_loss True").
//
// A target holds its default before Parse. Errors are one sentence that names
// the flag (or file and key), what was found and what was expected. One thread
// at a time.
#ifndef OCTET_LAUNCH_FLAGS_H_
#define OCTET_LAUNCH_FLAGS_H_

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace octet {

// Bounds of a numeric flag, both included.
struct Range {
  double min = std::numeric_limits<double>::lowest();
  double max = std::numeric_limits<double>::max();
};

class Flags {
 public:
  Flags(std::string program, std::string summary);
  ~Flags();
  Flags(const Flags&) = delete;
  Flags& operator=(const Flags&) = delete;

  void Add(const std::string& name, std::string* target,
           const std::string& help);
  void Add(const std::string& name, bool* target, const std::string& help);
  void Add(const std::string& name, int* target, const std::string& help,
           Range range = {});
  void Add(const std::string& name, int64_t* target, const std::string& help,
           Range range = {});
  void Add(const std::string& name, uint64_t* target, const std::string& help);
  void Add(const std::string& name, float* target, const std::string& help,
           Range range = {});
  void Add(const std::string& name, std::optional<int>* target,
           const std::string& help, Range range = {});
  void Add(const std::string& name, std::optional<uint64_t>* target,
           const std::string& help);
  void Add(const std::string& name, std::optional<float>* target,
           const std::string& help, Range range = {});
  // "1.5s", "200ms", "2m".
  void Add(const std::string& name, absl::Duration* target,
           const std::string& help);
  // "1,8,64": whole numbers with commas between, at least one.
  void Add(const std::string& name, std::vector<int>* target,
           const std::string& help, Range range = {});
  // May be given several times; a YAML list.
  void Add(const std::string& name, std::vector<std::string>* target,
           const std::string& help);
  // One of `choices`.
  void AddChoice(const std::string& name, std::string* target,
                 std::vector<std::string> choices, const std::string& help);
  // Arguments that are not flags (each at most once, in this order).
  void AddPositional(const std::string& name, std::string* target,
                     const std::string& help);

  // `alias` means the flag `name`, on the command line and in files.
  void AddAlias(const std::string& alias, const std::string& name);
  // Names that are accepted, with or without a value, and do nothing; what was
  // given of them is in ignored() after Parse.
  void Ignore(std::vector<std::string> names);
  const std::vector<std::string>& ignored() const;

  // `args` without the program's name.
  absl::StatusOr<bool> Parse(std::vector<std::string> args);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace octet

#endif  // OCTET_LAUNCH_FLAGS_H_
