#include "coordinator/block_pool.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace octet {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<int32_t> Tokens(int32_t first, int32_t count) {
  std::vector<int32_t> tokens(count);
  for (int32_t i = 0; i < count; ++i) tokens[i] = first + i;
  return tokens;
}

// Allocates, publishes and releases the blocks of `tokens`.
std::vector<int32_t> Store(BlockPool& pool,
                           const std::vector<int32_t>& tokens) {
  std::vector<int32_t> blocks;
  int64_t content = BlockPool::kRootContent;
  const auto span = absl::MakeConstSpan(tokens);
  for (size_t i = 0; i < tokens.size(); i += pool.block_tokens()) {
    blocks.push_back(pool.Allocate());
    content = pool.Publish(blocks.back(), content,
                           span.subspan(i, pool.block_tokens()));
  }
  pool.Release(blocks);
  return blocks;
}

TEST(BlockPoolTest, HandsOutEachBlockOnce) {
  BlockPool pool(3, 4, true);
  const std::vector<int32_t> blocks = {pool.Allocate(), pool.Allocate(),
                                       pool.Allocate()};
  EXPECT_THAT(blocks, ::testing::UnorderedElementsAre(0, 1, 2));
  EXPECT_EQ(pool.num_available(), 0);
  pool.Release(blocks);
  EXPECT_EQ(pool.num_available(), 3);
  EXPECT_EQ(pool.num_held(), 0);
}

TEST(BlockPoolTest, FindsWholeBlocksOfAPrefix) {
  BlockPool pool(8, 4, true);
  const auto blocks = Store(pool, Tokens(0, 8));
  EXPECT_THAT(pool.FindPrefix(Tokens(0, 8)).blocks,
              ElementsAre(blocks[0], blocks[1]));
  EXPECT_THAT(pool.FindPrefix(Tokens(0, 7)).blocks, ElementsAre(blocks[0]));
  EXPECT_THAT(pool.FindPrefix(Tokens(0, 3)).blocks, IsEmpty());
}

TEST(BlockPoolTest, SameTokensAfterAnotherPrefixAreAnotherBlock) {
  BlockPool pool(8, 2, true);
  Store(pool, {1, 2, 7, 7});
  const auto other = Store(pool, {3, 4, 7, 7});
  EXPECT_THAT(pool.FindPrefix(std::vector<int32_t>{3, 4, 7, 7}).blocks,
              ElementsAre(other[0], other[1]));
  EXPECT_THAT(pool.FindPrefix(std::vector<int32_t>{7, 7}).blocks, IsEmpty());
}

TEST(BlockPoolTest, EvictsTheLeastRecentlyReleasedAndTailsFirst) {
  BlockPool pool(4, 2, true);
  const auto old_blocks = Store(pool, {1, 2, 3, 4});
  const auto new_blocks = Store(pool, {5, 6, 7, 8});
  const int32_t taken = pool.Allocate();
  EXPECT_EQ(taken, old_blocks[1]);  // the tail of the older prefix
  EXPECT_THAT(pool.FindPrefix(std::vector<int32_t>{1, 2, 3, 4}).blocks,
              ElementsAre(old_blocks[0]));
  EXPECT_THAT(pool.FindPrefix(std::vector<int32_t>{5, 6, 7, 8}).blocks,
              ElementsAre(new_blocks[0], new_blocks[1]));
}

TEST(BlockPoolTest, HeldBlocksAreNeverEvicted) {
  BlockPool pool(2, 2, true);
  const auto blocks = Store(pool, {1, 2});
  EXPECT_EQ(pool.CountCached(blocks), 1);
  pool.Hold(blocks);
  EXPECT_EQ(pool.CountCached(blocks), 0);
  EXPECT_NE(pool.Allocate(), blocks[0]);
  EXPECT_EQ(pool.num_available(), 0);
  pool.Hold(blocks);
  pool.Release(blocks);
  EXPECT_EQ(pool.num_available(), 0);  // one hold is left
  pool.Release(blocks);
  EXPECT_EQ(pool.num_available(), 1);
}

TEST(BlockPoolTest, TwoBlocksOfEqualContentShareOneChain) {
  BlockPool pool(4, 2, true);
  const std::vector<int32_t> content = {1, 2};
  const int32_t first = pool.Allocate();
  const int32_t second = pool.Allocate();
  const int64_t id = pool.Publish(first, BlockPool::kRootContent, content);
  EXPECT_EQ(pool.Publish(second, BlockPool::kRootContent, content), id);
  pool.Release({second});
  EXPECT_THAT(pool.FindPrefix(content).blocks, ElementsAre(first));
}

TEST(BlockPoolTest, CacheCanBeOff) {
  BlockPool pool(4, 2, false);
  Store(pool, {1, 2, 3, 4});
  EXPECT_THAT(pool.FindPrefix(std::vector<int32_t>{1, 2}).blocks, IsEmpty());
  EXPECT_EQ(pool.num_available(), 4);
}

}  // namespace
}  // namespace octet
