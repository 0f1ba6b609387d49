// The flags that `generate` and `chat` share, and the request they make.
#ifndef OCTET_LAUNCH_REQUEST_FLAGS_H_
#define OCTET_LAUNCH_REQUEST_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "launch/flags.h"
#include "proto/inference.pb.h"

namespace octet {

inline constexpr char kDefaultServer[] = "127.0.0.1:50051";

// Flags that are not given leave their field absent, so that the server's
// default holds.
struct RequestFlags {
  std::optional<float> temperature;
  std::optional<int> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  std::optional<float> presence_penalty;
  std::optional<float> frequency_penalty;
  std::optional<uint64_t> seed;
  std::optional<int> max_new_tokens;
  std::optional<int> min_new_tokens;
  std::vector<std::string> stop;
  bool ignore_eos = false;

  void AddTo(Flags& flags);
  // Everything but the prompt.
  v1::GenerateRequest ToRequest() const;
};

}  // namespace octet

#endif  // OCTET_LAUNCH_REQUEST_FLAGS_H_
