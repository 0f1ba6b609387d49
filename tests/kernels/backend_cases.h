// The backends that a test program runs on. The bodies of the operations' tests
// know no backend: a program links one definition of BackendCases().
#ifndef OCTET_TESTS_KERNELS_BACKEND_CASES_H_
#define OCTET_TESTS_KERNELS_BACKEND_CASES_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace octet::test {

struct BackendCase {
  std::string name;  // of the test case
  // `way`, 1 or more: how the work is spread, which must change no bits.
  // Threads on the CPU, splits of attention on a GPU.
  std::function<absl::StatusOr<std::unique_ptr<Backend>>(int way)> make;
  // Whether indices in its memory are checked (kernels/ops.h).
  bool checks_indices = true;
  // Largest error of attention over a bf16 cache, relative to the largest
  // output: more than f32's where q and p are rounded to bf16.
  double attention_bf16_error = 1e-5;
  // Whether fresh memory is NaN already, and a read of it is found: then tests
  // leave it alone.
  bool poisons_memory = false;
  // An emulated device is slow. Most of the random shapes are so many times
  // smaller, and tests that repeat the same work in many ways take one of so
  // many repetitions.
  int smaller_shapes = 1;
  int thinned_repeats = 1;

  // The largest size of something in random shape number `seed`.
  int64_t Largest(int64_t limit, uint64_t seed) const {
    return seed % 8 == 2 ? limit : std::max(int64_t{1}, limit / smaller_shapes);
  }
  int NumShapes(int limit) const {
    return smaller_shapes == 1 ? limit : std::min(limit, 36);
  }
};

inline void PrintTo(const BackendCase& c, std::ostream* out) { *out << c.name; }

std::vector<BackendCase> BackendCases();

}  // namespace octet::test

#endif  // OCTET_TESTS_KERNELS_BACKEND_CASES_H_
