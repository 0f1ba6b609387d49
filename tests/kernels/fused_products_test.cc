// FusedProducts through kernels/fused_ops.h: against the plain formulas, row by
// row, and without adapters bit by bit against the operations that they fuse.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/fused_ops.h"
#include "kernels/ops.h"
#include "tests/kernels/training_test.h"
#include "tests/reference/reference_ops.h"

namespace octet::test {
namespace {

// One matrix a group, on both devices.
struct Matrices {
  std::vector<std::vector<float>> values;
  std::vector<std::unique_ptr<PackedMatrix>> owned;
  std::vector<const PackedMatrix*> views[2];
};

enum class AdapterKind { kNone, kFused, kGiven };

// A random call: its shape and matrices, rows of groups side by side.
struct Case {
  DType dtype;
  int64_t n, k, rank;
  AdapterKind adapter;
  std::vector<int64_t> offsets;
  Matrices w, a, b;

  int64_t num_rows() const { return offsets.back(); }
};

class FusedProductsTest : public TrainingTest {
 protected:
  Case MakeCase(uint64_t seed, int64_t n_quantum, int64_t k_quantum) {
    Random random(seed);
    Case out;
    out.dtype = RandomDType(random);
    out.n = n_quantum * random.Integer(1, 150 / n_quantum);
    out.k = k_quantum * random.Integer(1, 150 / k_quantum);
    out.rank = random.Integer(1, 40);
    out.adapter = static_cast<AdapterKind>(seed % 3);
    const int64_t num_groups = random.Integer(1, 5);
    out.offsets = {0};
    for (int64_t g = 0; g < num_groups; ++g) {
      const int64_t rows = random.Integer(0, 2) ? random.Integer(0, 20) : 0;
      out.offsets.push_back(out.offsets.back() + (seed == 3 ? 0 : rows));
    }
    // More than a chunk of rows, in one group.
    if (seed == 4) out.offsets.back() += 600;
    out.w = Make(random, out.dtype, num_groups, out.n, out.k);
    out.a = Make(random, out.dtype, num_groups, out.rank, out.k);
    out.b = Make(random, out.dtype, num_groups, out.n, out.rank);
    return out;
  }

  Matrices Make(Random& random, DType dtype, int64_t count, int64_t n,
                int64_t k) {
    Matrices out;
    for (int64_t g = 0; g < count; ++g) {
      out.values.push_back(RoundTo(dtype, random.Floats(n * k)));
      const ConstTensor rows(out.values.back().data(), DType::kF32, {n, k});
      for (int i = 0; i < 2; ++i) {
        Backend& backend = (i == 0 ? device_ : single_).backend();
        out.owned.push_back(*backend.NewPackedMatrix(dtype, n, k));
        out.views[i].push_back(out.owned.back().get());
        EXPECT_TRUE(backend.PackRows(*out.owned.back(), 0, rows).ok());
      }
    }
    return out;
  }

  FusedProducts& Fused(Device& device) { return *Training(device).fused(); }
  int Of(const Device& device) const { return &device == &device_ ? 0 : 1; }

  LowRank AdapterOf(const Case& c, Device& device, const Tensor& u) {
    LowRank out;
    if (c.adapter == AdapterKind::kNone) return out;
    out.a = c.a.views[Of(device)];
    out.b = c.b.views[Of(device)];
    out.u = u;
    out.u_given = c.adapter == AdapterKind::kGiven;
    return out;
  }

  // Of rows [begin, end) only.
  static std::vector<int64_t> Within(const Case& c, int64_t begin,
                                     int64_t end) {
    std::vector<int64_t> out;
    for (int64_t offset : c.offsets) {
      out.push_back(std::clamp(offset, begin, end) - begin);
    }
    return out;
  }

  // y = sum over terms of x M^T (or x M) by groups, in double.
  static Values Product(const Case& c, const std::vector<float>& x,
                        const Matrices& m, int64_t x_cols, int64_t out_cols,
                        bool transposed) {
    Values out;
    for (size_t g = 0; g + 1 < c.offsets.size(); ++g) {
      const Values rows =
          ToValues(RowsOf(x, c.offsets[g], c.offsets[g + 1], x_cols));
      const Values weights = ToValues(m.values[g]);
      const Values part = transposed
                              ? MatMulBackwardInput(rows, weights, out_cols)
                              : MatMul(rows, weights, x_cols);
      out.insert(out.end(), part.begin(), part.end());
    }
    return out;
  }

  // Product with W plus, from u [T, r] as the device has it, the adapter's.
  static Values WithAdapter(const Case& c, Values product,
                            const std::vector<float>& u, const Matrices& up,
                            int64_t out_cols, bool transposed) {
    if (c.adapter == AdapterKind::kNone) return product;
    const Values addition = Product(c, u, up, c.rank, out_cols, transposed);
    for (size_t i = 0; i < product.size(); ++i) product[i] += addition[i];
    return product;
  }

  // What a call makes of u, unless it is given.
  void ExpectU(const Case& c, const std::vector<float>& u,
               const Values& expected) {
    if (c.adapter != AdapterKind::kFused) return;
    ExpectNear(u, expected, ToleranceOf(c.dtype));
  }

  Tensor NewU(const Case& c, Device& device, const std::vector<float>& given,
              int64_t begin, int64_t end) {
    if (c.adapter == AdapterKind::kGiven) {
      return device.UploadAs(c.dtype, RowsOf(given, begin, end, c.rank),
                             {end - begin, c.rank});
    }
    return device.New(c.dtype, {end - begin, c.rank});
  }

  static void ExpectNear(const std::vector<float>& found,
                         const Values& expected, double tolerance) {
    const Difference difference = Compare(ToValues(found), expected);
    EXPECT_TRUE(difference.comparable);
    EXPECT_LE(difference.max_relative, tolerance);
  }

  // Every 7th row alone has the bits it has among the others.
  template <typename Run>
  void ExpectRowsAlone(const Case& c, const std::vector<float>& whole,
                       const Run& run) {
    if (c.num_rows() == 0) return;
    const int64_t cols = static_cast<int64_t>(whole.size()) / c.num_rows();
    for (int64_t t = 0; t < c.num_rows(); t += 7) {
      EXPECT_EQ(
          FirstMismatch(RowsOf(whole, t, t + 1, cols), run(single_, t, t + 1)),
          "")
          << "row " << t;
    }
  }
};

TEST_P(FusedProductsTest, Linear) {
  for (uint64_t seed = 0; seed < kNumShapes; ++seed) {
    SCOPED_TRACE(seed);
    const Case c = MakeCase(seed, 1, 1);
    Random random(500 + seed);
    const bool accumulate = random.Integer(0, 1) == 1;
    const DType type =
        accumulate || random.Integer(0, 1) ? DType::kF32 : c.dtype;
    const int64_t t = c.num_rows();
    const std::vector<float> x = RoundTo(c.dtype, random.Floats(t * c.k));
    const std::vector<float> given =
        RoundTo(c.dtype, random.Floats(t * c.rank));
    const std::vector<float> before = random.Floats(t * c.n);
    std::vector<float> u;
    const auto run = [&](Device& device, int64_t begin, int64_t end) {
      const Tensor u_tensor = NewU(c, device, given, begin, end);
      const Tensor out = accumulate
                             ? device.Upload(RowsOf(before, begin, end, c.n),
                                             {end - begin, c.n})
                             : device.New(type, {end - begin, c.n});
      EXPECT_TRUE(
          fused_ops::Linear(Fused(device),
                            device.UploadAs(c.dtype, RowsOf(x, begin, end, c.k),
                                            {end - begin, c.k}),
                            c.w.views[Of(device)], Within(c, begin, end),
                            AdapterOf(c, device, u_tensor), accumulate, out,
                            device.stream())
              .ok());
      u = device.Floats(u_tensor);
      return device.Floats(out);
    };
    const std::vector<float> found = run(device_, 0, t);
    ExpectU(c, u, Product(c, x, c.a, c.k, c.rank, false));
    Values expected =
        WithAdapter(c, Product(c, x, c.w, c.k, c.n, false), u, c.b, c.n, false);
    for (size_t i = 0; accumulate && i < expected.size(); ++i) {
      expected[i] += before[i];
    }
    ExpectNear(found, expected, ToleranceOf(type));
    ExpectRowsAlone(c, found, run);
  }
}

TEST_P(FusedProductsTest, LinearSwiGlu) {
  for (uint64_t seed = 0; seed < kNumShapes; ++seed) {
    SCOPED_TRACE(seed);
    const Case c = MakeCase(seed, 2, 1);
    Random random(600 + seed);
    const int64_t t = c.num_rows(), f = c.n / 2;
    const std::vector<float> x = RoundTo(c.dtype, random.Floats(t * c.k));
    const std::vector<float> given =
        RoundTo(c.dtype, random.Floats(t * c.rank));
    std::vector<float> u, hidden;
    const auto run = [&](Device& device, int64_t begin, int64_t end) {
      const Tensor u_tensor = NewU(c, device, given, begin, end);
      const Tensor kept = device.New(c.dtype, {end - begin, c.n});
      const Tensor out = device.New(c.dtype, {end - begin, f});
      EXPECT_TRUE(fused_ops::LinearSwiGlu(
                      Fused(device),
                      device.UploadAs(c.dtype, RowsOf(x, begin, end, c.k),
                                      {end - begin, c.k}),
                      c.w.views[Of(device)], Within(c, begin, end),
                      AdapterOf(c, device, u_tensor), kept, out,
                      device.stream())
                      .ok());
      u = device.Floats(u_tensor);
      hidden = device.Floats(kept);
      return device.Floats(out);
    };
    const std::vector<float> found = run(device_, 0, t);
    ExpectU(c, u, Product(c, x, c.a, c.k, c.rank, false));
    const Values h =
        WithAdapter(c, Product(c, x, c.w, c.k, c.n, false), u, c.b, c.n, false);
    ExpectNear(hidden, h, ToleranceOf(c.dtype));
    ExpectNear(found, GatedSilu(h, f), ToleranceOf(c.dtype));
    ExpectRowsAlone(c, found, run);
    if (c.adapter != AdapterKind::kNone) continue;
    const Tensor separate = device_.New(c.dtype, {t, f});
    ASSERT_TRUE(ops::GroupedGemmSwiGlu(
                    device_.backend(), device_.UploadAs(c.dtype, x, {t, c.k}),
                    c.w.views[0], c.offsets, separate, device_.stream())
                    .ok());
    EXPECT_EQ(FirstMismatch(found, device_.Floats(separate)), "");
  }
}

TEST_P(FusedProductsTest, LinearBackward) {
  for (uint64_t seed = 0; seed < kNumShapes; ++seed) {
    SCOPED_TRACE(seed);
    const Case c = MakeCase(seed, 1, 1);
    Random random(700 + seed);
    const bool accumulate = random.Integer(0, 1) == 1;
    const DType type =
        accumulate || random.Integer(0, 1) ? DType::kF32 : c.dtype;
    const int64_t t = c.num_rows();
    const std::vector<float> dy = RoundTo(c.dtype, random.Floats(t * c.n));
    const std::vector<float> given =
        RoundTo(c.dtype, random.Floats(t * c.rank));
    const std::vector<float> before = random.Floats(t * c.k);
    std::vector<float> u;
    const auto run = [&](Device& device, int64_t begin, int64_t end) {
      const Tensor u_tensor = NewU(c, device, given, begin, end);
      const Tensor dx = accumulate
                            ? device.Upload(RowsOf(before, begin, end, c.k),
                                            {end - begin, c.k})
                            : device.New(type, {end - begin, c.k});
      EXPECT_TRUE(fused_ops::LinearBackward(
                      Fused(device),
                      device.UploadAs(c.dtype, RowsOf(dy, begin, end, c.n),
                                      {end - begin, c.n}),
                      c.w.views[Of(device)], Within(c, begin, end),
                      AdapterOf(c, device, u_tensor), accumulate, dx,
                      device.stream())
                      .ok());
      u = device.Floats(u_tensor);
      return device.Floats(dx);
    };
    const std::vector<float> found = run(device_, 0, t);
    ExpectU(c, u, Product(c, dy, c.b, c.n, c.rank, true));
    Values expected =
        WithAdapter(c, Product(c, dy, c.w, c.n, c.k, true), u, c.a, c.k, true);
    for (size_t i = 0; accumulate && i < expected.size(); ++i) {
      expected[i] += before[i];
    }
    ExpectNear(found, expected, ToleranceOf(type));
    ExpectRowsAlone(c, found, run);
  }
}

TEST_P(FusedProductsTest, LinearSwiGluBackward) {
  for (uint64_t seed = 0; seed < kNumShapes; ++seed) {
    SCOPED_TRACE(seed);
    const Case c = MakeCase(seed, 1, 1);
    Random random(800 + seed);
    const int64_t t = c.num_rows(), f = c.k;
    const std::vector<float> dy = RoundTo(c.dtype, random.Floats(t * c.n));
    const std::vector<float> h = RoundTo(c.dtype, random.Floats(t * 2 * f));
    const std::vector<float> given =
        RoundTo(c.dtype, random.Floats(t * c.rank));
    std::vector<float> u, out;
    const auto run = [&](Device& device, int64_t begin, int64_t end) {
      const Tensor u_tensor = NewU(c, device, given, begin, end);
      const Tensor again = device.New(c.dtype, {end - begin, f});
      const Tensor hidden = device.UploadAs(
          c.dtype, RowsOf(h, begin, end, 2 * f), {end - begin, 2 * f});
      EXPECT_TRUE(fused_ops::LinearSwiGluBackward(
                      Fused(device),
                      device.UploadAs(c.dtype, RowsOf(dy, begin, end, c.n),
                                      {end - begin, c.n}),
                      c.w.views[Of(device)], Within(c, begin, end),
                      AdapterOf(c, device, u_tensor), hidden, again,
                      device.stream())
                      .ok());
      u = device.Floats(u_tensor);
      out = device.Floats(again);
      return device.Floats(hidden);
    };
    const std::vector<float> found = run(device_, 0, t);
    ExpectNear(out, GatedSilu(ToValues(h), f), ToleranceOf(c.dtype));
    ExpectU(c, u, Product(c, dy, c.b, c.n, c.rank, true));
    const Values dout =
        WithAdapter(c, Product(c, dy, c.w, c.n, f, true), u, c.a, f, true);
    // Twice the tolerance: products of two results.
    ExpectNear(found, GatedSiluBackward(ToValues(h), dout, f),
               2 * ToleranceOf(c.dtype));
    ExpectRowsAlone(c, found, run);
    if (c.adapter != AdapterKind::kNone) continue;
    const Tensor wide = device_.New(DType::kF32, {t, f});
    const Tensor separate = device_.UploadAs(c.dtype, h, {t, 2 * f});
    ASSERT_TRUE(train_ops::GroupedGemmBackwardInput(
                    Training(device_), device_.UploadAs(c.dtype, dy, {t, c.n}),
                    c.w.views[0], c.offsets, false, wide, device_.stream())
                    .ok());
    ASSERT_TRUE(train_ops::SwiGluBackward(Training(device_), separate, wide,
                                          separate, device_.stream())
                    .ok());
    EXPECT_EQ(FirstMismatch(found, device_.Floats(separate)), "");
  }
}

// One sentence for what does not fit together.
TEST_P(FusedProductsTest, RefusesWhatDoesNotFit) {
  Random random(1);
  const DType f32 = DType::kF32;
  const Matrices w = Make(random, f32, 1, 6, 4), a = Make(random, f32, 1, 2, 4);
  const Matrices b = Make(random, f32, 1, 6, 2),
                 wrong = Make(random, f32, 1, 5, 2);
  const Tensor x = device_.New(f32, {3, 4}), y = device_.New(f32, {3, 6});
  const Tensor u = device_.New(f32, {3, 2}), half = device_.New(f32, {3, 3});
  const std::vector<int64_t> offsets = {0, 3};
  FusedProducts& fused = Fused(device_);
  Stream& stream = device_.stream();
  const auto message = [](const absl::Status& status) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  const std::vector<const PackedMatrix*> null = {nullptr};
  EXPECT_EQ(
      message(fused_ops::Linear(fused, x, null, offsets, {}, false, y, stream)),
      "Linear: w[0] is null, expected a matrix");
  LowRank adapter{a.views[0], wrong.views[0], u, false};
  EXPECT_EQ(message(fused_ops::Linear(fused, x, w.views[0], offsets, adapter,
                                      false, y, stream)),
            "Linear: the rows of b is 5, expected 6, those of w");
  adapter = {a.views[0], b.views[0], half, false};
  EXPECT_EQ(message(fused_ops::Linear(fused, x, w.views[0], offsets, adapter,
                                      false, y, stream)),
            "Linear: u is f32[3, 3], expected f32[3, 2]");
  adapter = {{}, b.views[0], u, false};
  EXPECT_EQ(message(fused_ops::LinearBackward(fused, y, w.views[0], offsets,
                                              adapter, false, x, stream)),
            "LinearBackward: the number of a is 0, expected 1, as of w");
  EXPECT_EQ(message(fused_ops::LinearSwiGlu(fused, x, w.views[0], offsets, {},
                                            half, half, stream)),
            "LinearSwiGlu: hidden is f32[3, 3], expected f32[3, 6]");
  EXPECT_EQ(message(fused_ops::LinearSwiGluBackward(
                fused, y, w.views[0], offsets, {}, half, half, stream)),
            "LinearSwiGluBackward: hidden is f32[3, 3], expected f32[3, 8]");
}

INSTANTIATE_TEST_SUITE_P(Backend, FusedProductsTest,
                         testing::ValuesIn(BackendCases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace octet::test
