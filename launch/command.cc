#include "launch/command.h"

#include <cerrno>
#include <cstdio>
#include <iostream>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace octet {
namespace {

std::string Overview(absl::Span<const Command> commands) {
  std::string text =
      "octet: a distributed expert-parallel runtime for Mixtral-family "
      "models.\n\n"
      "usage: octet COMMAND [--flags]   (octet COMMAND --help lists them)\n\n";
  for (const Command& command : commands) {
    absl::StrAppend(&text, "  ", command.name,
                    std::string(14 - std::string(command.name).size(), ' '),
                    command.summary, "\n");
  }
  return text;
}

// An answer that could not be written is a failure.
absl::Status FlushOutput() {
  const bool streamed = !std::cout.flush().fail();
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0 && streamed) {
    return absl::OkStatus();
  }
  return absl::ErrnoToStatus(errno, "cannot write standard output");
}

}  // namespace

int RunProgram(absl::Span<const Command> commands, const Args& args) {
  if (args.empty() || args[0] == "--help" || args[0] == "-h" ||
      args[0] == "help") {
    std::fputs(Overview(commands).c_str(), args.empty() ? stderr : stdout);
    return args.empty() ? 2 : 0;
  }
  for (const Command& command : commands) {
    if (args[0] != command.name) continue;
    absl::Status status = command.run(Args(args.begin() + 1, args.end()));
    if (status.ok()) status = FlushOutput();
    if (status.ok()) return 0;
    std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
    return absl::IsInvalidArgument(status) ? 2 : 1;
  }
  std::fprintf(stderr,
               "octet: '%s' is not a command; octet --help lists them\n",
               args[0].c_str());
  return 2;
}

}  // namespace octet
