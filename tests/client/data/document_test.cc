#include "client/data/document.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "client/data/row_reader.h"
#include "tests/client/data/files.h"

namespace octet {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

using Messages = std::vector<std::pair<std::string, std::string>>;

absl::StatusOr<Messages> Convert(const char* fields, const DatasetSpec& spec) {
  const auto document = MakeDocument(json::parse(fields), spec, Stage::kSft);
  if (!document.ok()) return document.status();
  Messages messages;
  for (const ChatTurn& turn : document->messages) {
    messages.emplace_back(turn.role, turn.content);
  }
  return messages;
}
Messages Alpaca(const char* fields, DatasetSpec spec = {}) {
  return Convert(fields, spec).value();
}
std::string AlpacaError(const char* fields, DatasetSpec spec = {}) {
  return std::string(Convert(fields, spec).status().message());
}
DatasetSpec ShareGptSpec() {
  DatasetSpec spec;
  spec.format = RowFormat::kShareGpt;
  return spec;
}
Messages ShareGpt(const char* fields) {
  return Convert(fields, ShareGptSpec()).value();
}
std::string ShareGptError(const char* fields) {
  return std::string(Convert(fields, ShareGptSpec()).status().message());
}

TEST(AlpacaTest, TheInputIsALineOfItsOwn) {
  EXPECT_THAT(
      Alpaca(R"({"instruction": "sum", "input": "1 2", "output": "3"})"),
      ElementsAre(Pair("user", "sum\n1 2"), Pair("assistant", "3")));
  const Messages without = {{"user", "sum"}, {"assistant", "3"}};
  EXPECT_EQ(Alpaca(R"({"instruction": "sum", "input": "", "output": "3"})"),
            without);
  EXPECT_EQ(Alpaca(R"({"instruction": "sum", "input": null, "output": "3"})"),
            without);
  EXPECT_EQ(Alpaca(R"({"instruction": "sum", "output": "3", "more": 1})"),
            without);
}

TEST(AlpacaTest, HistoryAndSystem) {
  DatasetSpec spec;
  spec.columns.history = "history";
  spec.columns.system = "sys";
  EXPECT_THAT(Alpaca(R"({"instruction": "q", "output": "a", "sys": "s",
                         "history": [["q0", "a0"], ["q1", ""]]})",
                     spec),
              ElementsAre(Pair("system", "s"), Pair("user", "q0"),
                          Pair("assistant", "a0"), Pair("user", "q1"),
                          Pair("assistant", ""), Pair("user", "q"),
                          Pair("assistant", "a")));
  EXPECT_THAT(Alpaca(R"({"instruction": "q", "output": "a", "history": null,
                         "sys": ""})",
                     spec),
              ElementsAre(Pair("user", "q"), Pair("assistant", "a")));
}

TEST(AlpacaTest, ARowWithoutQuestionOrAnswerIsEmpty) {
  EXPECT_THAT(Alpaca(R"({"instruction": "", "output": "a"})"), IsEmpty());
  EXPECT_THAT(Alpaca(R"({"instruction": "q", "output": ""})"), IsEmpty());
  EXPECT_THAT(Alpaca(R"({"instruction": "q", "output": null})"), IsEmpty());
}

TEST(AlpacaTest, FieldsThatAreWrong) {
  EXPECT_EQ(AlpacaError(R"({"output": "a", "q": 1})"),
            "the row has no field 'instruction', it has: output, q");
  EXPECT_EQ(AlpacaError(R"({"instruction": "q", "output": 3})"),
            "field 'output' is a number, expected a string");
  EXPECT_EQ(AlpacaError(R"({"instruction": "q", "input": [], "output": "a"})"),
            "field 'input' is an array, expected a string");
  DatasetSpec spec;
  spec.columns.history = "h";
  EXPECT_EQ(
      AlpacaError(R"({"instruction": "q", "output": "a", "h": "x"})", spec),
      "field 'h' is a string, expected a list of [question, answer]");
  EXPECT_EQ(
      AlpacaError(R"({"instruction": "q", "output": "a", "h": [["x"]]})", spec),
      "field 'h[0]' is not a pair of strings, expected [question, "
      "answer]");
  spec.columns.response = "";
  EXPECT_EQ(AlpacaError(R"({"instruction": "q"})", spec),
            "the data set's columns name no field for the prompt or the "
            "response");
}

TEST(PretrainTest, TheTextIsThePrompt) {
  DatasetSpec spec;
  spec.columns.prompt = "text";
  EXPECT_EQ(
      MakeDocument(json::parse(R"({"text": "t"})"), spec, Stage::kPretrain)
          .value()
          .text,
      "t");
  EXPECT_EQ(MakeDocument(json::parse(R"({"t": "t"})"), spec, Stage::kPretrain)
                .status()
                .message(),
            "the row has no field 'text', it has: t");
}

TEST(ShareGptTest, TheFirstTwoRolesAskAndAnswer) {
  EXPECT_THAT(ShareGpt(R"({"conversations": [
                 {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"},
                 {"from": "human", "value": "r"}, {"from": "gpt", "value": "b"},
                 {"from": "human", "value": "left off"}]})"),
              ElementsAre(Pair("user", "q"), Pair("assistant", "a"),
                          Pair("user", "r"), Pair("assistant", "b")));
  EXPECT_THAT(ShareGpt(R"({"conversations": [
                 {"from": "X", "value": "q"}, {"from": "Y", "value": "a"}]})"),
              ElementsAre(Pair("user", "q"), Pair("assistant", "a")));
}

TEST(ShareGptTest, SystemAndTools) {
  EXPECT_THAT(ShareGpt(R"({"conversations": [
          {"from": "system", "value": "s"}, {"from": "human", "value": "q"},
          {"from": "function_call", "value": "f"},
          {"from": "observation", "value": "o"},
          {"from": "gpt", "value": "a"}]})"),
              ElementsAre(Pair("system", "s"), Pair("user", "q"),
                          Pair("assistant", "f"), Pair("user", "o"),
                          Pair("assistant", "a")));
}

TEST(ShareGptTest, ShortConversationsAreEmpty) {
  EXPECT_THAT(ShareGpt(R"({"conversations": []})"), IsEmpty());
  EXPECT_THAT(ShareGpt(R"({"conversations": [
                  {"from": "human", "value": "q"}]})"),
              IsEmpty());
  EXPECT_THAT(ShareGpt(R"({"conversations": [
                  {"from": "human", "value": "q"},
                  {"from": "gpt", "value": ""}]})"),
              IsEmpty());
}

TEST(ShareGptTest, ConversationsThatAreWrong) {
  EXPECT_EQ(ShareGptError(R"({"c": []})"),
            "the row has no field 'conversations', a list of messages");
  EXPECT_EQ(ShareGptError(R"({"conversations": {}})"),
            "field 'conversations' is an object, expected a list of messages");
  EXPECT_EQ(ShareGptError(R"({"conversations": [3]})"),
            "field 'conversations[0].from' is not a string, expected a "
            "message with 'from' and 'value'");
  EXPECT_EQ(ShareGptError(R"({"conversations": [{"from": "a"}]})"),
            "field 'conversations[0].value' is not a string, expected a "
            "message with 'from' and 'value'");
  EXPECT_EQ(ShareGptError(R"({"conversations": [
                {"from": "human", "value": "q"},
                {"from": "human", "value": "a"}]})"),
            "field 'conversations[1].from' is 'human', expected another role "
            "than 'human'");
  EXPECT_EQ(ShareGptError(R"({"conversations": [
                {"from": "system", "value": "s"},
                {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"},
                {"from": "gpt", "value": "r"}, {"from": "human", "value": "b"}
                ]})"),
            "field 'conversations[3].from' is 'gpt', expected 'human'");
}

TEST(ShareGptTest, TheDemoConversationsAllFit) {
  const auto path = test::DataPath("sft/sharegpt_zh.json");
  if (!path) GTEST_SKIP() << "no ../shared/data/sft/sharegpt_zh.json";
  const auto reader = OpenRowReader(*path).value();
  int rows = 0;
  while (auto row = reader->Next().value()) {
    const auto document =
        MakeDocument(row->fields, ShareGptSpec(), Stage::kSft);
    ASSERT_TRUE(document.ok()) << "line " << row->line << document.status();
    ++rows;
  }
  EXPECT_EQ(rows, 300);
}

}  // namespace
}  // namespace octet
