#include "worker/checkpoint/hf_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/support/data.h"
#include "tests/worker/checkpoint/checkpoint_files.h"

namespace octet {
namespace {

using ::testing::ElementsAre;

test::TensorMap TwoTensors() {
  return {{"a", {{"a", DType::kU8, {2}}, "aa"}},
          {"b", {{"b", DType::kU8, {3}}, "bbb"}}};
}

class HfCheckpointTest : public ::testing::Test {
 protected:
  std::string Message() const {
    const absl::Status status = HfCheckpoint::Open(dir_.path()).status();
    return std::string(status.message());
  }
  std::string IndexMessage(const std::string& index) const {
    test::WriteText(index_, index);
    return Message();
  }

  const test::TempDir dir_;
  const std::string single_ = dir_.path() + "/model.safetensors";
  const std::string index_ = dir_.path() + "/model.safetensors.index.json";
};

TEST_F(HfCheckpointTest, OpensSingleFile) {
  test::WriteTensors(single_, TwoTensors());
  const auto checkpoint = HfCheckpoint::Open(dir_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->listing_path(), single_);
  EXPECT_THAT((*checkpoint)->names(), ElementsAre("a", "b"));
  EXPECT_EQ((*checkpoint)->Find("b")->entry->num_bytes(), 3u);
  EXPECT_FALSE((*checkpoint)->Find("c").has_value());
}

TEST_F(HfCheckpointTest, OpensShards) {
  test::WriteShards(dir_.path(), TwoTensors(), 2);
  const auto checkpoint = HfCheckpoint::Open(dir_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->listing_path(), index_);
  EXPECT_EQ((*checkpoint)->files().size(), 2u);
  const TensorRef b = *(*checkpoint)->Find("b");
  EXPECT_EQ(b.file->path(), dir_.path() + "/model-00002-of-00002.safetensors");
  char bytes[3];
  ASSERT_TRUE(b.file->Read(*b.entry, 0, 3, bytes).ok());
  EXPECT_EQ(std::string(bytes, 3), "bbb");
  EXPECT_EQ((*checkpoint)->bytes_read(), 3u);
}

TEST_F(HfCheckpointTest, DirectoryIsWrong) {
  EXPECT_EQ(HfCheckpoint::Open(dir_.path() + "/no").status().message(),
            dir_.path() + "/no: no such directory, expected a checkpoint");
  EXPECT_EQ(Message(), dir_.path() +
                           ": holds neither model.safetensors nor "
                           "model.safetensors.index.json");
  test::WriteTensors(single_, TwoTensors());
  EXPECT_EQ(HfCheckpoint::Open(single_).status().message(),
            single_ + ": cannot open directory: Not a directory");
}

// Root may read everything, so tests that run as root look as somebody else.
class AsNobody {
 public:
  AsNobody() : is_root_(geteuid() == 0) {
    if (is_root_) {
      EXPECT_EQ(seteuid(65534), 0);
    }
  }
  ~AsNobody() {
    if (is_root_) {
      EXPECT_EQ(seteuid(0), 0);
    }
  }

 private:
  const bool is_root_;
};

TEST_F(HfCheckpointTest, FileThatMayNotBeRead) {
  using std::filesystem::perms;
  test::WriteTensors(single_, TwoTensors());
  std::filesystem::permissions(single_, perms::none);
  std::filesystem::permissions(dir_.path(), perms::all);
  {
    const AsNobody nobody;
    EXPECT_EQ(Message(), single_ + ": cannot open file: Permission denied");
  }
  std::filesystem::permissions(dir_.path(), perms::none);
  {
    const AsNobody nobody;
    EXPECT_EQ(Message(),
              dir_.path() + ": cannot open directory: Permission denied");
  }
  std::filesystem::permissions(dir_.path(), perms::all);
}

TEST_F(HfCheckpointTest, ShardThatIsMissing) {
  test::WriteShards(dir_.path(), TwoTensors(), 2);
  std::filesystem::remove(dir_.path() + "/model-00002-of-00002.safetensors");
  EXPECT_EQ(Message(), index_ +
                           ": tensor 'b' is in "
                           "'model-00002-of-00002.safetensors', which does "
                           "not exist");
}

TEST_F(HfCheckpointTest, ShardWithoutTheTensor) {
  test::WriteTensors(dir_.path() + "/x.safetensors", TwoTensors());
  EXPECT_EQ(
      IndexMessage(R"({"weight_map":{"c":"x.safetensors"}})"),
      absl::StrCat(dir_.path(),
                   "/x.safetensors: tensor 'c' is missing, expected from ",
                   index_));
}

TEST_F(HfCheckpointTest, ShardThatIsTruncated) {
  test::WriteShards(dir_.path(), TwoTensors(), 2);
  const std::string shard = dir_.path() + "/model-00001-of-00002.safetensors";
  std::filesystem::resize_file(shard, 5);
  EXPECT_EQ(
      Message(),
      shard + ": file has 5 bytes, expected at least 8 for a header length");
}

TEST_F(HfCheckpointTest, IndexIsWrong) {
  const struct {
    const char* index;
    const char* message;
  } cases[] = {
      {"", "not valid JSON at byte 1"},
      {"[]", "holds a JSON array, expected an object"},
      {"{}", "'weight_map' is missing"},
      {R"({"weight_map":["a"]})",
       "'weight_map' is [\"a\"], expected an object"},
      {R"({"weight_map":{"a":"x","a":"y"}})", "key \"a\" appears twice"},
      {R"({"weight_map":{"a":"../x.safetensors"}})",
       "tensor \"a\" is in file \"../x.safetensors\", expected the name of a "
       "file in the same directory"},
      {R"({"weight_map":{"a":"/etc/passwd"}})",
       "tensor \"a\" is in file \"/etc/passwd\", expected the name of a file "
       "in the same directory"},
      {R"({"weight_map":{"a":".."}})",
       "tensor \"a\" is in file \"..\", expected the name of a file in the "
       "same directory"},
      {R"({"weight_map":{"a":""}})",
       "tensor \"a\" is in file \"\", expected the name of a file in the same "
       "directory"},
      {R"({"weight_map":{"a":"x\u0000y"}})",
       "tensor \"a\" is in file \"x\\u0000y\", expected the name of a file in "
       "the same directory"},
      {R"({"weight_map":{"a":3}})",
       "tensor \"a\" is in file 3, expected the name of a file in the same "
       "directory"},
  };
  for (const auto& bad : cases) {
    EXPECT_EQ(IndexMessage(bad.index), absl::StrCat(index_, ": ", bad.message));
  }
}

}  // namespace
}  // namespace octet
