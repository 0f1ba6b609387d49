// The golden checkpoints on emulated GPUs: loader, transformer, CUDA backend,
// NCCL between the ranks. Every rank is home to the same prompt, so each has
// logits to compare: with transformers', and to the last bit with those that
// the rank gets alone.
#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "gtest/gtest.h"
#include "tests/cuda_emulation/include/cuda_emu/control.h"
#include "tests/support/data.h"
#include "tests/worker/comm/mpi_test_main.h"
#include "worker/checkpoint/hf_checkpoint.h"
#include "worker/checkpoint/hf_loader.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/comm/local/local_group.h"
#include "worker/device/cuda_rank.h"
#include "worker/model/kv_cache.h"
#include "worker/model/transformer.h"

namespace octet {
namespace {

constexpr int kBlockTokens = 16;
constexpr int kNumBlocks = 8;

template <typename T>
std::vector<T> ReadGolden(const std::string& dir, const std::string& name) {
  const auto file = SafetensorsFile::Open(dir + "/golden.safetensors");
  EXPECT_TRUE(file.ok()) << file.status();
  const SafetensorsEntry* entry = (*file)->Find(name);
  EXPECT_NE(entry, nullptr) << name;
  std::vector<T> out(entry->num_bytes() / sizeof(T));
  EXPECT_TRUE((*file)->Read(*entry, 0, entry->num_bytes(), out.data()).ok());
  return out;
}

struct Options {
  std::string dir;
  DType dtype = DType::kF32;
  int chunks = 1;
};

// Logits [S, V] of the prompt on this rank, while every other rank of the group
// runs the same prompt.
absl::StatusOr<std::vector<float>> Logits(const Options& options,
                                          const ModelConfig& config,
                                          const RankDevice& device,
                                          Communicator& communicator,
                                          const std::vector<int32_t>& prompt) {
  OCTET_ASSIGN_OR_RETURN(const auto backend, device.new_backend());
  OCTET_ASSIGN_OR_RETURN(
      const Placement placement,
      Placement::Default(config.num_experts, communicator.size()));
  OCTET_ASSIGN_OR_RETURN(const auto checkpoint,
                         HfCheckpoint::Open(options.dir));
  LoadOptions load;
  load.dtype = options.dtype;
  const auto experts = placement.LocalExperts(communicator.rank());
  load.expert_ids.assign(experts.begin(), experts.end());
  OCTET_ASSIGN_OR_RETURN(const ModelWeights weights,
                         LoadMixtral(*checkpoint, config, *backend, load));
  OCTET_ASSIGN_OR_RETURN(const KvCache cache,
                         KvCache::Create(*backend, config, options.dtype,
                                         kNumBlocks, kBlockTokens));
  TransformerLimits limits;
  limits.moe_chunks = options.chunks;
  limits.min_chunk_tokens = 2;
  OCTET_ASSIGN_OR_RETURN(
      const auto transformer,
      Transformer::Create(backend.get(), &communicator, config, &placement,
                          &weights, &cache, limits));
  std::vector<int32_t> blocks(kNumBlocks), rows(prompt.size());
  std::iota(blocks.begin(), blocks.end(), 0);
  std::iota(rows.begin(), rows.end(), 0);
  const std::vector<int64_t> rank_tokens(communicator.size(), prompt.size());
  const std::vector<SequenceSlice> slices = {{0, prompt, blocks}};
  OCTET_RETURN_IF_ERROR(transformer->Forward(0, slices, rank_tokens));
  OCTET_ASSIGN_OR_RETURN(const ConstTensor out, transformer->Logits(rows));
  std::vector<float> logits(rows.size() * config.vocab_size);
  OCTET_RETURN_IF_ERROR(backend->CopyToHost(
      logits.data(), out.data(), out.num_bytes(), transformer->stream()));
  OCTET_RETURN_IF_ERROR(backend->Synchronize(transformer->stream()));
  return logits;
}

// Rows whose largest error is beyond `limit` of the row's largest logit.
int RowsOver(const std::vector<float>& actual,
             const std::vector<float>& expected, int64_t vocab_size,
             double limit) {
  int rows = 0;
  for (size_t row = 0; row < expected.size(); row += vocab_size) {
    double largest = 0, worst = 0;
    for (int64_t v = 0; v < vocab_size; ++v) {
      const double want = expected[row + v];
      largest = std::max(largest, std::abs(want));
      worst = std::max(worst, std::abs(actual[row + v] - want));
    }
    rows += !(worst <= limit * largest);
  }
  return rows;
}

class CudaWorkerTest : public ::testing::TestWithParam<const char*> {};

// Limits as in tests/worker/serve/golden_test.cc; in bf16 a near-tie of the
// router may change one row altogether.
TEST_P(CudaWorkerTest, GoldenLogitsAndTheSameBitsAtEveryWidth) {
  Options options;
  options.dir = test::SourcePath(absl::StrCat("tests/golden/", GetParam()));
  const auto config = LoadModelConfig(options.dir);
  ASSERT_TRUE(config.ok()) << config.status();
  options.dtype =
      config->checkpoint_dtype == DType::kBF16 ? DType::kBF16 : DType::kF32;
  const bool f32 = options.dtype == DType::kF32;
  // Many emulated GPUs share few processors.
  const std::string name = test::Mpi().size() <= 2 ? "medium" : "short";
  const auto prompt = ReadGolden<int32_t>(options.dir, name + "/input_ids");
  const auto golden = ReadGolden<float>(options.dir, name + "/logits");

  auto mpi = NewMpiCommunicator(test::Mpi());
  ASSERT_TRUE(mpi.ok()) << mpi.status();
  auto rank = NewCudaRank(std::move(*mpi), absl::Seconds(120));
  ASSERT_TRUE(rank.ok()) << rank.status();
  const auto self = NewLocalGroup(1, {});
  const auto alone = Logits(options, *config, rank->device, *self[0], prompt);
  ASSERT_TRUE(alone.ok()) << alone.status();
  EXPECT_LE(RowsOver(*alone, golden, config->vocab_size, f32 ? 1e-4 : 6e-2),
            f32 ? 0 : 1);
  for (const int chunks : {1, 3}) {
    options.chunks = chunks;
    const auto together =
        Logits(options, *config, rank->device, *rank->communicator, prompt);
    ASSERT_TRUE(together.ok()) << together.status();
    EXPECT_TRUE(*together == *alone) << chunks << " chunks: other bits";
  }
  EXPECT_EQ(cuda_emu::ErrorCount(), 0) << cuda_emu::LastMessage();
}

INSTANTIATE_TEST_SUITE_P(
    All, CudaWorkerTest,
    ::testing::Values("e8k2_old", "e8k2_fused", "e4k1_tied_old",
                      "e8k2_window_fused_sharded", "e16k3_old_sharded",
                      "e8k3_headdim_fused", "e4k2_bf16_old_sharded",
                      "e8k2_bf16_tied_window_fused", "e8k1_fp16_old",
                      "e4k3_tied_window_old", "e16k2_tied_fused_sharded",
                      "e16k1_bf16_window_old"),
    [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace octet
