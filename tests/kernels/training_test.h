// What the tests of the training operations share: two devices that spread
// their work differently, and the check that a row's bits are its own. Bodies
// know no backend (tests/kernels/backend_cases.h).
#ifndef OCTET_TESTS_KERNELS_TRAINING_TEST_H_
#define OCTET_TESTS_KERNELS_TRAINING_TEST_H_

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "kernels/training_ops.h"
#include "tests/kernels/device.h"
#include "tests/kernels/shape_count.h"
#include "tests/reference/reference_training_ops.h"

namespace octet::test {

// f32: sums of up to some hundred terms, an exponential. bf16: half a unit in
// the last place. Relative to the largest magnitude.
inline double ToleranceOf(DType dtype) {
  return dtype == DType::kF32 ? 2e-6 : 1.0 / 256;
}

inline DType RandomDType(Random& random) {
  return random.Integer(0, 1) ? DType::kF32 : DType::kBF16;
}

template <typename T>
absl::Span<const T> RowsOf(const std::vector<T>& all, int64_t begin,
                           int64_t end, int64_t cols) {
  return absl::MakeConstSpan(all).subspan(begin * cols, (end - begin) * cols);
}

class TrainingTest : public testing::TestWithParam<BackendCase> {
 protected:
  static TrainingBackend& Training(Device& device) {
    return *device.backend().training();
  }

  static constexpr int kNumShapes = 40;

  // Calls `body` with a generator for each of 30 and more shapes, which it
  // adds.
  static void ForRandomShapes(
      const std::function<void(Random& random, uint64_t seed,
                               ShapeCount& shapes)>& body) {
    ShapeCount shapes;
    const uint64_t num_shapes = GetParam().NumShapes(kNumShapes);
    for (uint64_t seed = 0; seed < num_shapes; ++seed) {
      SCOPED_TRACE(seed);
      Random random(seed);
      body(random, seed, shapes);
      if (HasFatalFailure()) return;
    }
    shapes.Check();
  }
  static int64_t Size(Random& random, uint64_t seed, int64_t limit) {
    return random.Integer(1, GetParam().Largest(limit, seed));
  }
  // 0 rows first, then 1.
  static int64_t RandomRows(Random& random, uint64_t seed) {
    return seed == 0 ? 0 : seed == 1 ? 1 : Size(random, seed, 40);
  }

  // Runs an operation on rows [begin, end) of its inputs.
  using RunRows =
      std::function<std::vector<float>(Device&, int64_t begin, int64_t end)>;
  // The whole batch is within `tolerance` of `expected`, and each row has the
  // same bits when it is run alone, spread differently.
  void CheckRows(int64_t num_rows, const Values& expected, double tolerance,
                 const RunRows& run) {
    const std::vector<float> whole = run(device_, 0, num_rows);
    const Difference difference = Compare(ToValues(whole), expected);
    EXPECT_TRUE(difference.comparable);
    EXPECT_LE(difference.max_relative, tolerance);
    if (num_rows == 0) return;
    const int64_t cols = static_cast<int64_t>(whole.size()) / num_rows;
    for (int64_t t = 0; t < num_rows; t += GetParam().thinned_repeats) {
      EXPECT_EQ(
          FirstMismatch(RowsOf(whole, t, t + 1, cols), run(single_, t, t + 1)),
          "")
          << "row " << t;
    }
  }

  Device device_{GetParam(), 3};
  Device single_{GetParam(), 1};
};

}  // namespace octet::test

#endif  // OCTET_TESTS_KERNELS_TRAINING_TEST_H_
