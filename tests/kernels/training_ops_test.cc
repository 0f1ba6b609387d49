// Every wrong argument of a training operation gets one sentence that names
// operation, argument, what was found and what was expected, and nothing is
// written.
#include "kernels/training_ops.h"

#include <cstdint>
#include <limits>
#include <vector>

#include "gtest/gtest.h"
#include "tests/kernels/ops_cases.h"

namespace octet::test {
namespace {

namespace ops = train_ops;

class TrainingOpsTest : public OpsTest {
 protected:
  TrainingBackend& t_ = *b_.training();
  const std::vector<int64_t> rows_ = {0, 2};
};

TEST_F(TrainingOpsTest, Products) {
  const PackedMatrix* w = Matrix(DType::kF32, 3, 4);
  const PackedMatrix* w_bf16 = Matrix(DType::kBF16, 3, 4);
  const std::vector<const PackedMatrix*> one = {w};
  const std::vector<const PackedMatrix*> null = {nullptr};
  const std::vector<const PackedMatrix*> mixed = {w, Matrix(DType::kF32, 5, 4)};
  const Tensor x = F32({2, 4});
  const Tensor y = F32({2, 3});
  const auto backward_input = [&](Tensor dy, const PackedMatrix& matrix,
                                  bool accumulate, Tensor dx) {
    return ops::GemmBackwardInput(t_, dy, matrix, accumulate, dx, s_);
  };
  const auto grouped = [&](const std::vector<const PackedMatrix*>& matrices,
                           const std::vector<int64_t>& offsets, Tensor dy,
                           bool accumulate, Tensor dx) {
    return ops::GroupedGemmBackwardInput(t_, dy, matrices, offsets, accumulate,
                                         dx, s_);
  };
  Check({
      {"GroupedGemmAccumulate: out is bf16[2, 3], expected f32[2, 3]",
       [&] {
         return ops::GroupedGemmAccumulate(t_, x, one, rows_, BF({2, 3}), s_);
       }},
      {"GroupedGemmAccumulate: row_offsets[1] is 2, expected 3, the rows of x",
       [&] {
         return ops::GroupedGemmAccumulate(t_, F32({3, 4}), one, rows_,
                                           F32({3, 3}), s_);
       }},
      {"GroupedGemmAccumulate: w[0] is null, expected a matrix",
       [&] { return ops::GroupedGemmAccumulate(t_, x, null, rows_, y, s_); }},
      {"GemmBackwardInput: dy is f32[2, 3], expected bf16[any, 3]",
       [&] { return backward_input(y, *w_bf16, false, x); }},
      {"GemmBackwardInput: dy is f32[2, 4], expected f32[any, 3]",
       [&] { return backward_input(x, *w, false, x); }},
      {"GemmBackwardInput: dx is bf16[2, 4], expected f32[2, 4]",
       [&] {
         return backward_input(y, *w, true, BF({2, 4}));
       }},
      {"GemmBackwardInput: dx is f32[2, 3], expected f32 or bf16[2, 4]",
       [&] { return backward_input(y, *w, false, y); }},
      {"GroupedGemmBackwardInput: w[1] is f32[5, 4], expected f32[3, 4]",
       [&] {
         return grouped(mixed, {0, 1, 2}, y, false, x);
       }},
      {"GroupedGemmBackwardInput: w[0] is null, expected a matrix",
       [&] { return grouped(null, rows_, y, false, x); }},
      {"GroupedGemmBackwardInput: the row length of dy is 4, expected 3, the "
       "rows of w",
       [&] { return grouped(one, rows_, x, false, x); }},
      {"GroupedGemmBackwardInput: row_offsets[1] is 1, expected 2, the rows of "
       "dy",
       [&] {
         return grouped(one, {0, 1}, y, false, x);
       }},
      {"GroupedGemmBackwardInput: dx is bf16[2, 4], expected f32[2, 4]",
       [&] {
         return grouped(one, rows_, y, true, BF({2, 4}));
       }},
      {"GemmBackwardWeight: dy is bf16[2, 3], expected f32[2, any]",
       [&] {
         return ops::GemmBackwardWeight(t_, x, BF({2, 3}), 1, false,
                                        F32({3, 4}), s_);
       }},
      {"GemmBackwardWeight: dw is f32[4, 3], expected f32[3, 4]",
       [&] {
         return ops::GemmBackwardWeight(t_, x, y, 1, false, F32({4, 3}), s_);
       }},
  });
}

TEST_F(TrainingOpsTest, Activations) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor x = F32({2, 4});
  const Tensor w = F32({4});
  Check({
      {"SwiGlu: the row length of h is 3, expected even",
       [&] {
         return ops::SwiGlu(t_, F32({2, 3}), F32({2, 1}), s_);
       }},
      {"SwiGlu: out is f32[2, 4], expected f32 or bf16[2, 2]",
       [&] { return ops::SwiGlu(t_, x, x, s_); }},
      {"SwiGlu: h is f32[2, 4] without data, expected data",
       [&] {
         return ops::SwiGlu(t_, none_, F32({2, 2}), s_);
       }},
      {"SwiGluBackward: dout is f32[2, 4], expected f32 or bf16[2, 2]",
       [&] { return ops::SwiGluBackward(t_, x, x, x, s_); }},
      {"SwiGluBackward: dh is f32[2, 2], expected f32 or bf16[2, 4]",
       [&] {
         return ops::SwiGluBackward(t_, x, F32({2, 2}), F32({2, 2}), s_);
       }},
      {"RmsNormBackward: weight is f32[5], expected f32[4]",
       [&] { return ops::RmsNormBackward(t_, x, F32({5}), 0.1f, x, x, s_); }},
      {"RmsNormBackward: eps is nan, expected 0 or more",
       [&] { return ops::RmsNormBackward(t_, x, w, nan, x, x, s_); }},
      {"RmsNormBackward: dx is bf16[2, 4], expected f32[2, 4]",
       [&] {
         return ops::RmsNormBackward(t_, x, w, 0.1f, x, BF({2, 4}), s_);
       }},
      {"RmsNormBackwardWeight: dy is f32[1, 4], expected f32[2, 4]",
       [&] {
         return ops::RmsNormBackwardWeight(t_, x, 0.1f, F32({1, 4}), false, w,
                                           s_);
       }},
      {"RmsNormBackwardWeight: dweight is f32[2, 4], expected f32[4]",
       [&] {
         return ops::RmsNormBackwardWeight(t_, x, 0.1f, x, false, x, s_);
       }},
  });
}

TEST_F(TrainingOpsTest, Attention) {
  const KvCacheView cache = NewCache(device_, {DType::kF32, 1, 4, 8, 2});
  const std::vector<int32_t> table = {0, 1};
  const std::vector<int32_t> outside = {0, 2};
  const Tensor q = F32({6, 16});
  const Tensor kv = F32({6, 8});
  const auto run = [&](AttentionSequence sequence, Tensor out, Tensor dk) {
    return ops::AttentionBackward(t_, q, cache, {sequence}, 0, out, q, q, dk,
                                  kv, s_);
  };
  RopeParams rope{1e4f, 2, 1, 8};
  const auto rope_backward = [&](RopeParams params, Tensor dqkv) {
    return ops::RopeBackward(t_, q, kv, kv, I32({6}), params, dqkv, s_);
  };
  Check({
      {"AttentionBackward: out is f32[6, 8], expected f32 or bf16[6, 16]",
       [&] {
         return run({0, 6, 0, table}, kv, kv);
       }},
      {"AttentionBackward: dk is f32[6, 16], expected f32[6, 8]",
       [&] {
         return run({0, 6, 0, table}, q, q);
       }},
      {"AttentionBackward: sequences[0].first_position is 1, expected 0",
       [&] {
         return run({0, 5, 1, table}, q, kv);
       }},
      {"AttentionBackward: the row range of sequences[0] is 1 + 6, expected "
       "within 6 rows",
       [&] {
         return run({1, 6, 0, table}, q, kv);
       }},
      {"AttentionBackward: sequences[0].block_table[1] is 2, expected 0 to 1",
       [&] {
         return run({0, 6, 0, outside}, q, kv);
       }},
      {"AttentionBackward: the row length of q is 12, expected a multiple of "
       "8, the cache's N_kv D",
       [&] {
         const Tensor odd = F32({6, 12});
         return ops::AttentionBackward(t_, odd, cache, {}, 0, odd, odd, odd, kv,
                                       kv, s_);
       }},
      {"AttentionBackward: sliding_window is -1, expected 0 (off) or more",
       [&] {
         return ops::AttentionBackward(t_, q, cache, {}, -1, q, q, q, kv, kv,
                                       s_);
       }},
      {"RopeBackward: params.head_dim is 7, expected an even number, 2 or more",
       [&] {
         return rope_backward({1e4f, 2, 1, 7}, F32({6, 32}));
       }},
      {"RopeBackward: params.num_kv_heads is 0, expected 1 or more",
       [&] {
         return rope_backward({1e4f, 2, 0, 8}, F32({6, 32}));
       }},
      {"RopeBackward: dqkv is f32[6, 16], expected f32 or bf16[6, 32]",
       [&] { return rope_backward(rope, q); }},
      {"RopeBackward: dk is f32[6, 8], expected f32[6, 16]",
       [&] {
         return rope_backward({1e4f, 2, 2, 8}, F32({6, 48}));
       }},
  });
}

TEST_F(TrainingOpsTest, Router) {
  const Tensor two = F32({2, 2});
  const Tensor logits = F32({2, 4});
  Check({
      {"RouterBackward: dweights is f32[2, 4], expected f32[2, 2]",
       [&] {
         return ops::RouterBackward(t_, I32({2, 2}), two, logits, logits, s_);
       }},
      {"RouterBackward: K is 4, expected 1 to 2, the number of experts",
       [&] {
         return ops::RouterBackward(t_, I32({2, 4}), logits, logits, two, s_);
       }},
      {"RouterProbabilities: E is 0, expected 1 or more",
       [&] {
         return ops::RouterProbabilities(t_, F32({2, 0}), F32({2, 0}), F32({2}),
                                         s_);
       }},
      {"RouterProbabilities: log_sums is f32[4], expected f32[2]",
       [&] {
         return ops::RouterProbabilities(t_, logits, logits, F32({4}), s_);
       }},
      {"RouterLossBackward: coef is f32[2], expected f32[4]",
       [&] {
         return ops::RouterLossBackward(t_, logits, F32({2}), 0, logits, s_);
       }},
      {"SlotDots: rows is f32[2, 2], expected f32 or bf16[any, 4]",
       [&] {
         return ops::SlotDots(t_, logits, two, I32({2, 2}), two, s_);
       }},
      {"SlotDots: dots is f32[2, 4], expected f32[2, 2]",
       [&] {
         return ops::SlotDots(t_, logits, logits, I32({2, 2}), logits, s_);
       }},
      {"ScaleRows: scales is f32[4], expected f32[2]",
       [&] { return ops::ScaleRows(t_, logits, F32({4}), logits, s_); }},
  });
}

TEST_F(TrainingOpsTest, Ends) {
  const Tensor logits = F32({2, 4});
  const Tensor rows = F32({2});
  Check({
      {"CrossEntropy: targets is i64[2], expected i32[2]",
       [&] {
         return ops::CrossEntropy(t_, logits, I64({2}), rows, rows, logits, s_);
       }},
      {"CrossEntropy: losses is f32[2, 4], expected f32[2]",
       [&] {
         return ops::CrossEntropy(t_, logits, I32({2}), rows, logits, logits,
                                  s_);
       }},
      {"CrossEntropy: dlogits is f32[2], expected f32 or bf16[2, 4]",
       [&] {
         return ops::CrossEntropy(t_, logits, I32({2}), rows, rows, rows, s_);
       }},
      {"CrossEntropy: V is 0, expected 1 or more",
       [&] {
         return ops::CrossEntropy(t_, F32({2, 0}), I32({2}), rows, rows,
                                  Tensor(), s_);
       }},
      {"EmbeddingBackward: dtable is f32[3, 5], expected f32[any, 4]",
       [&] {
         return ops::EmbeddingBackward(t_, logits, I32({2}), F32({3, 5}), s_);
       }},
  });
}

TEST_F(TrainingOpsTest, Elementwise) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor x = F32({2, 4});
  const auto copy = [&](MatrixBlock from, MatrixBlock to, int64_t rows,
                        int64_t cols) {
    return ops::CopyBlock(t_, x, from, F32({3, 5}), to, rows, cols, false, s_);
  };
  const auto dropout = [&](float p, bool accumulate, Tensor out) {
    return ops::Dropout(t_, x, I64({2}), 1, p, accumulate, out, s_);
  };
  Check({
      {"Cast: x is i32[8], expected f32 or bf16 of any number of elements",
       [&] { return ops::Cast(t_, I32({8}), x, s_); }},
      {"Cast: out is f32[7], expected f32 or bf16 of 8 elements",
       [&] { return ops::Cast(t_, x, F32({7}), s_); }},
      {"AddScaled: out is bf16[8], expected f32 of 8 elements",
       [&] { return ops::AddScaled(t_, x, 1, BF({8}), s_); }},
      {"CopyBlock: num_cols is -1, expected 0 or more",
       [&] {
         return copy({0, 0}, {0, 0}, 1, -1);
       }},
      {"CopyBlock: the block of src is [2, 4] at (0, 1), expected one within "
       "f32[2, 4]",
       [&] {
         return copy({0, 1}, {0, 0}, 2, 4);
       }},
      {"CopyBlock: the block of dst is [2, 4] at (2, 0), expected one within "
       "f32[3, 5]",
       [&] {
         return copy({0, 0}, {2, 0}, 2, 4);
       }},
      {"CopyBlock: the block of dst is [1, 1] at (-1, 0), expected one within "
       "f32[3, 5]",
       [&] {
         return copy({0, 0}, {-1, 0}, 1, 1);
       }},
      {"Dropout: p is 1, expected 0 or more and less than 1",
       [&] { return dropout(1.0f, false, x); }},
      {"Dropout: p is nan, expected 0 or more and less than 1",
       [&] { return dropout(nan, false, x); }},
      {"Dropout: out is bf16[2, 4], expected f32[2, 4]",
       [&] {
         return dropout(0.5f, true, BF({2, 4}));
       }},
      {"Dropout: row_keys is i32[2], expected i64[2]",
       [&] { return ops::Dropout(t_, x, I32({2}), 1, 0.5f, false, x, s_); }},
  });
}

TEST_F(TrainingOpsTest, Optimizer) {
  const Tensor x = F32({4});
  const auto adamw = [&](AdamWParams params) {
    return ops::AdamW(t_, params, x, x, x, x, s_);
  };
  const auto matrix = *b_.NewPackedMatrix(DType::kBF16, 3, 4);
  std::vector<double> sums;
  Check({
      {"SumOfSquares: x is bf16[4], expected f32 of any number of elements",
       [&] { return ops::SumOfSquares(t_, BF({4}), &sums, s_); }},
      {"SumOfSquares: sums is null, expected a vector",
       [&] { return ops::SumOfSquares(t_, x, nullptr, s_); }},
      {"AdamW: params.learning_rate is -1, expected 0 or more",
       [&] { return adamw({.learning_rate = -1}); }},
      {"AdamW: params.beta1 is 1, expected 0 or more and less than 1",
       [&] { return adamw({.beta1 = 1}); }},
      {"AdamW: params.beta2 is -0.5, expected 0 or more and less than 1",
       [&] { return adamw({.beta2 = -0.5f}); }},
      {"AdamW: params.eps is -1, expected 0 or more",
       [&] { return adamw({.eps = -1}); }},
      {"AdamW: params.weight_decay is -1, expected 0 or more",
       [&] { return adamw({.weight_decay = -1}); }},
      {"AdamW: params.grad_scale is inf, expected finite",
       [&] {
         return adamw({.grad_scale = std::numeric_limits<float>::infinity()});
       }},
      {"AdamW: params.step is 0, expected 1 or more",
       [&] { return adamw({.step = 0}); }},
      {"AdamW: weight is f32[5], expected f32[4]",
       [&] { return ops::AdamW(t_, {}, x, F32({5}), x, x, s_); }},
      {"Repack: rows is bf16[2, 4], expected f32[any, 4]",
       [&] {
         return ops::Repack(t_, *matrix, 0, BF({2, 4}), s_);
       }},
      {"Repack: the row range is 2 + 2, expected within the matrix's 3 rows",
       [&] {
         return ops::Repack(t_, *matrix, 2, F32({2, 4}), s_);
       }},
  });
}

}  // namespace
}  // namespace octet::test
