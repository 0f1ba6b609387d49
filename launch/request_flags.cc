#include "launch/request_flags.h"

namespace octet {

void RequestFlags::AddTo(Flags& flags) {
  flags.Add("temperature", &temperature,
            "0 = always the likeliest token (server's default 1)", {.min = 0});
  flags.Add("top-k", &top_k, "sample among the k likeliest tokens; 0 = all",
            {.min = 0});
  flags.Add("top-p", &top_p,
            "sample among the likeliest tokens that hold this mass; 1 = all",
            {.min = 0, .max = 1});
  flags.Add("min-p", &min_p,
            "drop tokens below this share of the likeliest one's probability",
            {.min = 0, .max = 1});
  flags.Add("repetition-penalty", &repetition_penalty,
            "above 1 makes seen tokens less likely", {.min = 0});
  flags.Add("presence-penalty", &presence_penalty,
            "subtracted from generated tokens' logits", {.min = -2, .max = 2});
  flags.Add("frequency-penalty", &frequency_penalty,
            "subtracted once per earlier use", {.min = -2, .max = 2});
  flags.Add(
      "seed", &seed,
      "the same seed gives the same answer; drawn by the server when absent");
  flags.Add("max-new-tokens", &max_new_tokens,
            "at most this many tokens (server's default 256)", {.min = 1});
  flags.Add("min-new-tokens", &min_new_tokens,
            "no end of sequence before this many tokens", {.min = 0});
  flags.Add("stop", &stop, "stop before this text; may be given several times");
  flags.Add("ignore-eos", &ignore_eos, "go on after the end-of-sequence token");
}

v1::GenerateRequest RequestFlags::ToRequest() const {
  v1::GenerateRequest request;
  v1::SamplingParams& sampling = *request.mutable_sampling();
  if (temperature) sampling.set_temperature(*temperature);
  if (top_k) sampling.set_top_k(*top_k);
  if (top_p) sampling.set_top_p(*top_p);
  if (min_p) sampling.set_min_p(*min_p);
  if (repetition_penalty) sampling.set_repetition_penalty(*repetition_penalty);
  if (presence_penalty) sampling.set_presence_penalty(*presence_penalty);
  if (frequency_penalty) sampling.set_frequency_penalty(*frequency_penalty);
  if (seed) sampling.set_seed(*seed);
  v1::StopConditions& conditions = *request.mutable_stop();
  if (max_new_tokens) conditions.set_max_new_tokens(*max_new_tokens);
  if (min_new_tokens) conditions.set_min_new_tokens(*min_new_tokens);
  for (const std::string& text : stop) conditions.add_stop_strings(text);
  conditions.set_ignore_eos(ignore_eos);
  request.set_skip_special_tokens(true);
  return request;
}

}  // namespace octet
