#include "text/chat_form.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace octet {
namespace {

constexpr absl::string_view kContent[] = {"{}"};
constexpr absl::string_view kNewline[] = {"\n"};
constexpr absl::string_view kBlankLine[] = {"\n\n"};
constexpr absl::string_view kInst[] = {"[INST] {} [/INST]"};
constexpr absl::string_view kLlama2System[] = {"<<SYS>>\n{}\n<</SYS>>\n\n"};
constexpr absl::string_view kAlpacaUser[] = {
    "### Instruction:\n{}\n\n### Response:\n"};
constexpr absl::string_view kDefaultUser[] = {"Human: {}\nAssistant:"};
constexpr absl::string_view kVicunaUser[] = {"USER: {} ASSISTANT:"};
constexpr absl::string_view kZephyrSystem[] = {"<|system|>", "\n{}", "</s>"};
constexpr absl::string_view kZephyrUser[] = {
    "<|user|>", "\n{}", "</s>", "\n", "<|assistant|>", "\n"};
constexpr absl::string_view kChatmlSystem[] = {"<|im_start|>", "system\n{}",
                                               "<|im_end|>"};
constexpr absl::string_view kChatmlUser[] = {
    "<|im_start|>", "user\n{}",     "<|im_end|>",
    "\n",           "<|im_start|>", "assistant\n",
};

constexpr absl::string_view kEos = "</s>";

// The vendors' system messages, which belong to these forms.
constexpr absl::string_view kAlpacaTask =
    "Below is an instruction that describes a task. Write a response that "
    "appropriately completes the request.";
constexpr absl::string_view kCuriousUser =
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's "
    "questions.";
constexpr absl::string_view kLlama2Assistant =
    "You are a helpful, respectful and honest assistant. Always answer as "
    "helpfully as possible, while being safe.  Your answers should not include "
    "any harmful, unethical, racist, sexist, toxic, dangerous, or illegal "
    "content. Please ensure that your responses are socially unbiased and "
    "positive in nature.\n\nIf a question does not make any sense, or is not "
    "factually coherent, explain why instead of answering something not "
    "correct. If you don't know the answer to a question, please don't share "
    "false information.";

// The columns are those of ChatForm.
constexpr ChatForm kForms[] = {
    {"mistral", kContent, {}, kInst, kEos, "", false, false, true},
    {"vanilla", {}, {}, kContent, kEos, "", false, false, false},
    {"alpaca", kContent, kBlankLine, kAlpacaUser, kEos, kAlpacaTask, false,
     false, true},
    {"default", kContent, kNewline, kDefaultUser, kEos, kCuriousUser, false,
     false, true},
    {"llama2",
     kLlama2System,
     {},
     kInst,
     kEos,
     kLlama2Assistant,
     true,
     true,
     true},
    {"vicuna",
     kContent,
     {},
     kVicunaUser,
     kEos,
     kCuriousUser,
     false,
     false,
     true},
    {"zephyr", kZephyrSystem, kNewline, kZephyrUser, kEos, "", false, false,
     true},
    {"chatml", kChatmlSystem, kNewline, kChatmlUser, "<|im_end|>", "", false,
     false, true},
};

std::vector<ChatForm> WithAuroraForms() {
  static auto& names = *new std::vector<std::string>;
  names.reserve(std::size(kForms));  // the views below stay valid
  std::vector<ChatForm> forms;
  for (const ChatForm& form : kForms) {
    forms.push_back(form);
    if (form.bos_every_turn || !form.uses_history) continue;
    names.push_back(absl::StrCat(form.name, "-aurora"));
    ChatForm aurora = form;
    aurora.name = names.back();
    aurora.bos_every_turn = true;
    forms.push_back(aurora);
  }
  return forms;
}

}  // namespace

const std::vector<ChatForm>& ChatForms() {
  static const auto& forms = *new std::vector<ChatForm>(WithAuroraForms());
  return forms;
}

}  // namespace octet
