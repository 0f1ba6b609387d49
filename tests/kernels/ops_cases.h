// Table of wrong calls for the tests of kernels/ops.h.
#ifndef OCTET_TESTS_KERNELS_OPS_CASES_H_
#define OCTET_TESTS_KERNELS_OPS_CASES_H_

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/ops.h"
#include "tests/kernels/device.h"

namespace octet::test {

// A call that must fail with INVALID_ARGUMENT and exactly this sentence.
struct Case {
  std::string sentence;
  std::function<absl::Status()> call;
};

class OpsTest : public testing::Test {
 protected:
  OpsTest() : b_(device_.backend()), s_(device_.stream()) {}

  Tensor F32(std::initializer_list<int64_t> dims) {
    return device_.New(DType::kF32, dims);
  }
  Tensor BF(std::initializer_list<int64_t> dims) {
    return device_.New(DType::kBF16, dims);
  }
  Tensor I32(std::initializer_list<int64_t> dims) {
    return device_.New(DType::kI32, dims);
  }
  Tensor I64(std::initializer_list<int64_t> dims) {
    return device_.New(DType::kI64, dims);
  }
  const PackedMatrix* Matrix(DType dtype, int64_t n, int64_t k) {
    matrices_.push_back(*b_.NewPackedMatrix(dtype, n, k));
    return matrices_.back().get();
  }
  static void Check(const std::vector<Case>& cases) {
    for (const Case& bad : cases) {
      const absl::Status status = bad.call();
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument)
          << bad.sentence;
      EXPECT_EQ(status.message(), bad.sentence);
    }
  }

  Device device_{cpu::SupportedIsas().front()};
  Backend& b_;
  Stream& s_;
  std::vector<std::unique_ptr<PackedMatrix>> matrices_;
  const Tensor none_{nullptr, DType::kF32, {2, 4}};
};

}  // namespace octet::test

#endif  // OCTET_TESTS_KERNELS_OPS_CASES_H_
