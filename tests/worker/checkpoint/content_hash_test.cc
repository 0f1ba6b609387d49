// Against the values of the reference implementation (python-xxhash 3.5).
#include "worker/checkpoint/content_hash.h"

#include <string>

#include "gtest/gtest.h"

namespace octet {
namespace {

TEST(ContentHashTest, IsXxh64) {
  const auto rising = [](int size) {
    std::string text;
    for (int i = 0; i < size; ++i) text.push_back(static_cast<char>(i));
    return text;
  };
  struct Case {
    std::string text;
    uint64_t hash, seeded;
  };
  for (const Case& c : {
           Case{"", 0xef46db3751d8e999, 0xac75fda2929b17ef},
           Case{"a", 0xd24ec4f1a98c6e5b, 0x393da8b78992279b},
           Case{"abc", 0x44bc2cf5ad770999, 0x1318df30094a85fd},
           Case{"Nobody inspects the spammish repetition", 0xfbcea83c8a378bf1,
                0x56db22dd5b051147},
           Case{rising(101), 0xe99038495f85381e, 0xa1c6d4174c37136d},
           Case{rising(256), 0x1facbe8406cd904b, 0xd48195f45908996c},
       }) {
    EXPECT_EQ(ContentHash(c.text.data(), c.text.size()), c.hash);
    EXPECT_EQ(ContentHash(c.text.data(), c.text.size(), 2654435761), c.seeded);
  }
}

}  // namespace
}  // namespace octet
