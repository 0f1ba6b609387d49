// Every reader against good files of odd form: what is read, where it is, and
// that reading can be taken up at any row.
#include "client/data/row_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/client/data/files.h"

namespace octet {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

std::unique_ptr<RowReader> Open(absl::string_view extension,
                                absl::string_view text) {
  return MakeRowReader(extension,
                       ByteStream::FromMemory(std::string(text),
                                              absl::StrCat("f", extension)))
      .value();
}

// (line, fields as JSON) of all rows.
using Rows = std::vector<std::pair<int64_t, std::string>>;
Rows ReadAll(RowReader& reader) {
  Rows rows;
  while (true) {
    auto row = reader.Next();
    EXPECT_TRUE(row.ok()) << row.status();
    if (!row.ok() || !row->has_value()) return rows;
    rows.emplace_back((*row)->line, (*row)->fields.dump());
  }
}
// The rows, read at once and again from the place of every row.
Rows ReadAll(absl::string_view extension, absl::string_view text) {
  const auto reader = Open(extension, text);
  const Rows rows = ReadAll(*reader);
  const auto first = Open(extension, text);
  for (size_t i = 0; i <= rows.size(); ++i) {
    const auto again = Open(extension, text);
    again->Seek(first->position());
    EXPECT_EQ(ReadAll(*again), Rows(rows.begin() + i, rows.end()))
        << "from row " << i;
    EXPECT_TRUE(first->Next().ok());
  }
  EXPECT_FALSE(reader->Next().value().has_value()) << "the end stays the end";
  return rows;
}

TEST(TextReaderTest, EachLineIsARow) {
  EXPECT_THAT(
      ReadAll(".txt", "a\n\n b \nc"),
      ElementsAre(Pair(1, R"({"text":"a"})"), Pair(2, R"({"text":""})"),
                  Pair(3, R"({"text":" b "})"), Pair(4, R"({"text":"c"})")));
  EXPECT_THAT(ReadAll(".txt", ""), IsEmpty());
  EXPECT_THAT(ReadAll(".txt", "\n"), ElementsAre(Pair(1, R"({"text":""})")));
}

TEST(TextReaderTest, ByteOrderMarkAndCarriageReturnsAreNoText) {
  EXPECT_THAT(
      ReadAll(".txt",
              "\xEF\xBB\xBF"
              "a\r\nb\r\n"),
      ElementsAre(Pair(1, R"({"text":"a"})"), Pair(2, R"({"text":"b"})")));
}

TEST(JsonLinesReaderTest, BlankLinesArePassedOver) {
  EXPECT_THAT(ReadAll(".jsonl", "\n{\"a\": 1}\r\n \t\n{\"b\": [\"x\\n\"]}"),
              ElementsAre(Pair(2, R"({"a":1})"), Pair(4, R"({"b":["x\n"]})")));
  EXPECT_THAT(ReadAll(".jsonl", ""), IsEmpty());
}

TEST(JsonReaderTest, AFileOfObjectsIsJsonLines) {
  EXPECT_THAT(ReadAll(".json", "{\"a\": 1}\n{\"a\": 2}\n"),
              ElementsAre(Pair(1, R"({"a":1})"), Pair(2, R"({"a":2})")));
}

TEST(JsonArrayReaderTest, ElementsOneByOne) {
  EXPECT_THAT(ReadAll(".json",
                      "\xEF\xBB\xBF\n[ {\"a\": \"]},[{\\\"\\\\\"},\n\n"
                      "{\"b\": {\"c\": [[], {}]}}\n,{}]\n \n"),
              ElementsAre(Pair(2, R"({"a":"]},[{\"\\"})"),
                          Pair(4, R"({"b":{"c":[[],{}]}})"), Pair(5, "{}")));
  EXPECT_THAT(ReadAll(".json", "[]"), IsEmpty());
  EXPECT_THAT(ReadAll(".json", " [ \n ] "), IsEmpty());
}

TEST(JsonArrayReaderTest, ACommaAfterTheLastElementIsAccepted) {
  EXPECT_THAT(ReadAll(".json", "[{\"a\":1},\n]"),
              ElementsAre(Pair(1, R"({"a":1})")));
}

TEST(CsvReaderTest, QuotesCommasAndNewlines) {
  EXPECT_THAT(ReadAll(".csv",
                      "q,a\r\n"
                      "\"1,\"\"2\"\"\nand 3\",x\r\n"
                      "\n"
                      "it's 5\" wide,\n"
                      "\"\",\"y\r\n\""),
              ElementsAre(Pair(2, R"({"a":"x","q":"1,\"2\"\nand 3"})"),
                          Pair(5, R"({"a":"","q":"it's 5\" wide"})"),
                          Pair(6, R"({"a":"y\r\n","q":""})")));
}

TEST(CsvReaderTest, AFileMayEndInTheMiddleOfALine) {
  EXPECT_THAT(ReadAll(".csv", "a,b\n1,"),
              ElementsAre(Pair(2, R"({"a":"1","b":""})")));
  EXPECT_THAT(ReadAll(".csv", "a,b\n1,2\r"),
              ElementsAre(Pair(2, R"({"a":"1","b":"2"})")));
  EXPECT_THAT(ReadAll(".csv", "a,b"), IsEmpty());
  EXPECT_THAT(ReadAll(".csv", "\xEF\xBB\xBF\"a\"\nb"),
              ElementsAre(Pair(2, R"({"a":"b"})")));
}

TEST(CsvReaderTest, AFirstColumnWithoutANameIsOne) {
  EXPECT_THAT(ReadAll(".csv", ",Question\n0,None\n"),
              ElementsAre(Pair(2, R"({"":"0","Question":"None"})")));
}

// Rows longer than the buffer, and rows that straddle its end.
TEST(RowReaderTest, RowsOfAnyLength) {
  test::TempDir dir;
  std::string jsonl;
  std::string array = "[";
  std::string csv = "text\n";
  std::vector<std::string> texts;
  for (int i = 0; i < 40; ++i) {
    texts.push_back(std::string(1 + (i * 7919) % 100000, 'a' + i % 26));
    if (i == 20) texts.back().assign(900000, 'x');
    const std::string object = json({{"text", texts.back()}}).dump();
    absl::StrAppend(&jsonl, object, "\n");
    absl::StrAppend(&array, i == 0 ? "" : ",\n", object);
    absl::StrAppend(&csv, "\"", texts.back(), "\"\n");
  }
  array += "]";
  for (const auto& [name, bytes] :
       {std::pair("a.jsonl", jsonl), {"a.json", array}, {"a.csv", csv}}) {
    const auto reader =
        OpenRowReader(test::WriteFile(dir, name, bytes)).value();
    std::vector<BytePosition> places;
    for (size_t i = 0; i < texts.size(); ++i) {
      places.push_back(reader->position());
      EXPECT_EQ(reader->Next().value()->fields["text"], texts[i]) << name;
    }
    EXPECT_FALSE(reader->Next().value().has_value());
    for (size_t i = texts.size(); i-- > 0;) {
      reader->Seek(places[i]);
      EXPECT_EQ(reader->Next().value()->fields["text"], texts[i]) << name;
    }
  }
}

TEST(RowReaderTest, TheExtensionMayBeInCapitals) {
  test::TempDir dir;
  EXPECT_TRUE(OpenRowReader(test::WriteFile(dir, "A.CSV", "a\nb\n")).ok());
}

}  // namespace
}  // namespace octet
