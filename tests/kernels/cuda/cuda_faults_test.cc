// Calls of CUDA and cuBLAS that fail: each one that an operation makes is made
// to fail in turn, and each time the operation says so in a sentence that names
// the call, leaves nothing allocated, and works the next time.
#include <cublasLt.h>
#include <cuda_runtime.h>

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/ops.h"
#include "tests/cuda_emulation/include/cuda_emu/control.h"
#include "tests/kernels/cuda/failing_calls.h"
#include "tests/reference/host_tensor.h"

namespace octet::test {
namespace {

using testing::HasSubstr;

TEST(CudaFaultsTest, RowOperations) {
  ExpectEveryFailureIsSaid([](Attempt& run) -> absl::StatusOr<Bytes> {
    OCTET_ASSIGN_OR_RETURN(const Tensor table,
                           run.RandomTensor(DType::kBF16, {9, 24}));
    const std::vector<int32_t> ids = {3, 8, 0};
    OCTET_ASSIGN_OR_RETURN(const Tensor rows,
                           run.Upload(DType::kI32, ids, {3}));
    OCTET_ASSIGN_OR_RETURN(const Tensor x, run.New(DType::kF32, {3, 24}));
    OCTET_RETURN_IF_ERROR(
        ops::Embedding(run.backend(), table, rows, x, run.stream()));
    OCTET_ASSIGN_OR_RETURN(const Tensor weight,
                           run.RandomTensor(DType::kF32, {24}));
    OCTET_ASSIGN_OR_RETURN(const Tensor norm, run.New(DType::kF32, {3, 24}));
    OCTET_RETURN_IF_ERROR(
        ops::RmsNorm(run.backend(), x, weight, 1e-5f, norm, run.stream()));
    OCTET_ASSIGN_OR_RETURN(const Tensor chosen, run.New(DType::kI32, {3, 2}));
    OCTET_ASSIGN_OR_RETURN(const Tensor weights, run.New(DType::kF32, {3, 2}));
    OCTET_RETURN_IF_ERROR(
        ops::Router(run.backend(), norm, chosen, weights, run.stream()));
    OCTET_ASSIGN_OR_RETURN(const Tensor moved, run.New(DType::kBF16, {3, 24}));
    OCTET_RETURN_IF_ERROR(
        ops::GatherRows(run.backend(), table, rows, moved, run.stream()));
    const std::vector<int32_t> slots = {0, 1, 2, 0, 1, 2};
    OCTET_ASSIGN_OR_RETURN(const Tensor slot_rows,
                           run.Upload(DType::kI32, slots, {3, 2}));
    OCTET_RETURN_IF_ERROR(ops::CombineRows(run.backend(), moved, slot_rows,
                                           weights, x, run.stream()));
    return run.Download(x);
  });
}

// The first product of a shape, which is examined, and one that is not.
TEST(CudaFaultsTest, Products) {
  for (const int64_t k : {32, 33}) {
    ExpectEveryFailureIsSaid([k](Attempt& run) -> absl::StatusOr<Bytes> {
      OCTET_ASSIGN_OR_RETURN(PackedMatrix * w,
                             run.RandomMatrix(DType::kBF16, 8, k));
      OCTET_ASSIGN_OR_RETURN(const Tensor x,
                             run.RandomTensor(DType::kBF16, {3, k}));
      OCTET_ASSIGN_OR_RETURN(const Tensor out, run.New(DType::kF32, {3, 8}));
      OCTET_RETURN_IF_ERROR(
          ops::Gemm(run.backend(), x, *w, false, out, run.stream()));
      return run.Download(out);
    });
  }
}

TEST(CudaFaultsTest, GroupedProducts) {
  ExpectEveryFailureIsSaid([](Attempt& run) -> absl::StatusOr<Bytes> {
    OCTET_ASSIGN_OR_RETURN(PackedMatrix * w13,
                           run.RandomMatrix(DType::kF32, 16, 8));
    OCTET_ASSIGN_OR_RETURN(PackedMatrix * w2,
                           run.RandomMatrix(DType::kF32, 8, 8));
    OCTET_ASSIGN_OR_RETURN(const Tensor x,
                           run.RandomTensor(DType::kF32, {5, 8}));
    OCTET_ASSIGN_OR_RETURN(const Tensor mid, run.New(DType::kF32, {5, 8}));
    OCTET_ASSIGN_OR_RETURN(const Tensor out, run.New(DType::kF32, {5, 8}));
    const PackedMatrix* const gates[] = {w13, w13};
    const PackedMatrix* const downs[] = {w2, w2};
    const int64_t offsets[] = {0, 2, 5};
    OCTET_RETURN_IF_ERROR(ops::GroupedGemmSwiGlu(run.backend(), x, gates,
                                                 offsets, mid, run.stream()));
    OCTET_RETURN_IF_ERROR(ops::GroupedGemm(run.backend(), mid, downs, offsets,
                                           out, run.stream()));
    std::vector<float> rows(16 * 8);
    OCTET_RETURN_IF_ERROR(run.backend().UnpackRows(
        *w13, 0, Tensor(rows.data(), DType::kF32, {16, 8})));
    return run.Download(out);
  });
}

constexpr int kDim = 16;
constexpr int kBlockTokens = 64;

absl::StatusOr<KvCacheView> NewCache(Attempt& run) {
  KvCacheView cache;
  cache.dtype = DType::kF32;
  cache.num_blocks = 5;
  cache.num_kv_heads = 1;
  cache.block_tokens = kBlockTokens;
  cache.head_dim = kDim;
  OCTET_ASSIGN_OR_RETURN(
      const Tensor keys,
      run.RandomTensor(DType::kF32, {5 * kBlockTokens, kDim}));
  OCTET_ASSIGN_OR_RETURN(
      const Tensor values,
      run.RandomTensor(DType::kF32, {5 * kBlockTokens, kDim}));
  cache.keys = keys.data();
  cache.values = values.data();
  return cache;
}

// The keys of token 300 turned into the cache, then seen with those before, in
// spans that a merge folds.
TEST(CudaFaultsTest, RopeAndAttention) {
  const Work work = [](Attempt& run) -> absl::StatusOr<Bytes> {
    OCTET_ASSIGN_OR_RETURN(const KvCacheView cache, NewCache(run));
    OCTET_ASSIGN_OR_RETURN(const Tensor qkv,
                           run.RandomTensor(DType::kF32, {1, 4 * kDim}));
    OCTET_ASSIGN_OR_RETURN(
        const Tensor positions,
        run.Upload(DType::kI32, std::vector<int32_t>{300}, {1}));
    OCTET_ASSIGN_OR_RETURN(
        const Tensor slots,
        run.Upload(DType::kI64, std::vector<int64_t>{300}, {1}));
    OCTET_ASSIGN_OR_RETURN(const Tensor q, run.New(DType::kF32, {1, 2 * kDim}));
    OCTET_RETURN_IF_ERROR(ops::RopeAndCache(run.backend(), qkv, positions,
                                            slots, {1e4f, 2, 1, kDim}, cache, q,
                                            run.stream()));
    const std::vector<int32_t> table = {0, 1, 2, 3, 4};
    OCTET_ASSIGN_OR_RETURN(const Tensor out,
                           run.New(DType::kF32, {1, 2 * kDim}));
    OCTET_RETURN_IF_ERROR(ops::PagedAttention(
        run.backend(), q, cache, {{0, 1, 300, table}}, 0, out, run.stream()));
    return run.Download(out);
  };
  ExpectEveryFailureIsSaid(work, {.attention_blocks = 1 << 20});
}

TEST(CudaFaultsTest, SamplingAndScores) {
  ExpectEveryFailureIsSaid([](Attempt& run) -> absl::StatusOr<Bytes> {
    OCTET_ASSIGN_OR_RETURN(const Tensor logits,
                           run.RandomTensor(DType::kF32, {2, 40}));
    const std::vector<int32_t> banned = {5};
    SamplingRow row;
    row.banned_ids = banned;
    row.num_logprobs = 2;
    std::vector<SampledToken> tokens;
    OCTET_RETURN_IF_ERROR(
        ops::Sample(run.backend(), logits, {row, row}, &tokens, run.stream()));
    std::vector<TokenLogprobs> scores;
    OCTET_RETURN_IF_ERROR(ops::ScoreTokens(run.backend(), logits, {1, 2},
                                           {0, 3}, &scores, run.stream()));
    Bytes bytes(sizeof(float) + sizeof(int32_t));
    std::memcpy(bytes.data(), &scores[1].logprob, sizeof(float));
    std::memcpy(&bytes[sizeof(float)], &tokens[1].token_id, sizeof(int32_t));
    return bytes;
  });
}

TEST(CudaFaultsTest, StreamsAndEvents) {
  std::vector<std::unique_ptr<Stream>> streams;
  std::vector<std::unique_ptr<Event>> events;
  ExpectEveryFailureIsSaid([&](Attempt& run) -> absl::StatusOr<Bytes> {
    OCTET_ASSIGN_OR_RETURN(streams.emplace_back(), run.backend().NewStream());
    OCTET_ASSIGN_OR_RETURN(events.emplace_back(), run.backend().NewEvent());
    OCTET_ASSIGN_OR_RETURN(const Tensor x, run.New(DType::kF32, {4}));
    OCTET_RETURN_IF_ERROR(run.backend().Record(*events.back(), run.stream()));
    OCTET_RETURN_IF_ERROR(run.backend().Wait(*events.back(), *streams.back()));
    OCTET_RETURN_IF_ERROR(run.backend().Synchronize(*streams.back()));
    return run.Download(x);
  });
}

TEST(CudaFaultsTest, MakingTheBackend) {
  const size_t live = cuda_emu::LiveAllocations();
  int call = 1;
  for (;; ++call) {
    cuda_emu::FailCall(call);
    const auto backend = NewCudaBackend({});
    const std::string failed = cuda_emu::FailedCall();
    cuda_emu::FailCall(0);
    if (failed.empty()) break;
    ASSERT_FALSE(backend.ok()) << failed;
    EXPECT_THAT(std::string(backend.status().message()), HasSubstr(failed));
  }
  EXPECT_GT(call, 10);
  EXPECT_EQ(cuda_emu::LiveAllocations(), live);
}

TEST(CudaFaultsTest, HostsWithoutAFittingGpu) {
  const std::pair<cudaError_t, std::string> answers[] = {
      {cudaErrorInsufficientDriver,
       "cuda: no NVIDIA driver is running on this host, or one that is too "
       "old (cudaGetDeviceCount: "},
      {cudaErrorNoDevice,
       "cuda: the NVIDIA driver shows no GPU to this process"}};
  for (const auto& [error, message] : answers) {
    cuda_emu::FailCall(1, "cudaGetDeviceCount", error);
    const absl::Status status = NewCudaBackend({}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), testing::StartsWith(message));
  }
  cuda_emu::SetComputeCapability(7, 5);
  const absl::Status status = NewCudaBackend({}).status();
  cuda_emu::SetComputeCapability(9, 0);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(),
            "cuda: device 0 (emulated device) has compute capability 7.5, "
            "expected 8.0 or more");
}

// What cuBLASLt does not offer, the own kernel does.
TEST(CudaFaultsTest, ShapesThatCublasDoesNotSupport) {
  const Work product = [](Attempt& run) -> absl::StatusOr<Bytes> {
    OCTET_ASSIGN_OR_RETURN(PackedMatrix * w,
                           run.RandomMatrix(DType::kBF16, 8, 96));
    OCTET_ASSIGN_OR_RETURN(const Tensor x,
                           run.RandomTensor(DType::kBF16, {3, 96}));
    OCTET_ASSIGN_OR_RETURN(const Tensor out, run.New(DType::kF32, {3, 8}));
    OCTET_RETURN_IF_ERROR(
        ops::Gemm(run.backend(), x, *w, false, out, run.stream()));
    return run.Download(out);
  };
  Attempt own({.cublas = false});
  const auto expected = product(own);
  ASSERT_TRUE(expected.ok()) << expected.status();
  for (const char* call :
       {"cublasLtMatmulAlgoGetHeuristic", "cublasLtMatmul"}) {
    Attempt run({});
    cuda_emu::FailCall(1, call, CUBLAS_STATUS_NOT_SUPPORTED);
    const auto result = product(run);
    EXPECT_EQ(cuda_emu::FailedCall(), call);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(*result, *expected);
  }
}

// One table of angles serves every stream of the backend.
TEST(CudaFaultsTest, RopeTableIsThereForOtherStreams) {
  Attempt run({});
  const KvCacheView cache = NewCache(run).value();
  const Tensor qkv = run.RandomTensor(DType::kF32, {1, 4 * kDim}).value();
  const Tensor positions =
      run.Upload(DType::kI32, std::vector<int32_t>{5}, {1}).value();
  const Tensor slots =
      run.Upload(DType::kI64, std::vector<int64_t>{5}, {1}).value();
  const Tensor first = run.New(DType::kF32, {1, 2 * kDim}).value();
  const Tensor second = run.New(DType::kF32, {1, 2 * kDim}).value();
  ASSERT_TRUE(run.backend().Synchronize(run.stream()).ok());
  const auto other = run.backend().NewStream().value();
  const RopeParams params = {1e4f, 2, 1, kDim};
  ASSERT_TRUE(ops::RopeAndCache(run.backend(), qkv, positions, slots, params,
                                cache, first, run.stream())
                  .ok());
  KvCacheView other_cache = cache;  // nothing but the table is shared
  const Tensor keys = run.New(DType::kF32, {5 * kBlockTokens, kDim}).value();
  const Tensor values = run.New(DType::kF32, {5 * kBlockTokens, kDim}).value();
  other_cache.keys = keys.data();
  other_cache.values = values.data();
  ASSERT_TRUE(ops::RopeAndCache(run.backend(), qkv, positions, slots, params,
                                other_cache, second, *other)
                  .ok());
  ASSERT_TRUE(run.backend().Synchronize(*other).ok());
  EXPECT_EQ(run.Download(first).value(), run.Download(second).value());
  EXPECT_EQ(cuda_emu::ErrorCount(), 0) << cuda_emu::LastMessage();
}

// One backend, several models.
TEST(CudaFaultsTest, RopeTableFollowsItsParameters) {
  const auto turned = [](Attempt& run, float theta) {
    const KvCacheView cache = NewCache(run).value();
    const Tensor qkv = run.RandomTensor(DType::kF32, {1, 4 * kDim}).value();
    const Tensor positions =
        run.Upload(DType::kI32, std::vector<int32_t>{99}, {1}).value();
    const Tensor slots =
        run.Upload(DType::kI64, std::vector<int64_t>{5}, {1}).value();
    const Tensor q = run.New(DType::kF32, {1, 2 * kDim}).value();
    EXPECT_TRUE(ops::RopeAndCache(run.backend(), qkv, positions, slots,
                                  {theta, 2, 1, kDim}, cache, q, run.stream())
                    .ok());
    return run.Download(q).value();
  };
  Attempt both({});
  Attempt other({});
  const Bytes first = turned(both, 1e4f);
  const Bytes second = turned(both, 1e6f);
  EXPECT_EQ(second, turned(other, 1e6f));
  EXPECT_NE(second, first);
}

}  // namespace
}  // namespace octet::test
