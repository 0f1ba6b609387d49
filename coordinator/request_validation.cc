#include "coordinator/request_validation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "text/chat_template.h"

namespace octet {
namespace {

template <typename T>
absl::Status Wrong(absl::string_view field, T found,
                   absl::string_view expected) {
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", found, ", expected ", expected));
}

absl::Status CheckRange(absl::string_view field, int64_t value, int64_t low,
                        int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  if (high == std::numeric_limits<int32_t>::max()) {
    return Wrong(field, value, absl::StrCat(low, " or more"));
  }
  return Wrong(field, value, absl::StrCat(low, " to ", high));
}

absl::Status CheckIds(absl::string_view field,
                      const google::protobuf::RepeatedField<int32_t>& ids,
                      int32_t vocab_size) {
  for (int i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < vocab_size) continue;
    return Wrong(absl::StrCat(field, "[", i, "]"), ids[i],
                 absl::StrCat("0 to ", vocab_size - 1));
  }
  return absl::OkStatus();
}

// `field` is text, which needs a tokenizer.
absl::Status CheckHasTokenizer(absl::string_view field,
                               const Tokenizer& tokenizer) {
  if (tokenizer.has_pieces()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(field,
                   " needs a tokenizer, and this service was started without "
                   "one: expected token ids"));
}

absl::StatusOr<std::vector<int32_t>> EncodeField(absl::string_view field,
                                                 const std::string& text,
                                                 bool add_bos,
                                                 const Tokenizer& tokenizer) {
  OCTET_RETURN_IF_ERROR(CheckHasTokenizer(field, tokenizer));
  return add_bos ? tokenizer.EncodeWithBos(text) : tokenizer.Encode(text);
}

absl::StatusOr<std::vector<int32_t>> RenderChatField(
    const v1::Chat& chat, const Tokenizer& tokenizer) {
  OCTET_RETURN_IF_ERROR(CheckHasTokenizer("chat", tokenizer));
  const std::string name = chat.template_name().empty()
                               ? std::string(kDefaultChatTemplate)
                               : chat.template_name();
  const auto names = ChatTemplateNames();
  if (std::find(names.begin(), names.end(), name) == names.end()) {
    std::string known;
    for (absl::string_view each : names) {
      absl::StrAppend(&known, known.empty() ? "" : ", ", "'", each, "'");
    }
    return Wrong("chat.template_name", absl::StrCat("'", name, "'"),
                 absl::StrCat("one of ", known));
  }
  if (chat.messages().empty()) {
    return absl::InvalidArgumentError(
        "chat.messages is empty, expected at least one message");
  }
  std::vector<ChatTurn> turns;
  for (const v1::ChatMessage& message : chat.messages()) {
    turns.push_back({message.role(), message.content()});
  }
  return RenderChat(tokenizer, turns, name);
}

absl::StatusOr<std::vector<int32_t>> PromptIds(const v1::Prompt& prompt,
                                               const Tokenizer& tokenizer,
                                               const v1::ModelConfig& model) {
  switch (prompt.kind_case()) {
    case v1::Prompt::kText:
      if (prompt.text().empty()) {
        return absl::InvalidArgumentError(
            "prompt.text is empty, expected some text");
      }
      return EncodeField("prompt.text", prompt.text(), /*add_bos=*/true,
                         tokenizer);
    case v1::Prompt::kTokenIds: {
      const auto& ids = prompt.token_ids().ids();
      if (ids.empty()) {
        return absl::InvalidArgumentError(
            "prompt.token_ids is empty, expected at least one id");
      }
      OCTET_RETURN_IF_ERROR(
          CheckIds("prompt.token_ids", ids, model.vocab_size()));
      return std::vector<int32_t>(ids.begin(), ids.end());
    }
    case v1::Prompt::kChat:
      return RenderChatField(prompt.chat(), tokenizer);
    case v1::Prompt::KIND_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError(
      "prompt is absent, expected text, token_ids or chat");
}

absl::Status FillSampling(const v1::SamplingParams& params,
                          uint64_t random_seed, v1::SampleSpec* sample) {
  const float temperature = params.has_temperature() ? params.temperature() : 1;
  if (!(temperature >= 0) || !std::isfinite(temperature)) {
    return Wrong("sampling.temperature", temperature, "a number >= 0");
  }
  const int32_t top_k = params.top_k();
  OCTET_RETURN_IF_ERROR(CheckRange("sampling.top_k", top_k, 0,
                                   std::numeric_limits<int32_t>::max()));
  const float top_p = params.has_top_p() ? params.top_p() : 1;
  if (!(top_p > 0 && top_p <= 1)) {
    return Wrong("sampling.top_p", top_p, "a number in (0, 1]");
  }
  const float min_p = params.min_p();
  if (!(min_p >= 0 && min_p <= 1)) {
    return Wrong("sampling.min_p", min_p, "a number in [0, 1]");
  }
  const float repetition =
      params.has_repetition_penalty() ? params.repetition_penalty() : 1;
  if (!(repetition >= kMinRepetitionPenalty &&
        repetition <= kMaxRepetitionPenalty)) {
    return Wrong("sampling.repetition_penalty", repetition,
                 absl::StrCat("a number in [", kMinRepetitionPenalty, ", ",
                              kMaxRepetitionPenalty, "]"));
  }
  const float presence = params.presence_penalty();
  if (!(presence >= -2 && presence <= 2)) {
    return Wrong("sampling.presence_penalty", presence, "a number in [-2, 2]");
  }
  const float frequency = params.frequency_penalty();
  if (!(frequency >= -2 && frequency <= 2)) {
    return Wrong("sampling.frequency_penalty", frequency,
                 "a number in [-2, 2]");
  }
  sample->set_temperature(temperature);
  sample->set_top_k(top_k);
  sample->set_top_p(top_p);
  sample->set_min_p(min_p);
  sample->set_repetition_penalty(repetition);
  sample->set_presence_penalty(presence);
  sample->set_frequency_penalty(frequency);
  sample->set_seed(params.has_seed() ? params.seed() : random_seed);
  return absl::OkStatus();
}

// Before min_new_tokens, something must be left to sample.
absl::Status CheckLeavesTokens(const GenerateSpec& spec, int32_t vocab_size) {
  const absl::flat_hash_set<int32_t> banned(spec.banned_ids.begin(),
                                            spec.banned_ids.end());
  if (spec.min_new_tokens == 0 ||
      static_cast<int32_t>(banned.size()) < vocab_size) {
    return absl::OkStatus();
  }
  return Wrong("stop.min_new_tokens", spec.min_new_tokens,
               absl::StrCat("0 when all ", vocab_size,
                            " tokens of the vocabulary end the text"));
}

absl::Status FillStops(const v1::StopConditions& stop,
                       const Tokenizer& tokenizer, const v1::ModelConfig& model,
                       GenerateSpec* spec) {
  constexpr int32_t kNoLimit = std::numeric_limits<int32_t>::max();
  spec->max_new_tokens =
      stop.has_max_new_tokens() ? stop.max_new_tokens() : kDefaultMaxNewTokens;
  spec->min_new_tokens = stop.min_new_tokens();
  OCTET_RETURN_IF_ERROR(
      CheckRange("stop.max_new_tokens", spec->max_new_tokens, 1, kNoLimit));
  OCTET_RETURN_IF_ERROR(CheckRange("stop.min_new_tokens", spec->min_new_tokens,
                                   0, spec->max_new_tokens));
  if (stop.stop_strings_size() > kMaxStopStrings) {
    return Wrong("number of stop.stop_strings", stop.stop_strings_size(),
                 absl::StrCat("at most ", kMaxStopStrings));
  }
  if (stop.stop_strings_size() > 0) {
    OCTET_RETURN_IF_ERROR(CheckHasTokenizer("stop.stop_strings", tokenizer));
  }
  for (int i = 0; i < stop.stop_strings_size(); ++i) {
    OCTET_RETURN_IF_ERROR(CheckRange(
        absl::StrCat("length in bytes of stop.stop_strings[", i, "]"),
        stop.stop_strings(i).size(), 1, kMaxStopStringBytes));
    spec->stop_strings.push_back(stop.stop_strings(i));
  }
  if (stop.stop_token_ids_size() > kMaxStopTokenIds) {
    return Wrong("number of stop.stop_token_ids", stop.stop_token_ids_size(),
                 absl::StrCat("at most ", kMaxStopTokenIds));
  }
  OCTET_RETURN_IF_ERROR(CheckIds("stop.stop_token_ids", stop.stop_token_ids(),
                                 model.vocab_size()));
  spec->stop_ids.assign(stop.stop_token_ids().begin(),
                        stop.stop_token_ids().end());
  std::vector<int32_t> eos_ids(model.eos_token_ids().begin(),
                               model.eos_token_ids().end());
  if (eos_ids.empty() && tokenizer.eos_id() >= 0) {
    eos_ids.push_back(tokenizer.eos_id());
  }
  spec->banned_ids = spec->stop_ids;
  spec->banned_ids.insert(spec->banned_ids.end(), eos_ids.begin(),
                          eos_ids.end());
  if (!stop.ignore_eos()) spec->stop_ids = spec->banned_ids;
  return CheckLeavesTokens(*spec, model.vocab_size());
}

absl::Status CheckLogprobs(int32_t num_logprobs, int32_t vocab_size) {
  return CheckRange("logprobs", num_logprobs, 0,
                    std::min(kMaxLogprobs, vocab_size));
}

absl::Status CheckRequestId(absl::string_view id) {
  if (id.size() <= kMaxRequestIdBytes) return absl::OkStatus();
  return Wrong("length in bytes of request_id", id.size(),
               absl::StrCat("at most ", kMaxRequestIdBytes));
}

// Routes are returned in one message.
absl::Status CheckRoutesFit(int64_t num_tokens, const v1::ModelConfig& model) {
  const int64_t num_ids =
      num_tokens * int64_t{model.num_layers()} * model.top_k();
  if (num_ids <= kMaxRouteIds) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "return_routes for ", num_tokens, " tokens of ", model.num_layers(),
      " layers with ", model.top_k(), " experts each gives ", num_ids,
      " expert ids, expected at most ", kMaxRouteIds));
}

absl::Status TooLong(int32_t num_tokens, int32_t context) {
  return absl::InvalidArgumentError(absl::StrCat(
      "prompt has ", num_tokens, " tokens, the model's context is ", context));
}

}  // namespace

uint64_t ContinuationSeed(uint64_t seed, int32_t idx) {
  if (idx == 0) return seed;
  // The output function of SplitMix64 (Steele, Lea, Flood 2014).
  uint64_t z = seed + static_cast<uint64_t>(idx) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

absl::StatusOr<GenerateSpec> ValidateGenerate(
    const v1::GenerateRequest& request, const Tokenizer& tokenizer,
    const v1::ModelConfig& model, uint64_t random_seed, uint64_t random_id) {
  GenerateSpec spec;
  OCTET_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  spec.request_id = request.request_id().empty()
                        ? absl::StrCat(absl::Hex(random_id, absl::kZeroPad16))
                        : request.request_id();
  OCTET_RETURN_IF_ERROR(
      FillSampling(request.sampling(), random_seed, &spec.sample));
  OCTET_RETURN_IF_ERROR(FillStops(request.stop(), tokenizer, model, &spec));
  spec.num_continuations = request.has_n() ? request.n() : 1;
  OCTET_RETURN_IF_ERROR(
      CheckRange("n", spec.num_continuations, 1, kMaxContinuations));
  if (request.has_logprobs()) {
    OCTET_RETURN_IF_ERROR(
        CheckLogprobs(request.logprobs(), model.vocab_size()));
  }
  spec.sample.set_num_logprobs(request.has_logprobs() ? request.logprobs()
                                                      : -1);
  spec.skip_special_tokens = request.skip_special_tokens();
  spec.echo = request.echo();
  spec.continues_text = !request.prompt().has_chat();
  OCTET_ASSIGN_OR_RETURN(spec.prompt,
                         PromptIds(request.prompt(), tokenizer, model));
  const int32_t num_tokens = static_cast<int32_t>(spec.prompt.size());
  const int32_t room = model.max_position() - num_tokens;
  if (room < 0) return TooLong(num_tokens, model.max_position());
  if (room == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "prompt has ", num_tokens, " tokens, the model's context of ",
        model.max_position(), " leaves no room for a new one"));
  }
  spec.max_new_tokens = std::min(spec.max_new_tokens, room);
  spec.return_routes = request.return_routes();
  if (spec.return_routes) {
    OCTET_RETURN_IF_ERROR(
        CheckRoutesFit(int64_t{num_tokens} + spec.max_new_tokens, model));
  }
  if (spec.echo) {
    absl::StatusOr<std::string> text = tokenizer.Decode(spec.prompt);
    if (text.ok()) spec.prompt_text = *std::move(text);
  }
  return spec;
}

absl::StatusOr<ScoreSpec> ValidateScore(const v1::ScoreRequest& request,
                                        const Tokenizer& tokenizer,
                                        const v1::ModelConfig& model) {
  ScoreSpec spec;
  spec.num_logprobs = request.logprobs();
  OCTET_RETURN_IF_ERROR(CheckLogprobs(spec.num_logprobs, model.vocab_size()));
  OCTET_ASSIGN_OR_RETURN(spec.tokens,
                         PromptIds(request.prompt(), tokenizer, model));
  const int32_t num_tokens = static_cast<int32_t>(spec.tokens.size());
  if (num_tokens > model.max_position()) {
    return TooLong(num_tokens, model.max_position());
  }
  return spec;
}

absl::StatusOr<std::vector<int32_t>> ValidateTokenize(
    const v1::TokenizeRequest& request, const Tokenizer& tokenizer) {
  switch (request.kind_case()) {
    case v1::TokenizeRequest::kText:
      return EncodeField("text", request.text(), request.add_bos(), tokenizer);
    case v1::TokenizeRequest::kChat:
      return RenderChatField(request.chat(), tokenizer);
    case v1::TokenizeRequest::KIND_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("kind is absent, expected text or chat");
}

}  // namespace octet
