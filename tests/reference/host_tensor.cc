#include "tests/reference/host_tensor.h"

#include <bit>
#include <cmath>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/philox.h"

namespace octet::test {
namespace {

std::string SizesDiffer(size_t a, size_t b) {
  return absl::StrCat(a, " elements vs ", b);
}

std::string Mismatch(size_t index, size_t size, uint32_t a, uint32_t b) {
  return absl::StrCat("element ", index, " of ", size, ": ",
                      absl::Hex(a, absl::kZeroPad8), " vs ",
                      absl::Hex(b, absl::kZeroPad8));
}

}  // namespace

double Random::Uniform() { return UniformAt(seed_, next_++); }

int64_t Random::Integer(int64_t low, int64_t high) {
  return low +
         static_cast<int64_t>(Uniform() * static_cast<double>(high - low + 1));
}

float Random::Normal(float scale) {
  double sum = -2.0;
  for (int i = 0; i < 4; ++i) sum += Uniform();
  return static_cast<float>(sum * std::sqrt(3.0) * scale);  // variance 4 / 12
}

std::vector<float> Random::Floats(size_t count, float scale) {
  std::vector<float> values(count);
  for (float& value : values) value = Normal(scale);
  return values;
}

std::vector<int32_t> Random::Permutation(int32_t count) {
  std::vector<int32_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  for (int32_t i = count - 1; i > 0; --i) {
    std::swap(order[i], order[Integer(0, i)]);
  }
  return order;
}

double RoundToBF16(double value) {
  return ToFloat(octet::ToBF16(static_cast<float>(value)));
}

std::vector<BF16> ToBF16(absl::Span<const float> values) {
  std::vector<BF16> out;
  out.reserve(values.size());
  for (float value : values) out.push_back(octet::ToBF16(value));
  return out;
}

std::vector<float> ToFloats(absl::Span<const BF16> values) {
  std::vector<float> out;
  out.reserve(values.size());
  for (BF16 value : values) out.push_back(ToFloat(value));
  return out;
}

Values ToValues(absl::Span<const float> values) {
  return Values(values.begin(), values.end());
}

Values ToValues(absl::Span<const BF16> values) {
  Values out;
  out.reserve(values.size());
  for (BF16 value : values) out.push_back(ToFloat(value));
  return out;
}

Difference Compare(absl::Span<const double> actual,
                   absl::Span<const double> expected) {
  Difference difference;
  difference.comparable = actual.size() == expected.size();
  if (!difference.comparable) return difference;
  double largest = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double absolute = std::fabs(actual[i] - expected[i]);
    if (std::isnan(absolute)) difference.comparable = false;
    largest = std::fmax(largest, std::fabs(expected[i]));
    if (absolute > difference.max_absolute) {
      difference.max_absolute = absolute;
      difference.worst_index = i;
    }
  }
  if (difference.max_absolute > 0.0) {
    difference.max_relative = difference.max_absolute / largest;
  }
  return difference;
}

std::string FirstMismatch(absl::Span<const float> a,
                          absl::Span<const float> b) {
  if (a.size() != b.size()) return SizesDiffer(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    const uint32_t x = std::bit_cast<uint32_t>(a[i]);
    const uint32_t y = std::bit_cast<uint32_t>(b[i]);
    if (x != y) return Mismatch(i, a.size(), x, y);
  }
  return "";
}

std::string FirstMismatch(absl::Span<const BF16> a, absl::Span<const BF16> b) {
  if (a.size() != b.size()) return SizesDiffer(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].bits != b[i].bits) {
      return Mismatch(i, a.size(), a[i].bits, b[i].bits);
    }
  }
  return "";
}

}  // namespace octet::test
