// Linear layers with adapters against formulas in double precision.
#include "worker/nn/linear.h"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/ops.h"
#include "kernels/training_ops.h"
#include "tests/reference/host_tensor.h"
#include "tests/worker/nn/recording_sink.h"

namespace octet {
namespace {

using test::Values;
using Floats = std::vector<float>;

constexpr int64_t kIn = 24;
constexpr int64_t kOut = 20;
constexpr int64_t kRank = 6;
constexpr int kGroups = 3;
constexpr float kScale = 3;
constexpr float kDropout = 0.4f;
constexpr uint64_t kSeed = 5;

// out [rows, n] += x [rows, k] w^T, w [n, k].
void AddProduct(const Values& x, const Values& w, int64_t k, Values& out) {
  const int64_t n = static_cast<int64_t>(w.size()) / k;
  for (size_t row = 0; row < x.size() / k; ++row) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t i = 0; i < k; ++i) {
        out[row * n + j] += x[row * k + i] * w[j * k + i];
      }
    }
  }
}

Values Transposed(const Values& x, int64_t cols) {
  const int64_t rows = static_cast<int64_t>(x.size()) / cols;
  Values out(x.size());
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) out[j * rows + i] = x[i * cols + j];
  }
  return out;
}

Values Product(const Values& x, const Values& w, int64_t k) {
  Values out(x.size() / k * (w.size() / k));
  AddProduct(x, w, k, out);
  return out;
}

class LinearTest : public ::testing::Test {
 protected:
  struct Group {
    Floats w, a, b;
    std::unique_ptr<PackedMatrix> packed;
    LoraWeights lora;
  };

  LinearTest() {
    backend_ = NewCpuBackend({}).value();
    stream_ = backend_->NewStream().value();
    for (Group& group : groups_) {
      group.w = random_.Floats(kOut * kIn);
      group.a = random_.Floats(kRank * kIn);
      group.b = random_.Floats(kOut * kRank);
      group.packed = Pack(group.w, kOut, 1);
      group.lora.a = Pack(group.a, kRank, 1);
      group.lora.b = Pack(group.b, kOut, kScale);
      group.lora.scale = kScale;
      group.lora.dropout = kDropout;
    }
  }

  std::unique_ptr<PackedMatrix> Pack(Floats rows, int64_t n, float scale) {
    for (float& value : rows) value *= scale;
    const int64_t k = static_cast<int64_t>(rows.size()) / n;
    auto matrix = backend_->NewPackedMatrix(DType::kF32, n, k).value();
    EXPECT_TRUE(backend_
                    ->PackRows(*matrix, 0,
                               ConstTensor(rows.data(), DType::kF32, {n, k}))
                    .ok());
    return matrix;
  }

  template <typename T>
  Tensor Upload(const std::vector<T>& values, DType dtype, int64_t rows) {
    memory_.push_back(
        backend_->Allocate(values.size() * sizeof(T) + 1).value());
    void* data = memory_.back()->data();
    EXPECT_TRUE(backend_
                    ->CopyToDevice(data, values.data(),
                                   values.size() * sizeof(T), *stream_)
                    .ok());
    const int64_t count = static_cast<int64_t>(values.size());
    return rows == 0 ? Tensor(data, dtype, {count})
                     : Tensor(data, dtype, {rows, count / rows});
  }

  Floats Read(Tensor x) {
    Floats out(x.num_elements());
    EXPECT_TRUE(
        backend_->CopyToHost(out.data(), x.data(), x.num_bytes(), *stream_)
            .ok());
    return out;
  }

  GroupedLinearWeights Weights(bool adapted) const {
    GroupedLinearWeights weights;
    for (const Group& group : groups_) {
      weights.w.push_back(group.packed.get());
      weights.lora.push_back(adapted ? &group.lora : nullptr);
    }
    return weights;
  }

  // x times the mask of the group's adapter, from the operation itself.
  Values Dropped(const Floats& x, const std::vector<int64_t>& keys,
                 const WeightId& id) {
    const int64_t rows = static_cast<int64_t>(keys.size());
    const Tensor out = Upload(Floats(x.size()), DType::kF32, rows);
    EXPECT_TRUE(
        train_ops::Dropout(*backend_->training(),
                           Upload(Floats(x.size(), 1), DType::kF32, rows),
                           Upload(keys, DType::kI64, 0), DropoutSeed(kSeed, id),
                           kDropout, false, out, *stream_)
            .ok());
    const Floats mask = Read(out);
    Values dropped;
    for (size_t i = 0; i < x.size(); ++i) {
      dropped.push_back(double{x[i]} * mask[i]);
    }
    return dropped;
  }

  test::Random random_{9};
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Stream> stream_;
  Group groups_[kGroups];
  std::vector<std::unique_ptr<Buffer>> memory_;
};

void ExpectClose(const Floats& actual, const Values& expected,
                 const std::string& name) {
  const test::Difference difference =
      test::Compare(test::ToValues(actual), expected);
  EXPECT_TRUE(difference.comparable) << name;
  EXPECT_LT(difference.max_relative, 1e-5) << name;
}

TEST_F(LinearTest, WithoutAdaptersIsTheProduct) {
  const std::vector<int64_t> offsets = {0, 4, 4, 11};
  const Tensor x = Upload(random_.Floats(11 * kIn), DType::kF32, 11);
  const Tensor out = Upload(Floats(11 * kOut), DType::kF32, 11);
  const Tensor expected = Upload(Floats(11 * kOut), DType::kF32, 11);
  Linear linear(backend_.get());
  const GroupedLinearWeights weights = Weights(false);
  ASSERT_TRUE(linear.Forward(weights, x, offsets, out, *stream_).ok());
  ASSERT_TRUE(
      ops::GroupedGemm(*backend_, x, weights.w, offsets, expected, *stream_)
          .ok());
  EXPECT_EQ(test::FirstMismatch(Read(out), Read(expected)), "");
  EXPECT_EQ(linear.size_bytes(), 0);
}

// Groups of rows of two slots, one group empty; forward, and all gradients.
TEST_F(LinearTest, GroupsWithDropout) {
  const int64_t t = 13;
  const std::vector<int64_t> offsets = {0, 5, 5, t};
  std::vector<WeightId> ids;
  for (int g = 0; g < kGroups; ++g) ids.push_back({WeightKind::kW2, 1, g});
  const std::vector<std::vector<SlotRows>> slots = {
      {{2, 0, 3}, {4, 3, 5}}, {}, {{2, 5, 6}, {4, 6, t}}};
  std::vector<int64_t> keys;
  for (int64_t i = 0; i < t; ++i) keys.push_back((int64_t{9} << 24) | i * 7);
  const Floats x = random_.Floats(t * kIn), dy = random_.Floats(t * kOut);
  const GroupedLinearWeights weights = Weights(true);
  const DropoutRows dropout = {Upload(keys, DType::kI64, 0), kSeed};
  const Tensor device_x = Upload(x, DType::kF32, t);
  const Tensor device_dy = Upload(dy, DType::kF32, t);
  const Tensor y = Upload(Floats(t * kOut), DType::kF32, t);
  const Tensor dx = Upload(Floats(t * kIn), DType::kF32, t);
  Linear linear(backend_.get());
  test::RecordingSink sink(backend_.get(), {},
                           [](const WeightId&) { return true; });
  ASSERT_TRUE(linear
                  .ForwardTraining(weights, ids, device_x, offsets, dropout, {},
                                   y, *stream_)
                  .ok());
  ASSERT_TRUE(linear
                  .Backward(weights, ids, device_x, {}, device_dy, offsets,
                            dropout, slots, sink, dx, *stream_)
                  .ok());
  const Floats y_host = Read(y), dx_host = Read(dx);
  for (const int g : {0, 2}) {
    const int64_t begin = offsets[g], end = offsets[g + 1], rows = end - begin;
    const auto part = [&](const auto& all, int64_t cols) {
      return std::vector(all.begin() + begin * cols, all.begin() + end * cols);
    };
    const Group& group = groups_[g];
    const Values w = test::ToValues(group.w), a = test::ToValues(group.a);
    Values b = test::ToValues(group.b);
    for (double& value : b) value *= kScale;
    const Floats own_x = part(x, kIn);
    const std::vector<int64_t> own_keys(keys.begin() + begin,
                                        keys.begin() + end);
    const Values rows_x = test::ToValues(own_x);
    const Values dropped = Dropped(own_x, own_keys, ids[g]);
    const Values rows_dy = test::ToValues(part(dy, kOut));
    const Values u = Product(dropped, a, kIn);
    Values expected_y = Product(rows_x, w, kIn);
    AddProduct(u, b, kRank, expected_y);
    ExpectClose(part(y_host, kOut), expected_y, "y");

    const Values du = Product(rows_dy, Transposed(b, kRank), kOut);
    const Values through_a = Product(du, Transposed(a, kIn), kRank);
    Floats narrow(through_a.begin(), through_a.end());
    const Values masked = Dropped(narrow, own_keys, ids[g]);
    Values expected_dx = Product(rows_dy, Transposed(w, kIn), kOut);
    for (size_t i = 0; i < masked.size(); ++i) expected_dx[i] += masked[i];
    ExpectClose(part(dx_host, kIn), expected_dx, "dx");

    for (const SlotRows& slot : slots[g]) {
      const auto rows_of = [&](const Values& values) {
        const int64_t cols = static_cast<int64_t>(values.size()) / rows;
        return Transposed(Values(values.begin() + (slot.begin - begin) * cols,
                                 values.begin() + (slot.end - begin) * cols),
                          cols);
      };
      const int64_t count = slot.end - slot.begin;
      WeightId id = ids[g];
      const auto expect = [&](WeightPart which, const Values& left,
                              const Values& right, double scale) {
        id.part = which;
        Values expected = Product(rows_of(left), rows_of(right), count);
        for (double& value : expected) value *= scale;
        ExpectClose(sink.gradients().at({test::NameOf(id), slot.slot}),
                    expected, test::NameOf(id));
      };
      expect(WeightPart::kBase, rows_dy, rows_x, 1);
      expect(WeightPart::kLoraA, du, dropped, 1);
      expect(WeightPart::kLoraB, rows_dy, u, kScale);
    }
  }
  EXPECT_EQ(sink.gradients().size(), 12u);
}

// A dense layer is the same layer as a group of its own, and adds where asked.
TEST_F(LinearTest, DenseAddsToWhatIsThere) {
  const int64_t t = 7;
  const WeightId id = {WeightKind::kO, 3};
  const std::vector<SlotRows> slots = {{0, 0, t}};
  const Tensor keys =
      Upload(std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7}, DType::kI64, 0);
  const Tensor x = Upload(random_.Floats(t * kIn), DType::kF32, t);
  const Tensor dy = Upload(random_.Floats(t * kOut), DType::kF32, t);
  const Floats y_before = random_.Floats(t * kOut);
  const Floats dx_before = random_.Floats(t * kIn);
  const LinearWeights weights = {groups_[0].packed.get(), &groups_[0].lora};
  Linear linear(backend_.get());
  test::RecordingSink sink(backend_.get(), {}, [](const WeightId& weight) {
    return weight.part == WeightPart::kLoraB;
  });
  Floats y[2], dx[2];
  for (const bool accumulate : {false, true}) {
    const Tensor out = Upload(y_before, DType::kF32, t);
    const Tensor gradient = Upload(dx_before, DType::kF32, t);
    ASSERT_TRUE(linear
                    .ForwardTraining(weights, id, x, {keys, kSeed}, accumulate,
                                     out, *stream_)
                    .ok());
    ASSERT_TRUE(linear
                    .Backward(weights, id, x, dy, {keys, kSeed}, slots, sink,
                              accumulate, gradient, *stream_)
                    .ok());
    y[accumulate] = Read(out);
    dx[accumulate] = Read(gradient);
  }
  Values sum = test::ToValues(y_before);
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += y[0][i];
  ExpectClose(y[1], sum, "y");
  sum = test::ToValues(dx_before);
  for (size_t i = 0; i < sum.size(); ++i) sum[i] += dx[0][i];
  ExpectClose(dx[1], sum, "dx");
  EXPECT_EQ(sink.gradients().size(), 1u);  // of B; A and W are frozen
}

TEST_F(LinearTest, EveryWeightHasItsOwnMask) {
  const std::vector<int64_t> keys = {1, 2, 3, 4};
  const Floats x(4 * kIn, 1);
  const Values first = Dropped(x, keys, {WeightKind::kW13, 0, 0});
  for (const WeightId& other :
       {WeightId{WeightKind::kW13, 0, 1}, WeightId{WeightKind::kW13, 1, 0},
        WeightId{WeightKind::kW2, 0, 0}}) {
    EXPECT_NE(Dropped(x, keys, other), first) << test::NameOf(other);
  }
}

}  // namespace
}  // namespace octet
