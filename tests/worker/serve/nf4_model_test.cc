// A model whose weights are quantised while they are loaded: what is quantised,
// that its logits have the bits of the model with the dequantised weights, and
// that they are the same at every number of ranks.
#include <numeric>
#include <string>
#include <vector>

#include "base/status_macros.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/data.h"
#include "tests/support/ranks.h"
#include "tests/worker/model/tiny_model.h"
#include "worker/checkpoint/hf_checkpoint.h"
#include "worker/checkpoint/hf_loader.h"
#include "worker/checkpoint/random_checkpoint.h"

namespace octet {
namespace {

using test::TinyRank;
using testing::HasSubstr;

constexpr int kBlockTokens = 16;
constexpr int kNumBlocks = 2;
constexpr int kTokens = 20;

ModelConfig Config() {
  ModelConfig config = FindModelPreset("tiny").value();
  config.num_layers = 2;
  config.hidden_dim = 64;
  config.ffn_dim = 192;
  config.num_experts = 4;
  config.top_k = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 16;
  config.vocab_size = 96;
  return config;
}

class Nf4ModelTest : public ::testing::Test {
 protected:
  void Write(const ModelConfig& config) {
    RandomCheckpointOptions options;
    options.std_dev = 0;
    const absl::Status status =
        WriteRandomCheckpoint(dir_.path() + "/model", config, options);
    ASSERT_TRUE(status.ok()) << status;
  }

  absl::StatusOr<ModelWeights> Load(Backend& backend, DType dtype,
                                    Quantization quantization,
                                    std::vector<int> experts) {
    OCTET_ASSIGN_OR_RETURN(const auto checkpoint,
                           HfCheckpoint::Open(dir_.path() + "/model"));
    LoadOptions load;
    load.dtype = dtype;
    load.quantization = quantization;
    load.expert_ids = std::move(experts);
    return LoadMixtral(*checkpoint, config_, backend, load);
  }

  // All logits of one sequence at home on the last rank.
  std::vector<float> Logits(DType dtype, Quantization quantization, int size,
                            bool dequantize);

  test::TempDir dir_;
  ModelConfig config_ = Config();
};

std::vector<char> Unpack(Backend& backend, const PackedMatrix& matrix) {
  std::vector<char> bytes(matrix.n() * matrix.k() * SizeOf(matrix.dtype()));
  EXPECT_TRUE(backend
                  .UnpackRows(matrix, 0,
                              Tensor(bytes.data(), matrix.dtype(),
                                     {matrix.n(), matrix.k()}))
                  .ok());
  return bytes;
}

// The same values in the compute dtype.
void Dequantize(Backend& backend, std::unique_ptr<PackedMatrix>& matrix) {
  const std::vector<char> rows = Unpack(backend, *matrix);
  auto plain =
      backend.NewPackedMatrix(matrix->dtype(), matrix->n(), matrix->k());
  ASSERT_TRUE(backend
                  .PackRows(**plain, 0,
                            ConstTensor(rows.data(), matrix->dtype(),
                                        {matrix->n(), matrix->k()}))
                  .ok());
  matrix = *std::move(plain);
}

void DequantizeAll(Backend& backend, ModelWeights& weights) {
  for (LayerWeights& layer : weights.layers) {
    Dequantize(backend, layer.qkv);
    Dequantize(backend, layer.o);
    Dequantize(backend, layer.gate);
    for (ExpertWeights& expert : layer.experts) {
      Dequantize(backend, expert.w13);
      Dequantize(backend, expert.w2);
    }
  }
}

std::vector<float> Nf4ModelTest::Logits(DType dtype, Quantization quantization,
                                        int size, bool dequantize) {
  std::vector<float> logits(kTokens * config_.vocab_size);
  const auto body = [&](Communicator& communicator) -> absl::Status {
    TinyRank rank;
    OCTET_ASSIGN_OR_RETURN(rank.backend, NewCpuBackend({}));
    OCTET_ASSIGN_OR_RETURN(rank.placement,
                           Placement::Default(config_.num_experts, size));
    const auto experts = rank.placement->LocalExperts(communicator.rank());
    OCTET_ASSIGN_OR_RETURN(rank.weights,
                           Load(*rank.backend, dtype, quantization,
                                {experts.begin(), experts.end()}));
    if (dequantize) DequantizeAll(*rank.backend, rank.weights);
    OCTET_ASSIGN_OR_RETURN(
        rank.cache, KvCache::Create(*rank.backend, config_, dtype, kNumBlocks,
                                    kBlockTokens));
    OCTET_ASSIGN_OR_RETURN(
        rank.transformer,
        Transformer::Create(rank.backend.get(), &communicator, config_,
                            &*rank.placement, &rank.weights, &*rank.cache,
                            TransformerLimits{}));
    const bool home = communicator.rank() == size - 1;
    std::vector<int32_t> tokens(kTokens), rows(kTokens), blocks(kNumBlocks);
    for (int i = 0; i < kTokens; ++i) tokens[i] = (7 * i + 3) % 96;
    std::iota(rows.begin(), rows.end(), 0);
    std::iota(blocks.begin(), blocks.end(), 0);
    std::vector<int64_t> rank_tokens(size);
    rank_tokens[size - 1] = kTokens;
    std::vector<SequenceSlice> slices;
    if (home) slices.push_back({0, tokens, blocks});
    OCTET_RETURN_IF_ERROR(rank.transformer->Forward(0, slices, rank_tokens));
    if (!home) return absl::OkStatus();
    OCTET_ASSIGN_OR_RETURN(const ConstTensor out,
                           rank.transformer->Logits(rows));
    Stream& stream = rank.transformer->stream();
    OCTET_RETURN_IF_ERROR(rank.backend->CopyToHost(logits.data(), out.data(),
                                                   out.num_bytes(), stream));
    return rank.backend->Synchronize(stream);
  };
  for (const absl::Status& status : test::RunRanks(size, body)) {
    EXPECT_TRUE(status.ok()) << status;
  }
  return logits;
}

TEST_F(Nf4ModelTest, LogitsAreThoseOfTheDequantisedWeightsAtEveryWidth) {
  Write(config_);
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    const std::vector<float> exact = Logits(dtype, {}, 1, false);
    for (bool gate : {false, true}) {
      const Quantization nf4 = {.nf4 = true, .gate = gate};
      const std::vector<float> logits = Logits(dtype, nf4, 1, false);
      EXPECT_NE(logits, exact);
      EXPECT_EQ(logits, Logits(dtype, nf4, 1, true));
      EXPECT_EQ(logits, Logits(dtype, nf4, 2, false));
      EXPECT_EQ(logits, Logits(dtype, nf4, 4, false));
    }
  }
}

// Every matrix of the checkpoint by itself: w1 and w3, q, k and v share a
// packed matrix, and none the statistics of another. The others are as they
// were.
TEST_F(Nf4ModelTest, EachTensorIsQuantisedByItself) {
  Write(config_);
  const auto backend = NewCpuBackend({}).value();
  const ModelWeights plain = Load(*backend, DType::kBF16, {}, {1, 2}).value();
  const ModelWeights nf4 =
      Load(*backend, DType::kBF16, {.nf4 = true}, {1, 2}).value();
  EXPECT_TRUE(nf4.quantization.nf4);
  EXPECT_EQ(Unpack(*backend, *nf4.lm_head), Unpack(*backend, *plain.lm_head));
  const auto expect_quantised = [&](const PackedMatrix& actual,
                                    const PackedMatrix& original,
                                    const std::vector<int64_t>& parts) {
    const std::vector<char> rows = Unpack(*backend, original);
    const int64_t row_bytes = original.k() * SizeOf(DType::kBF16);
    std::vector<char> expected;
    int64_t row = 0;
    for (int64_t count : parts) {
      auto part = backend->NewNf4Matrix(
          DType::kBF16, std::vector<int64_t>{count}, original.k());
      ASSERT_TRUE(part.ok());
      ASSERT_TRUE(
          backend
              ->PackRows(**part, 0,
                         ConstTensor(rows.data() + row * row_bytes,
                                     DType::kBF16, {count, original.k()}))
              .ok());
      const std::vector<char> bytes = Unpack(*backend, **part);
      expected.insert(expected.end(), bytes.begin(), bytes.end());
      row += count;
    }
    EXPECT_EQ(Unpack(*backend, actual), expected);
    EXPECT_LT(actual.size_bytes() * 3, original.size_bytes());
  };
  for (int l = 0; l < config_.num_layers; ++l) {
    const LayerWeights& a = nf4.layers[l];
    const LayerWeights& b = plain.layers[l];
    expect_quantised(*a.qkv, *b.qkv, {64, 32, 32});
    expect_quantised(*a.o, *b.o, {64});
    EXPECT_EQ(Unpack(*backend, *a.gate), Unpack(*backend, *b.gate));
    for (int e : {0, 1}) {
      expect_quantised(*a.experts[e].w13, *b.experts[e].w13, {192, 192});
      expect_quantised(*a.experts[e].w2, *b.experts[e].w2, {64});
    }
  }
}

TEST_F(Nf4ModelTest, ShapesThatBlocksDoNotFitAreNamed) {
  config_.ffn_dim = 48;
  Write(config_);
  const auto backend = NewCpuBackend({}).value();
  const auto weights = Load(*backend, DType::kBF16, {.nf4 = true}, {0});
  EXPECT_EQ(weights.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(weights.status().message(),
              HasSubstr("tensor 'model.layers.0.block_sparse_moe.experts.0.w2."
                        "weight': NF4 matrix: k is 48, expected a multiple of "
                        "64"));
}

}  // namespace
}  // namespace octet
