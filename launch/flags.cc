#include "launch/flags.h"

#include <yaml-cpp/yaml.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <functional>
#include <iostream>
#include <type_traits>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "launch/files.h"

namespace octet {
namespace {

// Converts one value; an empty string means it was taken, else what was
// expected instead.
using Converter = std::function<std::string(const std::string& text)>;

template <typename T>
std::string NumberExpectation(Range range) {
  const std::string kind =
      std::is_integral_v<T> ? "a whole number" : "a number";
  const bool has_min = range.min != Range{}.min;
  const bool has_max = range.max != Range{}.max;
  if (has_min && has_max) {
    return absl::StrFormat("%s in [%.15g, %.15g]", kind, range.min, range.max);
  }
  const char* const most = std::is_same_v<T, float> ? ", below 3.4e38" : "";
  if (has_min)
    return absl::StrFormat("%s of at least %.15g%s", kind, range.min, most);
  if (has_max) return absl::StrFormat("%s of at most %.15g", kind, range.max);
  return kind;
}

template <typename T>
bool ParseNumber(const std::string& text, T* value) {
  if constexpr (std::is_same_v<T, float>) {
    return absl::SimpleAtof(text, value) && std::isfinite(*value);
  } else {
    return absl::SimpleAtoi(text, value);
  }
}

template <typename T, typename Target>
Converter NumberConverter(Target* target, Range range) {
  return [target, range](const std::string& text) -> std::string {
    T value{};
    if (!ParseNumber(text, &value) || static_cast<double>(value) < range.min ||
        static_cast<double>(value) > range.max) {
      return NumberExpectation<T>(range);
    }
    *target = value;
    return "";
  };
}

absl::Status BadValue(const std::string& where, const std::string& found,
                      const std::string& expected) {
  return absl::InvalidArgumentError(
      absl::StrCat(where, " is '", found, "', expected ", expected));
}

}  // namespace

struct Flags::Impl {
  explicit Impl(const std::string& program, const std::string& summary)
      : app(summary, program) {
    app.set_help_flag("-h,--help", "print this help and exit");
    app.add_option("--config", config_file, "YAML file of flags (key: value)");
  }

  // Registers `--name` and says its default in the help.
  void AddConverted(const std::string& option_name, const std::string& help,
                    const std::string& type, const std::string& default_text,
                    Converter converter) {
    const std::string text =
        default_text.empty()
            ? help
            : absl::StrCat(help, " (default ", default_text, ")");
    app.add_option_function<std::string>(
           option_name,
           [this, option_name, converter](const std::string& value) {
             const std::string expected = converter(value);
             if (!expected.empty() && error.ok())
               error = BadValue(option_name, value, expected);
           },
           text)
        ->type_name(type)
        ->take_last();
  }

  absl::StatusOr<std::vector<std::string>> ArgsFromYaml(
      const std::string& path);

  CLI::App app;
  std::string config_file;
  absl::Status error;
  // Flag names without the two dashes in front.
  absl::flat_hash_set<std::string> list_options, switches, ignorable;
  absl::flat_hash_map<std::string, std::string> aliases;
  std::vector<std::string> ignored;

  // A name as it was registered: dashes for underscores, aliases resolved.
  std::string Canonical(absl::string_view name) const {
    std::string dashed = absl::StrReplaceAll(name, {{"_", "-"}});
    const auto it = aliases.find(dashed);
    return it == aliases.end() ? dashed : it->second;
  }
  std::vector<std::string> Normalize(const std::vector<std::string>& args);
};

bool IsTruthWord(absl::string_view text) {
  bool value = false;
  return !text.empty() && absl::ascii_isalpha(text[0]) &&
         absl::SimpleAtob(text, &value);
}

// Canonical names; the truth words after a switch joined to it; what is to be
// ignored taken out with its value.
std::vector<std::string> Flags::Impl::Normalize(
    const std::vector<std::string>& args) {
  std::vector<std::string> out;
  for (size_t i = 0; i < args.size(); ++i) {
    if (args[i].size() < 3 || args[i].rfind("--", 0) != 0) {
      out.push_back(args[i]);
      continue;
    }
    const size_t equals = args[i].find('=');
    const std::string name =
        Canonical(absl::string_view(args[i]).substr(2, equals - 2));
    const bool has_value = equals != std::string::npos;
    const bool value_follows =
        !has_value && i + 1 < args.size() && args[i + 1].rfind("--", 0) != 0;
    if (ignorable.contains(name)) {
      ignored.push_back(name);
      i += value_follows;
      continue;
    }
    std::string flag = absl::StrCat(
        "--", name, has_value ? absl::string_view(args[i]).substr(equals) : "");
    if (value_follows && switches.contains(name) && IsTruthWord(args[i + 1])) {
      absl::StrAppend(&flag, "=", args[++i]);
    }
    out.push_back(std::move(flag));
  }
  return out;
}

// The file as arguments, to be put before those of the command line, which win
// by coming last.
absl::StatusOr<std::vector<std::string>> Flags::Impl::ArgsFromYaml(
    const std::string& path) {
  OCTET_ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  std::vector<std::string> args;
  try {
    const YAML::Node file = YAML::Load(text);
    if (file.IsNull()) return args;
    if (!file.IsMap())
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": expected a map of flags"));
    absl::flat_hash_set<std::string> names;
    for (const auto& entry : file) {
      const std::string key = entry.first.as<std::string>();
      const std::string name = Canonical(key);
      const std::string flag = "--" + name;
      const auto bad = [&](absl::string_view what) {
        return absl::InvalidArgumentError(
            absl::StrCat(path, ": key '", key, "' ", what));
      };
      if (!names.insert(name).second) {
        return bad("is there twice, expected it once");
      }
      if (ignorable.contains(name)) {
        ignored.push_back(name);
        continue;
      }
      if (key == "config" || app.get_option_no_throw(flag) == nullptr) {
        return bad(
            absl::StrCat("is not a flag of ", app.get_name(), "; see --help"));
      }
      if (entry.second.IsMap()) return bad("is a map, expected a value");
      if (entry.second.IsNull()) return bad("is empty, expected a value");
      if (entry.second.IsSequence() && !list_options.contains(name)) {
        return bad("is a list, expected one value");
      }
      const std::vector<std::string> values =
          entry.second.IsSequence()
              ? entry.second.as<std::vector<std::string>>()
              : std::vector<std::string>{entry.second.as<std::string>()};
      for (const std::string& value : values)
        args.push_back(absl::StrCat(flag, "=", value));
    }
  } catch (const YAML::Exception& e) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", e.what()));
  }
  return args;
}

Flags::Flags(std::string program, std::string summary)
    : impl_(std::make_unique<Impl>(program, summary)) {}
Flags::~Flags() = default;

void Flags::Add(const std::string& name, std::string* target,
                const std::string& help) {
  impl_->AddConverted("--" + name, help, "TEXT", *target,
                      [target](const std::string& text) {
                        *target = text;
                        return std::string();
                      });
}

void Flags::Add(const std::string& name, bool* target,
                const std::string& help) {
  const std::string option = "--" + name;
  impl_->switches.insert(name);
  Impl* const impl = impl_.get();
  // CLI11 throws what is not a ParseError at words that it does not know.
  impl->app
      .add_flag_function(
          option, [target](int64_t count) { *target = count > 0; }, help)
      ->transform([impl, option](const std::string& text) -> std::string {
        bool value = false;
        if (!absl::SimpleAtob(text, &value) && impl->error.ok()) {
          impl->error = BadValue(option, text, "true or false");
        }
        return value ? "true" : "false";
      })
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
}

void Flags::Add(const std::string& name, int* target, const std::string& help,
                Range range) {
  impl_->AddConverted("--" + name, help, "INT", absl::StrCat(*target),
                      NumberConverter<int>(target, range));
}

void Flags::Add(const std::string& name, int64_t* target,
                const std::string& help, Range range) {
  impl_->AddConverted("--" + name, help, "INT", absl::StrCat(*target),
                      NumberConverter<int64_t>(target, range));
}

void Flags::Add(const std::string& name, uint64_t* target,
                const std::string& help) {
  impl_->AddConverted("--" + name, help, "INT", absl::StrCat(*target),
                      NumberConverter<uint64_t>(target, {.min = 0}));
}

void Flags::Add(const std::string& name, float* target, const std::string& help,
                Range range) {
  impl_->AddConverted("--" + name, help, "NUMBER", absl::StrCat(*target),
                      NumberConverter<float>(target, range));
}

void Flags::Add(const std::string& name, std::optional<int>* target,
                const std::string& help, Range range) {
  impl_->AddConverted("--" + name, help, "INT", "",
                      NumberConverter<int>(target, range));
}

void Flags::Add(const std::string& name, std::optional<uint64_t>* target,
                const std::string& help) {
  impl_->AddConverted("--" + name, help, "INT", "",
                      NumberConverter<uint64_t>(target, {.min = 0}));
}

void Flags::Add(const std::string& name, std::optional<float>* target,
                const std::string& help, Range range) {
  impl_->AddConverted("--" + name, help, "NUMBER", "",
                      NumberConverter<float>(target, range));
}

void Flags::Add(const std::string& name, absl::Duration* target,
                const std::string& help) {
  impl_->AddConverted(
      "--" + name, help, "TIME", absl::FormatDuration(*target),
      [target](const std::string& text) {
        absl::Duration value;
        if (!absl::ParseDuration(text, &value) ||
            value <= absl::ZeroDuration()) {
          return std::string("a time above zero such as 1.5s or 2m");
        }
        *target = value;
        return std::string();
      });
}

void Flags::Add(const std::string& name, std::vector<int>* target,
                const std::string& help, Range range) {
  impl_->AddConverted(
      "--" + name, help, "INT,INT...", absl::StrJoin(*target, ","),
      [target, range](const std::string& text) {
        std::vector<int> values;
        for (absl::string_view part : absl::StrSplit(text, ',')) {
          int value = 0;
          const std::string expected =
              NumberConverter<int>(&value, range)(std::string(part));
          if (!expected.empty()) {
            return absl::StrCat(expected,
                                ", or several of them with commas between");
          }
          values.push_back(value);
        }
        *target = std::move(values);
        return std::string();
      });
}

void Flags::Add(const std::string& name, std::vector<std::string>* target,
                const std::string& help) {
  impl_->list_options.insert(name);
  impl_->app.add_option("--" + name, *target, help)
      ->type_name("TEXT")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

void Flags::AddChoice(const std::string& name, std::string* target,
                      std::vector<std::string> choices,
                      const std::string& help) {
  const std::string list = absl::StrJoin(choices, ", ");
  impl_->AddConverted(
      "--" + name, absl::StrCat(help, ": ", list), "TEXT", *target,
      [target, choices = std::move(choices), list](const std::string& text) {
        for (const std::string& choice : choices) {
          if (text == choice) {
            *target = text;
            return std::string();
          }
        }
        return absl::StrCat("one of ", list);
      });
}

void Flags::AddPositional(const std::string& name, std::string* target,
                          const std::string& help) {
  impl_->app.add_option(name, *target, help);
}

void Flags::AddAlias(const std::string& alias, const std::string& name) {
  impl_->aliases[alias] = name;
}

void Flags::Ignore(std::vector<std::string> names) {
  for (std::string& name : names) impl_->ignorable.insert(std::move(name));
}

const std::vector<std::string>& Flags::ignored() const {
  return impl_->ignored;
}

absl::StatusOr<bool> Flags::Parse(std::vector<std::string> args) {
  args = impl_->Normalize(args);
  // The file comes first, so it must be known before the rest is parsed.
  for (size_t i = 0; i < args.size(); ++i) {
    std::string path;
    if (args[i].rfind("--config=", 0) == 0) {
      path = args[i].substr(9);
    } else if (args[i] == "--config" && i + 1 < args.size()) {
      path = args[i + 1];
    } else {
      continue;
    }
    OCTET_ASSIGN_OR_RETURN(std::vector<std::string> merged,
                           impl_->ArgsFromYaml(path));
    merged.insert(merged.end(), args.begin(), args.end());
    args = std::move(merged);
    break;
  }
  std::reverse(args.begin(), args.end());  // the order CLI11 takes a vector in
  try {
    impl_->app.parse(args);
  } catch (const CLI::CallForHelp&) {
    std::cout << impl_->app.help();
    return false;
  } catch (const CLI::ParseError& e) {
    return absl::InvalidArgumentError(
        absl::StrCat(impl_->app.get_name(), ": ", e.what()));
  }
  if (!impl_->error.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(impl_->app.get_name(), ": ", impl_->error.message()));
  }
  return true;
}

}  // namespace octet
