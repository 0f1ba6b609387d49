// One sentence with file and line for every way a data file can be wrong, and
// what can still be read after it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/data/row_reader.h"
#include "tests/client/data/files.h"

namespace octet {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// What Next gives until the end or a broken file: rows as JSON, or errors.
std::vector<std::string> Outcomes(absl::string_view extension,
                                  absl::string_view text) {
  auto reader = MakeRowReader(
      extension,
      ByteStream::FromMemory(std::string(text), absl::StrCat("f", extension)));
  std::vector<std::string> outcomes;
  if (!reader.ok()) return {std::string(reader.status().message())};
  while (true) {
    auto row = (*reader)->Next();
    if (row.ok() && !row->has_value()) return outcomes;
    outcomes.push_back(row.ok() ? (*row)->fields.dump()
                                : std::string(row.status().message()));
    if (row.ok() || absl::IsInvalidArgument(row.status())) continue;
    EXPECT_EQ((*reader)->Next().status(), row.status()) << "stays broken";
    outcomes.push_back("broken");
    return outcomes;
  }
}

TEST(BadRowTest, TextThatIsNotUtf8) {
  EXPECT_THAT(Outcomes(".txt", "ab\xFF\nc"),
              ElementsAre("f.txt:1: byte 2 of the line is not valid UTF-8",
                          R"({"text":"c"})"));
}

TEST(BadRowTest, JsonLines) {
  EXPECT_THAT(
      Outcomes(".jsonl",
               "{\"a\": 1\n[1]\n3\n{\"a\": 1e999}\n{\"a\": \"\xFF\"}"
               "\n{\"a\":2} x\n{\"ok\":true}"),
      ElementsAre("f.jsonl:1: the row is not valid JSON at its byte 8",
                  "f.jsonl:2: the row is an array, expected an object",
                  "f.jsonl:3: the row is a number, expected an object",
                  "f.jsonl:4: the row is not valid JSON: a number is out of "
                  "range",
                  "f.jsonl:5: the row is not valid JSON at its byte 8",
                  "f.jsonl:6: the row is not valid JSON at its byte 9",
                  R"({"ok":true})"));
}

TEST(BadRowTest, JsonArrayElements) {
  EXPECT_THAT(
      Outcomes(".json", "[{\"a\": tru},\n 7,\n , \n{\"a\" 1}, \"x\",{}]"),
      ElementsAre("f.json:1: the row is not valid JSON at its byte 10",
                  "f.json:2: the row is a number, expected an object",
                  "f.json:3: the row is not valid JSON at its byte 1",
                  "f.json:4: the row is not valid JSON at its byte 6",
                  "f.json:4: the row is a string, expected an object", "{}"));
}

TEST(BrokenFileTest, JsonArrays) {
  EXPECT_THAT(
      Outcomes(".json", "[{\"a\": 1},\n{\"a\": [1}]"),
      ElementsAre(R"({"a":1})",
                  "f.json:2: the array has '}' where a '[' is open", "broken"));
  EXPECT_THAT(Outcomes(".json", "[{\"a\": 1}\n{\"a\": 2}]"),
              ElementsAre(R"({"a":1})",
                          "f.json:2: the array has '{' after a row, expected "
                          "',' or ']'",
                          "broken"));
  EXPECT_THAT(Outcomes(".json", "[{\"a\": 1}"),
              ElementsAre(R"({"a":1})",
                          "f.json:1: the array has the end of the file after "
                          "a row, expected ',' or ']'",
                          "broken"));
  EXPECT_THAT(
      Outcomes(".json", "[{\"a\": 1},\n{\"a\": \"x"),
      ElementsAre(R"({"a":1})", "f.json:2: the row is never closed", "broken"));
  EXPECT_THAT(Outcomes(".json", "["),
              ElementsAre("f.json:1: the row is never closed", "broken"));
  EXPECT_THAT(
      Outcomes(".json", "[{}]\n[{}]"),
      ElementsAre("{}", "f.json:2: the file goes on with '[' after its array",
                  "broken"));
}

TEST(BadRowTest, Csv) {
  EXPECT_THAT(
      Outcomes(".csv",
               "a,b\n1\n1,2,3\n\"x\"y,2\n\"\xFF\",2\n\"p\"\"q\",\"r\"\n"),
      ElementsAre("f.csv:2: the row has 1 fields, expected 2 (a, b)",
                  "f.csv:3: the row has 3 fields, expected 2 (a, b)",
                  "f.csv:4: a field goes on after its closing quote, expected "
                  "a comma or the end of the line",
                  "f.csv:5: field 1 is not valid UTF-8",
                  R"({"a":"p\"q","b":"r"})"));
}

TEST(BrokenFileTest, Csv) {
  EXPECT_THAT(Outcomes(".csv", ""),
              ElementsAre("f.csv:1: the file is empty, expected a line of "
                          "column names"));
  EXPECT_THAT(Outcomes(".csv", "a,b,a\n"),
              ElementsAre("f.csv:1: column 'a' is named twice"));
  EXPECT_THAT(Outcomes(".csv", "a,b\n1,2\n3,\"4\n5,6\n"),
              ElementsAre(R"({"a":"1","b":"2"})",
                          "f.csv:3: the row has a quote that is never closed",
                          "broken"));
}

// One byte more than a row may have, between good ones.
TEST(BadRowTest, TooLong) {
  const std::string big(kMaxRowBytes + 1, 'x');
  EXPECT_THAT(Outcomes(".txt", absl::StrCat("a\n", big, "\nb")),
              ElementsAre(R"({"text":"a"})",
                          "f.txt:2: the line has more than 67108864 bytes",
                          R"({"text":"b"})"));
  EXPECT_THAT(
      Outcomes(".json", absl::StrCat("[{\"a\": \"", big, "\"}]")),
      ElementsAre("f.json:1: the row has more than 67108864 bytes", "broken"));
  for (const char* quote : {"", "\""}) {
    EXPECT_THAT(Outcomes(".csv", absl::StrCat("a\n", quote, big, quote, "\n")),
                ElementsAre("f.csv:2: the row has more than 67108864 bytes: "
                            "perhaps a quote that is never closed",
                            "broken"));
  }
}

TEST(OpenRowReaderTest, FilesThatAreNotRead) {
  test::TempDir dir;
  EXPECT_EQ(
      OpenRowReader("d.v1/x.parquet").status().message(),
      "d.v1/x.parquet: files of type '.parquet' are not read, expected .txt, "
      ".json, .jsonl or .csv (convert it to JSON lines, for example with "
      "pandas)");
  EXPECT_EQ(OpenRowReader("d.v1/x").status().message(),
            "d.v1/x: files of type '' are not read, expected .txt, .json, "
            ".jsonl or .csv");
  const auto missing = OpenRowReader(dir.path() + "/none.txt").status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(missing.message(), HasSubstr("none.txt: cannot read file"));
  const std::string pipe = dir.path() + "/pipe.txt";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(OpenRowReader(pipe).status().message(),
              HasSubstr("pipe.txt: not a regular file"));
}

}  // namespace
}  // namespace octet
