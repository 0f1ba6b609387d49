// As cuda_faults_test.cc, of the operations of training.
#include <cstdint>
#include <vector>

#include "base/status_macros.h"
#include "gtest/gtest.h"
#include "kernels/training_ops.h"
#include "tests/kernels/cuda/failing_calls.h"

namespace octet::test {
namespace {

TEST(CudaTrainingFaultsTest, Products) {
  ExpectEveryFailureIsSaid([](Attempt& run) -> absl::StatusOr<Bytes> {
    TrainingBackend& training = *run.backend().training();
    OCTET_ASSIGN_OR_RETURN(PackedMatrix * w,
                           run.RandomMatrix(DType::kBF16, 16, 8));
    OCTET_ASSIGN_OR_RETURN(const Tensor x,
                           run.RandomTensor(DType::kBF16, {5, 8}));
    OCTET_ASSIGN_OR_RETURN(const Tensor dy,
                           run.RandomTensor(DType::kBF16, {5, 16}));
    OCTET_ASSIGN_OR_RETURN(const Tensor out, run.New(DType::kF32, {5, 16}));
    OCTET_ASSIGN_OR_RETURN(const Tensor dx, run.New(DType::kF32, {5, 8}));
    OCTET_ASSIGN_OR_RETURN(const Tensor dw, run.New(DType::kF32, {16, 8}));
    const PackedMatrix* const matrices[] = {w, w};
    const int64_t offsets[] = {0, 2, 5};
    OCTET_RETURN_IF_ERROR(train_ops::GroupedGemmAccumulate(
        training, x, matrices, offsets, out, run.stream()));
    OCTET_RETURN_IF_ERROR(train_ops::GroupedGemmBackwardInput(
        training, dy, matrices, offsets, false, dx, run.stream()));
    OCTET_RETURN_IF_ERROR(
        train_ops::GemmBackwardInput(training, dy, *w, true, dx, run.stream()));
    OCTET_RETURN_IF_ERROR(train_ops::GemmBackwardWeight(
        training, x, dy, 1.0f, false, dw, run.stream()));
    OCTET_RETURN_IF_ERROR(train_ops::Repack(training, *w, 0, dw, run.stream()));
    OCTET_RETURN_IF_ERROR(
        train_ops::GemmBackwardInput(training, dy, *w, true, dx, run.stream()));
    return run.Download(dx);
  });
}

TEST(CudaTrainingFaultsTest, Attention) {
  constexpr int kDim = 16, kTokens = 20;
  ExpectEveryFailureIsSaid([](Attempt& run) -> absl::StatusOr<Bytes> {
    TrainingBackend& training = *run.backend().training();
    const auto random = [&] {
      return run.RandomTensor(DType::kF32, {kTokens, kDim});
    };
    KvCacheView cache;
    cache.dtype = DType::kF32;
    cache.num_blocks = 2;
    cache.num_kv_heads = 1;
    cache.block_tokens = 16;
    cache.head_dim = kDim;
    OCTET_ASSIGN_OR_RETURN(const Tensor keys,
                           run.RandomTensor(DType::kF32, {32, kDim}));
    cache.keys = cache.values = keys.data();
    OCTET_ASSIGN_OR_RETURN(const Tensor q, random());
    OCTET_ASSIGN_OR_RETURN(const Tensor dq, random());
    OCTET_ASSIGN_OR_RETURN(const Tensor dk, random());
    OCTET_ASSIGN_OR_RETURN(const Tensor dv, random());
    const std::vector<int32_t> table = {1, 0};
    OCTET_RETURN_IF_ERROR(train_ops::AttentionBackward(
        training, q, cache, {{0, kTokens, 0, table}}, 0, q, q, dq, dk, dv,
        run.stream()));
    OCTET_ASSIGN_OR_RETURN(
        const Tensor positions,
        run.Upload(DType::kI32, std::vector<int32_t>(kTokens, 3), {kTokens}));
    OCTET_ASSIGN_OR_RETURN(const Tensor dqkv,
                           run.New(DType::kBF16, {kTokens, 3 * kDim}));
    OCTET_RETURN_IF_ERROR(train_ops::RopeBackward(training, dq, dk, dv,
                                                  positions, {1e4f, 1, 1, kDim},
                                                  dqkv, run.stream()));
    return run.Download(dqkv);
  });
}

TEST(CudaTrainingFaultsTest, RowsAndEnds) {
  ExpectEveryFailureIsSaid([](Attempt& run) -> absl::StatusOr<Bytes> {
    TrainingBackend& training = *run.backend().training();
    Stream& stream = run.stream();
    OCTET_ASSIGN_OR_RETURN(const Tensor h,
                           run.RandomTensor(DType::kF32, {4, 12}));
    OCTET_ASSIGN_OR_RETURN(const Tensor x,
                           run.RandomTensor(DType::kF32, {4, 6}));
    OCTET_ASSIGN_OR_RETURN(const Tensor y, run.New(DType::kF32, {4, 6}));
    OCTET_ASSIGN_OR_RETURN(const Tensor six,
                           run.RandomTensor(DType::kF32, {6}));
    OCTET_ASSIGN_OR_RETURN(const Tensor four,
                           run.RandomTensor(DType::kF32, {4}));
    OCTET_ASSIGN_OR_RETURN(const Tensor pairs,
                           run.RandomTensor(DType::kF32, {4, 2}));
    OCTET_ASSIGN_OR_RETURN(
        const Tensor ids,
        run.Upload(DType::kI32, std::vector<int32_t>{2, 0, 3, 1, 1, 0, 3, 2},
                   {4, 2}));
    const ConstTensor targets(ids.data(), DType::kI32, {4});
    OCTET_RETURN_IF_ERROR(train_ops::SwiGlu(training, h, y, stream));
    OCTET_RETURN_IF_ERROR(train_ops::SwiGluBackward(training, h, y, h, stream));
    OCTET_RETURN_IF_ERROR(
        train_ops::RmsNormBackward(training, x, six, 1e-5f, y, x, stream));
    OCTET_RETURN_IF_ERROR(train_ops::RmsNormBackwardWeight(
        training, x, 1e-5f, y, true, six, stream));
    OCTET_RETURN_IF_ERROR(
        train_ops::RouterLossBackward(training, x, six, 0.1f, y, stream));
    OCTET_RETURN_IF_ERROR(
        train_ops::RouterProbabilities(training, x, y, four, stream));
    OCTET_RETURN_IF_ERROR(train_ops::ScaleRows(training, y, four, y, stream));
    OCTET_RETURN_IF_ERROR(
        train_ops::SlotDots(training, x, y, ids, pairs, stream));
    OCTET_RETURN_IF_ERROR(
        train_ops::RouterBackward(training, ids, pairs, pairs, y, stream));
    OCTET_RETURN_IF_ERROR(
        train_ops::CrossEntropy(training, y, targets, four, four, x, stream));
    OCTET_RETURN_IF_ERROR(
        train_ops::EmbeddingBackward(training, x, targets, y, stream));
    return run.Download(y);
  });
}

TEST(CudaTrainingFaultsTest, Elementwise) {
  ExpectEveryFailureIsSaid([](Attempt& run) -> absl::StatusOr<Bytes> {
    TrainingBackend& training = *run.backend().training();
    Stream& stream = run.stream();
    OCTET_ASSIGN_OR_RETURN(const Tensor x,
                           run.RandomTensor(DType::kBF16, {3, 8}));
    OCTET_ASSIGN_OR_RETURN(const Tensor y, run.New(DType::kF32, {3, 8}));
    OCTET_ASSIGN_OR_RETURN(
        const Tensor keys,
        run.Upload(DType::kI64, std::vector<int64_t>{5, 6, 7}, {3}));
    OCTET_RETURN_IF_ERROR(train_ops::Cast(training, x, y, stream));
    OCTET_RETURN_IF_ERROR(
        train_ops::Dropout(training, x, keys, 9, 0.5f, true, y, stream));
    OCTET_RETURN_IF_ERROR(train_ops::CopyBlock(training, y, {0, 0}, y, {2, 4},
                                               1, 4, true, stream));
    const Tensor row(y.data(), DType::kF32, {8});
    OCTET_RETURN_IF_ERROR(train_ops::AddScaled(training, y.Rows(1, 1), 0.5f,
                                               y.Rows(2, 1), stream));
    OCTET_ASSIGN_OR_RETURN(const Tensor m, run.New(DType::kF32, {8}));
    OCTET_ASSIGN_OR_RETURN(const Tensor v, run.New(DType::kF32, {8}));
    OCTET_ASSIGN_OR_RETURN(const Tensor w, run.New(DType::kF32, {8}));
    AdamWParams params;
    params.learning_rate = 0.1f;
    OCTET_RETURN_IF_ERROR(
        train_ops::AdamW(training, params, row, w, m, v, stream));
    std::vector<double> sums;
    OCTET_RETURN_IF_ERROR(train_ops::SumOfSquares(training, w, &sums, stream));
    EXPECT_EQ(sums.size(), 1);
    return run.Download(y);
  });
}

}  // namespace
}  // namespace octet::test
