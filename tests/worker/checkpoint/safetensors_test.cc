#include "worker/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/data.h"
#include "tests/worker/checkpoint/checkpoint_files.h"
#include "worker/checkpoint/safetensors_writer.h"

namespace octet {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::string Pattern(size_t num_bytes, int seed) {
  std::string bytes(num_bytes, '\0');
  for (size_t i = 0; i < num_bytes; ++i) {
    bytes[i] = static_cast<char>(i * 31 + seed);
  }
  return bytes;
}

std::string ReadAll(const SafetensorsFile& file, absl::string_view name) {
  const SafetensorsEntry* entry = file.Find(name);
  if (entry == nullptr) return "absent";
  std::string bytes(entry->num_bytes(), '\0');
  const absl::Status status = file.Read(*entry, 0, bytes.size(), bytes.data());
  EXPECT_TRUE(status.ok()) << status;
  return bytes;
}

class SafetensorsTest : public ::testing::Test {
 protected:
  std::vector<std::string> FilesInDir() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) {
      names.push_back(entry.path().filename());
    }
    return names;
  }
  const test::TempDir dir_;
  const std::string path_ = dir_.path() + "/model.safetensors";
};

TEST_F(SafetensorsTest, ReadsBackWhatWasWritten) {
  const std::vector<TensorSpec> specs = {
      {"f32", DType::kF32, {2, 3}},     {"bf16", DType::kBF16, {5}},
      {"scalar", DType::kI64, {}},      {"empty", DType::kF16, {0, 7}},
      {"bytes", DType::kU8, {1, 1, 3}}, {"i32 \"odd\" näme", DType::kI32, {4}}};
  auto writer = SafetensorsWriter::Create(path_, specs, {{"format", "pt"}});
  ASSERT_TRUE(writer.ok()) << writer.status();
  for (size_t i = specs.size(); i-- > 0;) {  // in any order
    const std::string bytes = Pattern(specs[i].num_bytes(), i);
    ASSERT_TRUE((*writer)->Write(i, 0, bytes.data(), bytes.size()).ok());
  }
  ASSERT_TRUE((*writer)->Finish().ok());
  EXPECT_THAT(FilesInDir(), ElementsAre("model.safetensors"));

  const auto file = SafetensorsFile::Open(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ((*file)->entries().size(), specs.size());
  uint64_t total = 0;
  for (size_t i = 0; i < specs.size(); ++i) {
    const SafetensorsEntry* entry = (*file)->Find(specs[i].name);
    ASSERT_NE(entry, nullptr) << specs[i].name;
    EXPECT_EQ(entry->shape, specs[i].shape);
    EXPECT_EQ(SafetensorsDType(entry->dtype), specs[i].dtype);
    EXPECT_EQ(ReadAll(**file, specs[i].name), Pattern(specs[i].num_bytes(), i));
    total += specs[i].num_bytes();
  }
  EXPECT_EQ((*file)->bytes_read(), total);
  EXPECT_EQ((*file)->Find("absent"), nullptr);
}

TEST_F(SafetensorsTest, ReadsPartsAndRefusesMore) {
  test::WriteTensors(path_,
                     {{"t", {{"t", DType::kU8, {100}}, Pattern(100, 0)}}});
  const auto file = SafetensorsFile::Open(path_);
  ASSERT_TRUE(file.ok());
  const SafetensorsEntry& entry = (*file)->entries()[0];
  std::string bytes(10, '\0');
  ASSERT_TRUE((*file)->Read(entry, 90, 10, bytes.data()).ok());
  EXPECT_EQ(bytes, Pattern(100, 0).substr(90));
  EXPECT_EQ((*file)->Read(entry, 91, 10, bytes.data()).message(),
            path_ + ": bytes 91+10 of tensor 't', which has 100");
  EXPECT_EQ((*file)->Read(entry, 101, 0, bytes.data()).code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_EQ((*file)->Read(entry, UINT64_MAX, 2, bytes.data()).code(),
            absl::StatusCode::kOutOfRange);
  EXPECT_EQ((*file)->bytes_read(), 10u);
}

TEST_F(SafetensorsTest, FileThatShrinksAfterOpenIsAnError) {
  test::WriteTensors(path_,
                     {{"t", {{"t", DType::kU8, {100}}, Pattern(100, 0)}}});
  const auto file = SafetensorsFile::Open(path_);
  ASSERT_TRUE(file.ok());
  const auto size = std::filesystem::file_size(path_);
  std::filesystem::resize_file(path_, size - 30);
  std::string bytes(100, '\0');
  const absl::Status status =
      (*file)->Read((*file)->entries()[0], 0, 100, bytes.data());
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(status.message(), absl::StrCat(path_, ": ends at byte ", size - 30,
                                           ", expected 30 more"));
}

// The format pads headers with spaces, but does not ask for it.
TEST_F(SafetensorsTest, DataNeedNotBeAligned) {
  for (const char* padding : {"", " ", "  ", "   "}) {
    test::WriteRawSafetensors(
        path_,
        std::string(
            R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})") +
            padding,
        "abcd");
    const auto file = SafetensorsFile::Open(path_);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(ReadAll(**file, "a"), "abcd");
  }
}

TEST_F(SafetensorsTest, OpensFileWithoutTensors) {
  test::WriteRawSafetensors(path_, "{}", "");
  const auto file = SafetensorsFile::Open(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT((*file)->entries(), IsEmpty());
}

TEST_F(SafetensorsTest, WriterLeavesNothingWithoutFinish) {
  {
    auto writer =
        SafetensorsWriter::Create(path_, {{"t", DType::kU8, {4}}}, {});
    ASSERT_TRUE(writer.ok());
    ASSERT_TRUE((*writer)->Write(0, 0, "ab", 2).ok());
    EXPECT_EQ((*writer)->Finish().message(),
              path_ + ": 2 bytes of data were written, expected 4");
    EXPECT_EQ((*writer)->Write(0, 3, "ab", 2).code(),
              absl::StatusCode::kOutOfRange);
  }
  EXPECT_THAT(FilesInDir(), IsEmpty());
}

TEST_F(SafetensorsTest, WriterKeepsTheOldFileUntilFinish) {
  test::WriteText(path_, "old");
  auto writer = SafetensorsWriter::Create(path_, {{"t", DType::kU8, {1}}}, {});
  ASSERT_TRUE(writer.ok());
  EXPECT_EQ(test::ReadText(path_), "old");
  ASSERT_TRUE((*writer)->Write(0, 0, "x", 1).ok());
  EXPECT_EQ(test::ReadText(path_), "old");
  ASSERT_TRUE((*writer)->Finish().ok());
  EXPECT_TRUE(SafetensorsFile::Open(path_).ok());
}

TEST_F(SafetensorsTest, WriterRefusesNamesTwiceAndBadPaths) {
  const TensorSpec spec{"t", DType::kU8, {1}};
  EXPECT_EQ(
      SafetensorsWriter::Create(path_, {spec, spec}, {}).status().message(),
      path_ + ": tensor 't' is to be written twice");
  EXPECT_EQ(SafetensorsWriter::Create(dir_.path() + "/no/file", {spec}, {})
                .status()
                .code(),
            absl::StatusCode::kNotFound);
  EXPECT_THAT(FilesInDir(), IsEmpty());
}

TEST_F(SafetensorsTest, ManyThreadsWriteAndRead) {
  constexpr int kThreads = 4;
  constexpr size_t kPart = 10007;
  auto writer = SafetensorsWriter::Create(
      path_, {{"t", DType::kU8, {kThreads * kPart}}}, {});
  ASSERT_TRUE(writer.ok());
  const std::string bytes = Pattern(kThreads * kPart, 3);
  const auto run = [](auto work) {
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) threads.emplace_back(work, i);
    for (std::thread& thread : threads) thread.join();
  };
  run([&](int i) {
    EXPECT_TRUE((*writer)->Write(0, i * kPart, &bytes[i * kPart], kPart).ok());
  });
  ASSERT_TRUE((*writer)->Finish().ok());
  const auto file = SafetensorsFile::Open(path_);
  ASSERT_TRUE(file.ok());
  run([&](int i) {
    std::string part(kPart, '\0');
    EXPECT_TRUE((*file)
                    ->Read((*file)->entries()[0], i * kPart, kPart, part.data())
                    .ok());
    EXPECT_EQ(part, bytes.substr(i * kPart, kPart));
  });
}

}  // namespace
}  // namespace octet
