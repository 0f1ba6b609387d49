// octet generate: streams the continuation of a prompt.
#include <google/protobuf/util/json_util.h>

#include <cstdio>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "client/client.h"
#include "launch/command.h"
#include "launch/files.h"
#include "launch/flags.h"
#include "launch/request_flags.h"

namespace octet {
namespace {

struct Options {
  std::string server = kDefaultServer;
  std::string prompt;
  std::string prompt_file;
  std::string token_ids;
  std::string chat_template;
  int n = 1;
  std::optional<int> logprobs;
  bool echo = false;
  bool json = false;
  bool stats = false;
  RequestFlags request;
};

absl::Status SetTokenIds(const std::string& text, v1::Prompt* prompt) {
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    int32_t id;
    if (!absl::SimpleAtoi(part, &id)) {
      return absl::InvalidArgumentError(
          absl::StrCat("octet generate: --token-ids has '", part,
                       "', expected whole numbers with commas between"));
    }
    prompt->mutable_token_ids()->add_ids(id);
  }
  return absl::OkStatus();
}

absl::Status SetPrompt(const Options& options, v1::Prompt* prompt) {
  const int given = !options.prompt.empty() + !options.prompt_file.empty() +
                    !options.token_ids.empty();
  if (given != 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "octet generate: ", given,
        " prompts, expected one of --prompt, --prompt-file, --token-ids"));
  }
  if (!options.token_ids.empty()) return SetTokenIds(options.token_ids, prompt);
  std::string text = options.prompt;
  if (!options.prompt_file.empty()) {
    OCTET_ASSIGN_OR_RETURN(text, ReadTextFile(options.prompt_file));
  }
  if (options.chat_template.empty()) {
    prompt->set_text(text);
    return absl::OkStatus();
  }
  v1::ChatMessage* message = prompt->mutable_chat()->add_messages();
  message->set_role("user");
  message->set_content(text);
  prompt->mutable_chat()->set_template_name(options.chat_template);
  return absl::OkStatus();
}

// Bytes as they are: a model may well say NUL.
void Print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

void PrintJson(const v1::GenerateResponse& chunk) {
  std::string line;
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  if (google::protobuf::util::MessageToJsonString(chunk, &line, options).ok())
    std::printf("%s\n", line.c_str());
}

void PrintStats(const v1::Usage& usage, const v1::Timings& timings) {
  const double decode = timings.decode_seconds();
  std::fprintf(stderr,
               "%d prompt tokens (%d from the cache), %d new; first token "
               "after %.3f s, then %.1f tokens/s\n",
               usage.prompt_tokens(), usage.cached_tokens(),
               usage.completion_tokens(),
               timings.queue_seconds() + timings.prefill_seconds(),
               decode > 0 ? (usage.completion_tokens() - 1) / decode : 0.0);
}

// With one continuation text is printed as it arrives; with several, each is
// printed whole at its end.
absl::Status Stream(Client& client, const v1::GenerateRequest& request,
                    const Options& options) {
  std::vector<std::string> texts(options.n);
  v1::Usage usage;
  v1::Timings timings;
  const absl::Status status =
      client.Generate(request, [&](const v1::GenerateResponse& chunk) {
        if (chunk.has_usage()) usage = chunk.usage();
        if (chunk.has_timings()) timings = chunk.timings();
        if (options.json) {
          PrintJson(chunk);
        } else if (options.n == 1) {
          Print(chunk.prompt_text());
          Print(chunk.text());
        } else {
          std::string& text = texts[chunk.index()];
          absl::StrAppend(&text, chunk.prompt_text(), chunk.text());
          if (chunk.finish_reason() != v1::FINISH_REASON_UNSPECIFIED) {
            Print(absl::StrCat("[", chunk.index(), "] ", text, "\n"));
          }
        }
        std::fflush(stdout);
        return true;
      });
  if (!options.json && options.n == 1) Print("\n");
  std::fflush(stdout);  // before what goes to standard error
  OCTET_RETURN_IF_ERROR(status);
  if (options.stats) PrintStats(usage, timings);
  return absl::OkStatus();
}

}  // namespace

absl::Status RunGenerate(const Args& args) {
  Options options;
  Flags flags("octet generate", "Streams the continuation of a prompt.");
  flags.Add("server", &options.server, "address of the service");
  flags.Add("prompt", &options.prompt, "the text to continue");
  flags.Add("prompt-file", &options.prompt_file,
            "a file with the text to continue; - for standard input");
  flags.Add("token-ids", &options.token_ids,
            "the prompt as token ids with commas between");
  flags.Add("template", &options.chat_template,
            "send the prompt as a user's message in this chat template");
  flags.Add("n", &options.n, "continuations", {.min = 1, .max = 64});
  flags.Add("logprobs", &options.logprobs,
            "with --json: also the k likeliest tokens", {.min = 0, .max = 20});
  flags.Add("echo", &options.echo, "print the prompt, too");
  flags.Add("json", &options.json, "print one JSON object per chunk");
  flags.Add("stats", &options.stats,
            "print token counts and speed at the end, on standard error");
  options.request.AddTo(flags);
  OCTET_ASSIGN_OR_RETURN(const bool go_on, flags.Parse(args));
  if (!go_on) return absl::OkStatus();

  v1::GenerateRequest request = options.request.ToRequest();
  OCTET_RETURN_IF_ERROR(SetPrompt(options, request.mutable_prompt()));
  request.set_n(options.n);
  request.set_echo(options.echo);
  if (options.logprobs) request.set_logprobs(*options.logprobs);
  Client client(options.server);
  return Stream(client, request, options);
}

}  // namespace octet
