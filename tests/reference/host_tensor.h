// Host-side numbers for tests: seeded random data, bf16 copies, comparisons.
#ifndef OCTET_TESTS_REFERENCE_HOST_TENSOR_H_
#define OCTET_TESTS_REFERENCE_HOST_TENSOR_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "kernels/dtype.h"

namespace octet::test {

// Row-major numbers of the reference; the shape is said beside each use.
using Values = std::vector<double>;

// A stream of numbers that is a function of the seed alone, on every platform.
class Random {
 public:
  explicit Random(uint64_t seed) : seed_(seed) {}
  // In [0, 1).
  double Uniform();
  // In [low, high].
  int64_t Integer(int64_t low, int64_t high);
  // Mean 0, standard deviation about `scale`, no tails (sum of 4 uniforms).
  float Normal(float scale = 1.0f);
  std::vector<float> Floats(size_t count, float scale = 1.0f);
  // 0 .. count - 1 in random order.
  std::vector<int32_t> Permutation(int32_t count);

 private:
  const uint64_t seed_;
  int64_t next_ = 0;
};

double RoundToBF16(double value);  // by way of f32
std::vector<BF16> ToBF16(absl::Span<const float> values);
std::vector<float> ToFloats(absl::Span<const BF16> values);
Values ToValues(absl::Span<const float> values);
Values ToValues(absl::Span<const BF16> values);

struct Difference {
  double max_absolute = 0.0;
  double max_relative = 0.0;  // to the largest expected magnitude
  size_t worst_index = 0;     // of max_absolute
  bool comparable = true;     // same size, no NaN
};
Difference Compare(absl::Span<const double> actual,
                   absl::Span<const double> expected);

// Empty when the arrays are equal to the last bit, else where they first
// differ: "element 7 of 64: 3f800000 vs 3f800001".
std::string FirstMismatch(absl::Span<const float> a, absl::Span<const float> b);
std::string FirstMismatch(absl::Span<const BF16> a, absl::Span<const BF16> b);

}  // namespace octet::test

#endif  // OCTET_TESTS_REFERENCE_HOST_TENSOR_H_
