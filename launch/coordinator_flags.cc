#include "launch/coordinator_flags.h"

#include <filesystem>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/model/config.h"

namespace octet {
namespace {

struct HostPort {
  std::string host;
  int port = 0;
};

absl::StatusOr<HostPort> SplitAddress(const std::string& program,
                                      const std::string& text) {
  const size_t colon = text.rfind(':');
  HostPort address;
  if (colon == std::string::npos || colon == 0 ||
      !absl::SimpleAtoi(text.substr(colon + 1), &address.port) ||
      address.port < 0 || address.port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat(program, ": --listen is '", text,
                     "', expected HOST:PORT such as 127.0.0.1:50051"));
  }
  address.host = text.substr(0, colon);
  return address;
}

}  // namespace

void CoordinatorFlags::AddTo(Flags& flags) {
  flags.Add("listen", &listen, "host:port to answer on; port 0 = any free one");
  flags.Add("tokenizer", &tokenizer,
            "SentencePiece model (default: tokenizer.model of the checkpoint)");
  flags.Add("max-waiting", &max_waiting,
            "requests that may wait; more are refused",
            {.min = 1, .max = 1 << 20});
  flags.Add("max-running-per-rank", &max_running_per_rank,
            "sequences that a rank computes at a time",
            {.min = 1, .max = 1 << 16});
  flags.Add("no-prefix-cache", &no_prefix_cache,
            "compute every prompt from its first token");
  flags.Add("stall-after", &stall_after,
            "a step that takes longer makes health say NOT_SERVING");
  flags.Add("drain", &drain, "time that running requests get at shutdown");
}

absl::StatusOr<std::unique_ptr<Coordinator>> CoordinatorFlags::Start(
    const std::string& program, const std::string& model_dir) const {
  OCTET_RETURN_IF_ERROR(SplitAddress(program, listen).status());
  Coordinator::Options options;
  options.listen_address = listen;
  options.tokenizer_path = tokenizer;
  if (!model_dir.empty()) {
    OCTET_ASSIGN_OR_RETURN(const ModelConfig config,
                           LoadModelConfig(model_dir));
    options.expected_vocab_size = static_cast<int32_t>(config.vocab_size);
    const std::filesystem::path directory =
        std::filesystem::path(model_dir).lexically_normal();
    options.model_name =
        (directory.has_filename() ? directory : directory.parent_path())
            .filename()
            .string();
    const std::filesystem::path beside = directory / "tokenizer.model";
    if (tokenizer.empty() && std::filesystem::exists(beside))
      options.tokenizer_path = beside.string();
  }
  options.max_waiting_requests = max_waiting;
  options.max_running_per_rank = max_running_per_rank;
  options.prefix_cache = !no_prefix_cache;
  options.stall_after = stall_after;
  return Coordinator::Start(options);
}

std::string CoordinatorFlags::Address(const Coordinator& coordinator) const {
  std::string host = listen.substr(0, listen.rfind(':'));
  if (host == "0.0.0.0" || host == "[::]" || host == "*") host = "127.0.0.1";
  return absl::StrCat(host, ":", coordinator.port());
}

}  // namespace octet
