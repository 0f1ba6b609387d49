#include "worker/train/trainable.h"

#include <cmath>
#include <functional>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace octet {
namespace {

// Larger than any adapter in use; keeps products of dimensions in range.
constexpr int kMaxLoraRank = 4096;

bool CanAdapt(const Parameter& parameter) {
  return !parameter.vector && parameter.weight.kind != WeightKind::kEmbedding &&
         parameter.weight.kind != WeightKind::kLmHead;
}

bool EndsWithModule(absl::string_view module, absl::string_view target) {
  return absl::EndsWith(module, target) &&
         (module.size() == target.size() ||
          module[module.size() - target.size() - 1] == '.');
}

// Sets the entries of `field` that `matches` finds; every entry must find one.
absl::Status Mark(
    absl::Span<const Parameter> parameters, absl::string_view field,
    const google::protobuf::RepeatedPtrField<std::string>& entries, Trained how,
    const std::function<bool(const Parameter&, const std::string&)>& matches,
    std::vector<Trained>& out) {
  for (const std::string& entry : entries) {
    bool found = false;
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (!matches(parameters[i], entry)) continue;
      found = true;
      if (out[i] != Trained::kNo && out[i] != how) {
        return absl::InvalidArgumentError(absl::StrCat(
            field, " names '", entry, "', but ", ModuleOf(parameters[i].name),
            " is a target of LoRA already, expected it in one of the two"));
      }
      out[i] = how;
    }
    if (!found) {
      return absl::InvalidArgumentError(absl::StrCat(
          field, " names '", entry,
          "', which matches nothing of "
          "this model, expected such as '",
          how == Trained::kLora ? "q_proj" : ModuleOf(parameters[0].name),
          "'"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLora(const v1::LoraConfig& lora) {
  if (lora.rank() < 1 || lora.rank() > kMaxLoraRank) {
    return absl::InvalidArgumentError(absl::StrCat(
        "lora.rank is ", lora.rank(), ", expected 1 to ", kMaxLoraRank));
  }
  if (lora.has_alpha() && !(lora.alpha() > 0 && std::isfinite(lora.alpha()))) {
    return absl::InvalidArgumentError(absl::StrCat(
        "lora.alpha is ", lora.alpha(), ", expected a number above 0"));
  }
  if (!(lora.dropout() >= 0 && lora.dropout() < 1)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "lora.dropout is ", lora.dropout(), ", expected 0 or more, below 1"));
  }
  if (lora.target_modules().empty()) {
    return absl::InvalidArgumentError(
        "lora.target_modules is empty, expected names such as 'q_proj', or "
        "'all'");
  }
  return absl::OkStatus();
}

absl::Status SelectLora(absl::Span<const Parameter> parameters,
                        const v1::LoraConfig& lora, std::vector<Trained>& out) {
  OCTET_RETURN_IF_ERROR(CheckLora(lora));
  OCTET_RETURN_IF_ERROR(Mark(
      parameters, "lora.target_modules", lora.target_modules(), Trained::kLora,
      [](const Parameter& parameter, const std::string& target) {
        return CanAdapt(parameter) &&
               (target == "all" ||
                EndsWithModule(ModuleOf(parameter.name), target));
      },
      out));
  return Mark(
      parameters, "lora.modules_to_save", lora.modules_to_save(),
      Trained::kFull,
      [](const Parameter& parameter, const std::string& target) {
        return !target.empty() &&
               absl::EndsWith(ModuleOf(parameter.name), target);
      },
      out);
}

}  // namespace

bool MatchesPattern(absl::string_view text, absl::string_view pattern) {
  // The last `*` seen takes one more character whenever the rest fails.
  size_t t = 0, p = 0;
  size_t star = absl::string_view::npos, star_text = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_text = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p;
      ++t;
    } else if (star != absl::string_view::npos) {
      p = star + 1;
      t = ++star_text;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

absl::StatusOr<std::vector<Trained>> SelectTrained(
    absl::Span<const Parameter> parameters,
    const v1::CreateRunRequest& request) {
  std::vector<Trained> out(parameters.size(), Trained::kNo);
  const v1::TrainingMethod method = request.method();
  if (method != v1::TRAINING_METHOD_LORA && request.has_lora()) {
    return absl::InvalidArgumentError(
        "lora is given, expected it with method LORA only");
  }
  if (method != v1::TRAINING_METHOD_FREEZE && !request.trainable().empty()) {
    return absl::InvalidArgumentError(
        "trainable is given, expected it with method FREEZE only");
  }
  switch (method) {
    case v1::TRAINING_METHOD_FULL:
      out.assign(parameters.size(), Trained::kFull);
      break;
    case v1::TRAINING_METHOD_FREEZE:
      if (request.trainable().empty()) {
        return absl::InvalidArgumentError(
            "trainable is empty, expected at least one name to train");
      }
      OCTET_RETURN_IF_ERROR(Mark(
          parameters, "trainable", request.trainable(), Trained::kFull,
          [](const Parameter& parameter, const std::string& pattern) {
            return MatchesPattern(parameter.name, pattern) ||
                   MatchesPattern(ModuleOf(parameter.name), pattern);
          },
          out));
      break;
    case v1::TRAINING_METHOD_LORA:
      OCTET_RETURN_IF_ERROR(SelectLora(parameters, request.lora(), out));
      break;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("method is ", static_cast<int>(method),
                       ", expected FULL, FREEZE or LORA"));
  }
  return out;
}

absl::Status CheckNotQuantized(absl::Span<const Parameter> trained,
                               const Quantization& quantization) {
  for (const Parameter& parameter : trained) {
    if (parameter.weight.part != WeightPart::kBase) continue;
    bool quantized = false;
    switch (parameter.weight.kind) {
      case WeightKind::kQkv:
      case WeightKind::kO:
      case WeightKind::kW13:
      case WeightKind::kW2:
        quantized = quantization.nf4;
        break;
      case WeightKind::kGate:
        quantized = quantization.nf4 && quantization.gate;
        break;
      default:
        break;
    }
    if (quantized) {
      return absl::InvalidArgumentError(
          absl::StrCat(parameter.name,
                       " is kept in NF4 and would be trained itself, "
                       "expected an adapter beside it (LoRA)"));
    }
  }
  return absl::OkStatus();
}

}  // namespace octet
