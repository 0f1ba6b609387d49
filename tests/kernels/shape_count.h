// What a test of random shapes promises: how many different ones it ran, and
// that the awkward ones were among them.
#ifndef OCTET_TESTS_KERNELS_SHAPE_COUNT_H_
#define OCTET_TESTS_KERNELS_SHAPE_COUNT_H_

#include <algorithm>
#include <cstdint>
#include <set>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace octet::test {

class ShapeCount {
 public:
  static constexpr size_t kAtLeast = 30;

  // A shape of `num_rows` rows; `sizes` is everything else that makes it
  // different from others.
  void Add(int64_t num_rows, const std::vector<int64_t>& sizes) {
    shapes_.emplace(num_rows, sizes);
  }

  // At the end: 30 different shapes, no rows, one row, odd numbers of rows and
  // odd sizes.
  void Check() const {
    EXPECT_GE(shapes_.size(), kAtLeast);
    EXPECT_GT(Count([](int64_t rows, const auto&) { return rows == 0; }), 0);
    EXPECT_GT(Count([](int64_t rows, const auto&) { return rows == 1; }), 0);
    EXPECT_GT(Count([](int64_t rows, const auto&) {
                return rows > 1 && rows % 2 != 0;
              }),
              0);
    EXPECT_GT(Count([](int64_t, const auto& sizes) {
                return std::any_of(sizes.begin(), sizes.end(), [](int64_t n) {
                  return n > 1 && n % 2 != 0;
                });
              }),
              0);
  }

 private:
  using Shape = std::pair<int64_t, std::vector<int64_t>>;

  template <typename Predicate>
  int64_t Count(Predicate predicate) const {
    return std::count_if(shapes_.begin(), shapes_.end(), [&](const Shape& s) {
      return predicate(s.first, s.second);
    });
  }

  std::set<Shape> shapes_;
};

}  // namespace octet::test

#endif  // OCTET_TESTS_KERNELS_SHAPE_COUNT_H_
