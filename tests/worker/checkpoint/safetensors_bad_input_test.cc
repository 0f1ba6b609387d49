// One sentence for every way a safetensors file can be wrong.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/support/data.h"
#include "tests/worker/checkpoint/checkpoint_files.h"
#include "worker/checkpoint/safetensors.h"

namespace octet {
namespace {

std::string Tensor(const std::string& name, const std::string& dtype,
                   const std::string& shape, const std::string& offsets) {
  return absl::StrCat("\"", name, "\":{\"dtype\":", dtype, ",\"shape\":", shape,
                      ",\"data_offsets\":", offsets, "}");
}

std::string Header(const std::vector<std::string>& tensors) {
  return absl::StrCat("{", absl::StrJoin(tensors, ","), "}");
}

class SafetensorsBadInputTest : public ::testing::Test {
 protected:
  // The message without the leading path.
  std::string OpenMessage() const {
    const std::string message(SafetensorsFile::Open(path_).status().message());
    EXPECT_EQ(message.substr(0, path_.size() + 2), path_ + ": ");
    return message.substr(path_.size() + 2);
  }
  // Of a file with this header and eight bytes of data.
  std::string HeaderMessage(const std::string& header) const {
    test::WriteRawSafetensors(path_, header, "12345678");
    return OpenMessage();
  }

  const test::TempDir dir_;
  const std::string path_ = dir_.path() + "/model.safetensors";
};

TEST_F(SafetensorsBadInputTest, File) {
  EXPECT_EQ(OpenMessage(), "cannot open file: No such file or directory");
  test::WriteText(path_, "");
  EXPECT_EQ(OpenMessage(),
            "file has 0 bytes, expected at least 8 for a header length");
  test::WriteText(path_, "1234567");
  EXPECT_EQ(OpenMessage(),
            "file has 7 bytes, expected at least 8 for a header length");
  test::WriteText(path_, std::string(8, '\0'));
  EXPECT_EQ(OpenMessage(), "header: not valid JSON at byte 1");
  test::WriteText(path_, std::string("\x10\0\0\0\0\0\0\0{}", 10));
  EXPECT_EQ(OpenMessage(), "header length is 16 bytes, expected at most 2");
  test::WriteText(path_, std::string(8, '\xff') + "{}");
  EXPECT_EQ(OpenMessage(),
            "header length is 18446744073709551615 bytes, expected at most 2");
  std::filesystem::remove(path_);
  std::filesystem::create_directory(path_);
  EXPECT_EQ(OpenMessage(), "not a regular file");
  std::filesystem::remove(path_);
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  EXPECT_EQ(OpenMessage(), "not a regular file");  // and does not wait
}

TEST_F(SafetensorsBadInputTest, HeaderLongerThanTheFormatAllows) {
  const uint64_t length = 150'000'000;
  test::WriteText(path_, std::string(reinterpret_cast<const char*>(&length),
                                     sizeof(length)));
  // A hole, so that the file is as long as its header claims.
  std::filesystem::resize_file(path_, 200'000'000);
  EXPECT_EQ(OpenMessage(),
            "header length is 150000000 bytes, expected at most 100000000");
}

TEST_F(SafetensorsBadInputTest, TruncatedFile) {
  test::WriteRawSafetensors(
      path_, Header({Tensor("t", "\"F32\"", "[2]", "[0,8]")}), "12345678");
  ASSERT_TRUE(SafetensorsFile::Open(path_).ok());
  std::filesystem::resize_file(path_, std::filesystem::file_size(path_) - 1);
  EXPECT_EQ(OpenMessage(),
            "tensor 't' has data_offsets [0,8], expected a range inside the "
            "file's 7 bytes of data");
}

TEST_F(SafetensorsBadInputTest, Header) {
  const struct {
    std::string header, message;
  } cases[] = {
      {"not json", "header: not valid JSON at byte 2"},
      {"[]", "header: holds a JSON array, expected an object"},
      {"{\"a\":\"\xc3\x28\"}", "header: not valid JSON at byte 8"},
      {Header({Tensor("t", "\"F32\"", "[1]", "[0,4]"),
               Tensor("t", "\"F32\"", "[1]", "[4,8]")}),
       "header: key \"t\" appears twice"},
      {R"({"t":7})", "tensor 't' is 7, expected an object"},
      {R"({"t":{"shape":[2],"data_offsets":[0,8]}})",
       "tensor 't' has no 'dtype'"},
      {R"({"t":{"dtype":"F32","data_offsets":[0,8]}})",
       "tensor 't' has no 'shape'"},
      {R"({"t":{"dtype":"F32","shape":[2]}})",
       "tensor 't' has no 'data_offsets'"},
      {R"({"__metadata__":[]})", "'__metadata__' is [], expected an object"},
      {R"({"__metadata__":{"a":1}})",
       "'__metadata__' has 1 under 'a', expected a string"},
      {R"({"line\nbreak":7})",
       "tensor 'line\\nbreak' is 7, expected an object"},
  };
  for (const auto& bad : cases) {
    EXPECT_EQ(HeaderMessage(bad.header), bad.message);
  }
}

TEST_F(SafetensorsBadInputTest, Tensor) {
  const struct {
    std::string dtype, shape, offsets, message;
  } cases[] = {
      {"\"F33\"", "[2]", "[0,8]",
       "has dtype \"F33\", expected one that safetensors defines"},
      {"4", "[2]", "[0,8]",
       "has dtype 4, expected one that safetensors defines"},
      {"\"F32\"", "2", "[0,8]", "has shape 2, expected a list"},
      {"\"F32\"", "[-2]", "[0,8]",
       "has shape [-2], expected integers of at least 0"},
      {"\"F32\"", "[2.0]", "[0,8]",
       "has shape [2.0], expected integers of at least 0"},
      {"\"F32\"", "[18446744073709551615]", "[0,8]",
       "has shape [18446744073709551615], expected integers of at least 0"},
      {"\"F32\"", "[2]", "[-8,8]",
       "has data_offsets [-8,8], expected two integers of at least 0"},
      {"\"F32\"", "[2]", "[0]",
       "has data_offsets [0], expected two integers of at least 0"},
      {"\"F32\"", "[2]", "[8,0]",
       "has data_offsets [8,0], expected a range inside the file's 8 bytes of "
       "data"},
      {"\"F32\"", "[2]", "[0,16]",
       "has data_offsets [0,16], expected a range inside the file's 8 bytes of "
       "data"},
      {"\"F32\"", "[2]", "[0,18446744073709551615]",
       "has data_offsets [0,18446744073709551615], expected a range inside the "
       "file's 8 bytes of data"},
      {"\"F32\"", "[3]", "[0,8]",
       "has 8 bytes, which is not shape [3] of dtype F32"},
      {"\"BF16\"", "[2]", "[0,8]",
       "has 8 bytes, which is not shape [2] of dtype BF16"},
      // 4 * (2^62 + 1) * 2 is 8 modulo 2^64, and must not pass for 8.
      {"\"F32\"", "[4611686018427387905,2]", "[0,8]",
       "has 8 bytes, which is not shape [4611686018427387905, 2] of dtype F32"},
      {"\"F32\"", "[0]", "[0,8]",
       "has 8 bytes, which is not shape [0] of dtype F32"},
  };
  for (const auto& bad : cases) {
    EXPECT_EQ(
        HeaderMessage(Header({Tensor("t", bad.dtype, bad.shape, bad.offsets)})),
        absl::StrCat("tensor 't' ", bad.message));
  }
}

TEST_F(SafetensorsBadInputTest, TensorsThatDoNotCoverTheData) {
  EXPECT_EQ(HeaderMessage(Header({Tensor("a", "\"U8\"", "[6]", "[0,6]"),
                                  Tensor("b", "\"U8\"", "[4]", "[4,8]")})),
            "tensor 'b' begins at byte 4 of the data, expected 6 where the "
            "tensor before it ends");
  EXPECT_EQ(HeaderMessage(Header({Tensor("a", "\"U8\"", "[2]", "[0,2]"),
                                  Tensor("b", "\"U8\"", "[4]", "[4,8]")})),
            "tensor 'b' begins at byte 4 of the data, expected 2 where the "
            "tensor before it ends");
  EXPECT_EQ(HeaderMessage(Header({Tensor("a", "\"U8\"", "[6]", "[0,6]")})),
            "has 8 bytes of data, expected the 6 that the header lists");
  EXPECT_EQ(HeaderMessage("{}"),
            "has 8 bytes of data, expected the 0 that the header lists");
}

}  // namespace
}  // namespace octet
