#include "client/data/dataset_registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/client/data/files.h"

namespace octet {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

DatasetRegistry Parse(absl::string_view text, absl::string_view dir = "dir") {
  return DatasetRegistry::Parse(text, "info.json", dir).value();
}
std::string ParseError(absl::string_view text) {
  return std::string(
      DatasetRegistry::Parse(text, "info.json", "dir").status().message());
}
std::string FindError(absl::string_view entry) {
  return std::string(Parse(absl::StrCat("{\"d\": ", entry, "}"))
                         .Find("d", UnnamedColumns::kDefault)
                         .status()
                         .message());
}

TEST(DatasetRegistryTest, AnEntryWithoutMoreHasTheDefaultColumns) {
  const auto registry = Parse(
      R"({"a": {"file_name": "a.json", "file_sha1": "0", "ranking": false}})");
  const DatasetSpec spec = registry.Find("a", UnnamedColumns::kDefault).value();
  EXPECT_EQ(spec.name, "a");
  EXPECT_THAT(spec.files, ElementsAre("dir/a.json"));
  EXPECT_EQ(spec.format, RowFormat::kAlpaca);
  EXPECT_EQ(spec.columns.prompt, "instruction");
  EXPECT_EQ(spec.columns.query, "input");
  EXPECT_EQ(spec.columns.response, "output");
  EXPECT_EQ(spec.columns.history, "");
  EXPECT_EQ(spec.columns.system, "");
  EXPECT_THAT(registry.warnings(), IsEmpty());
}

TEST(DatasetRegistryTest, NamedColumns) {
  const auto registry = Parse(R"({
    "a": {"file_name": "/x/a.csv", "columns": {"prompt": "q", "query": null,
          "history": "h", "system": "s"}},
    "s": {"file_name": "s.jsonl", "formatting": "sharegpt",
          "columns": {"messages": "m", "content": "text"}}})");
  const DatasetSpec a = registry.Find("a", UnnamedColumns::kDefault).value();
  EXPECT_THAT(a.files, ElementsAre("/x/a.csv"));
  EXPECT_EQ(a.columns.prompt, "q");
  EXPECT_EQ(a.columns.query, "");
  EXPECT_EQ(a.columns.response, "output");
  EXPECT_EQ(a.columns.history, "h");
  EXPECT_EQ(a.columns.system, "s");
  const DatasetSpec s = registry.Find("s", UnnamedColumns::kDefault).value();
  EXPECT_EQ(s.format, RowFormat::kShareGpt);
  EXPECT_EQ(s.columns.messages, "m");
  EXPECT_EQ(s.columns.role, "from");
  EXPECT_EQ(s.columns.content, "text");
}

TEST(DatasetRegistryTest, AurorasUnnamedColumnsAreNone) {
  const auto registry = Parse(R"({
    "a": {"file_name": "a.json", "columns": {"prompt": "q"}},
    "b": {"file_name": "b.json"}})");
  const DatasetSpec a = registry.Find("a", UnnamedColumns::kNone).value();
  EXPECT_EQ(a.columns.prompt, "q");
  EXPECT_EQ(a.columns.query, "");
  EXPECT_EQ(a.columns.response, "");
  const DatasetSpec b = registry.Find("b", UnnamedColumns::kNone).value();
  EXPECT_EQ(b.columns.response, "output");
}

TEST(DatasetRegistryTest, TextFilesHaveTheirText) {
  const auto registry = Parse(R"({
    "a": {"file_name": "a.txt"},
    "b": {"file_name": "b.txt", "columns": {"prompt": "text"}}})");
  for (const char* name : {"a", "b"}) {
    EXPECT_EQ(
        registry.Find(name, UnnamedColumns::kDefault).value().columns.prompt,
        "text");
  }
}

TEST(DatasetRegistryTest, TrailingCommasAreWarnedOf) {
  const auto registry = Parse(
      "{\n\"a\": {\"file_name\": \"a,}.json\", },\n\"b\": {\"file_name\": "
      "\"b.json\", \"columns\": {\"prompt\": \"\\\",}\",\n } }\n,\n}\n");
  EXPECT_THAT(registry.Find("a", UnnamedColumns::kDefault).value().files,
              ElementsAre("dir/a,}.json"));
  EXPECT_EQ(registry.Find("b", UnnamedColumns::kDefault).value().columns.prompt,
            "\",}");
  EXPECT_THAT(registry.warnings(),
              ElementsAre(HasSubstr("info.json:2: a comma before"),
                          HasSubstr("info.json:3: a comma before"),
                          HasSubstr("info.json:5: a comma before")));
}

TEST(DatasetRegistryTest, NothingElseIsLenient) {
  EXPECT_EQ(ParseError("{\"a\": {},\n,}"), "info.json:2: not valid JSON here");
  EXPECT_EQ(ParseError("{\n// the first\n}"),
            "info.json:2: not valid JSON here");
  EXPECT_EQ(ParseError("{'a': {}}"), "info.json:1: not valid JSON here");
  EXPECT_EQ(ParseError(""), "info.json:1: not valid JSON here");
  EXPECT_EQ(ParseError("[,]"),
            "info.json: the file is an array, expected an "
            "object");
  EXPECT_EQ(ParseError("{\"a\": {}, \"a\": {}}"),
            "info.json: key 'a' appears twice");
  EXPECT_EQ(ParseError("{\"a\": 1e999}"),
            "info.json: not valid JSON: a number is out of range");
  EXPECT_EQ(ParseError(absl::StrCat("{\"a\": ", std::string(50, '['),
                                    std::string(50, ']'), "}")),
            "info.json: JSON nests deeper than 32 levels");
}

TEST(DatasetRegistryTest, EntriesThatAreWrong) {
  EXPECT_EQ(FindError("7"),
            "info.json: data set 'd' is a number, expected an object");
  EXPECT_EQ(FindError("{}"),
            "info.json: data set 'd' has no 'file_name', expected the name of "
            "a file or folder");
  EXPECT_EQ(FindError("{\"file_name\": \"\"}"), FindError("{}"));
  for (const char* hub : {"hf_hub_url", "ms_hub_url", "script_url"}) {
    EXPECT_EQ(FindError(absl::StrCat("{\"", hub, "\": \"x\"}")),
              absl::StrCat("info.json: data set 'd' has '", hub,
                           "': nothing is downloaded here, expected "
                           "'file_name' of data that is on this machine"));
  }
  EXPECT_EQ(FindError(R"({"file_name": "a.json", "ranking": true})"),
            "info.json: data set 'd' holds rankings, expected questions and "
            "answers or plain text: reward and preference training are not "
            "done here");
  EXPECT_EQ(FindError(R"({"file_name": "a.json", "ranking": "yes"})"),
            "info.json: data set 'd' has 'ranking' = a string, expected true "
            "or false");
  EXPECT_EQ(FindError(R"({"file_name": "a.json", "split": "x"})"),
            "info.json: data set 'd' has the field 'split', expected "
            "file_name, file_sha1, formatting, columns or ranking");
  EXPECT_EQ(FindError(R"({"file_name": "a.json", "formatting": "openai"})"),
            "info.json: data set 'd' has a 'formatting' that is 'openai', "
            "expected 'alpaca' or 'sharegpt'");
  EXPECT_EQ(FindError(R"({"file_name": "a.json", "formatting": 3})"),
            "info.json: data set 'd' has a 'formatting' that is a number, "
            "expected 'alpaca' or 'sharegpt'");
  EXPECT_EQ(FindError(R"({"file_name": "a.json", "columns": []})"),
            "info.json: data set 'd' has 'columns' that is an array, expected "
            "an object");
  EXPECT_EQ(FindError(R"({"file_name": "a.json", "columns": {"role": "r"}})"),
            "info.json: data set 'd' has the column 'role', expected one of "
            "prompt, query, response, history, system");
  EXPECT_EQ(FindError(R"({"file_name": "a.json", "columns": {"query": 1}})"),
            "info.json: data set 'd' has the column 'query' = a number, "
            "expected the name of a field");
  EXPECT_THAT(FindError(R"({"file_name": "a.arrow"})"),
              HasSubstr("dir/a.arrow: files of type '.arrow' are not read"));
}

TEST(DatasetRegistryTest, AnUnknownNameListsTheKnown) {
  EXPECT_EQ(Parse(R"({"x": {}, "y": {}})")
                .Find("z", UnnamedColumns::kDefault)
                .status()
                .message(),
            "info.json: has no data set 'z', expected one of: x, y");
}

TEST(DatasetRegistryTest, AFolderIsItsFiles) {
  test::TempDir dir;
  std::filesystem::create_directories(dir.path() + "/many/sub");
  std::filesystem::create_directory(dir.path() + "/mixed");
  std::filesystem::create_directory(dir.path() + "/none");
  test::WriteFile(dir, "many/b.txt", "");
  test::WriteFile(dir, "many/a.txt", "");
  test::WriteFile(dir, "many/.hidden", "");
  test::WriteFile(dir, "mixed/a.txt", "");
  test::WriteFile(dir, "mixed/b.csv", "");
  test::WriteFile(dir, "dataset_info.json", R"({
    "many": {"file_name": "many"}, "mixed": {"file_name": "mixed"},
    "none": {"file_name": "none"}})");
  const auto registry = DatasetRegistry::Load(dir.path()).value();
  EXPECT_THAT(
      registry.Find("many", UnnamedColumns::kDefault).value().files,
      ElementsAre(dir.path() + "/many/a.txt", dir.path() + "/many/b.txt"));
  EXPECT_THAT(
      registry.Find("mixed", UnnamedColumns::kDefault).status().message(),
      HasSubstr("expected files of one type"));
  EXPECT_THAT(
      registry.Find("none", UnnamedColumns::kDefault).status().message(),
      HasSubstr("which is empty"));
}

TEST(DatasetRegistryTest, AMissingRegistryIsNamed) {
  test::TempDir dir;
  EXPECT_THAT(DatasetRegistry::Load(dir.path()).status().message(),
              HasSubstr("dataset_info.json: cannot read file"));
}

TEST(DatasetsOfFolderTest, EveryFileByName) {
  test::TempDir dir;
  test::WriteFile(dir, "b.json", "[]");
  test::WriteFile(dir, "a.json", "[]");
  test::WriteFile(dir, "c.txt", "");
  test::WriteFile(dir, "dataset_info.json", "{}");
  const auto json = DatasetsOfFolder(dir.path(), ".json").value();
  ASSERT_EQ(json.size(), 2u);
  EXPECT_EQ(json[0].name, "a.json");
  EXPECT_EQ(json[1].name, "b.json");
  const auto text = DatasetsOfFolder(dir.path(), ".txt").value();
  ASSERT_EQ(text.size(), 1u);
  EXPECT_EQ(text[0].columns.prompt, "text");
  test::TempDir empty;
  EXPECT_EQ(DatasetsOfFolder(empty.path(), ".txt").status().message(),
            empty.path() + ": the folder has no *.txt file to train on");
}

}  // namespace
}  // namespace octet
