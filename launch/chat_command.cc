// octet chat: a conversation in the terminal. `clear` forgets it, `exit` (or
// end of input) ends it.
#include <cstdio>
#include <iostream>
#include <string>

#include "base/status_macros.h"
#include "client/client.h"
#include "launch/command.h"
#include "launch/flags.h"
#include "launch/request_flags.h"

namespace octet {
namespace {

void AddMessage(const std::string& role, const std::string& content,
                v1::Chat* chat) {
  v1::ChatMessage* message = chat->add_messages();
  message->set_role(role);
  message->set_content(content);
}

// One turn: prints the answer as it comes and returns it.
absl::StatusOr<std::string> Answer(Client& client, const RequestFlags& flags,
                                   const v1::Chat& chat) {
  v1::GenerateRequest request = flags.ToRequest();
  *request.mutable_prompt()->mutable_chat() = chat;
  std::string answer;
  std::printf("Assistant: ");
  const absl::Status status =
      client.Generate(request, [&](const v1::GenerateResponse& chunk) {
        std::fwrite(chunk.text().data(), 1, chunk.text().size(), stdout);
        std::fflush(stdout);
        answer += chunk.text();
        return true;
      });
  std::printf("\n");
  OCTET_RETURN_IF_ERROR(status);
  return answer;
}

}  // namespace

absl::Status RunChat(const Args& args) {
  std::string server = kDefaultServer;
  std::string system;
  v1::Chat chat;
  std::string chat_template = "mistral";
  RequestFlags request_flags;
  Flags flags("octet chat",
              "Talks to the model, turn by turn: 'clear' forgets the "
              "conversation, 'exit' ends it.");
  flags.Add("server", &server, "address of the service");
  flags.Add("system", &system, "a system message before the first turn");
  flags.Add("template", &chat_template, "chat template");
  request_flags.AddTo(flags);
  OCTET_ASSIGN_OR_RETURN(const bool go_on, flags.Parse(args));
  if (!go_on) return absl::OkStatus();

  chat.set_template_name(chat_template);
  const auto clear = [&] {
    chat.clear_messages();
    if (!system.empty()) AddMessage("system", system, &chat);
  };
  clear();
  Client client(server);
  OCTET_RETURN_IF_ERROR(client.GetInfo().status());
  std::string line;
  while (std::printf("User: "), std::fflush(stdout),
         std::getline(std::cin, line)) {
    if (line == "exit") return absl::OkStatus();
    if (line == "clear") {
      clear();
      std::printf("(cleared)\n");
      continue;
    }
    if (line.empty()) continue;
    AddMessage("user", line, &chat);
    const absl::StatusOr<std::string> answer =
        Answer(client, request_flags, chat);
    if (absl::IsUnavailable(answer.status())) return answer.status();
    if (!answer.ok()) {  // this turn was refused (too long, say): the
                         // conversation goes on without it
      std::printf("%s\n", std::string(answer.status().message()).c_str());
      chat.mutable_messages()->RemoveLast();
      continue;
    }
    AddMessage("assistant", *answer, &chat);
  }
  std::printf("\n");
  return absl::OkStatus();
}

}  // namespace octet
