// One sentence for every way a checkpoint can fail to fit its config.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "absl/strings/str_cat.h"
#include "tests/support/data.h"
#include "tests/worker/checkpoint/checkpoint_files.h"
#include "tests/worker/checkpoint/memory_backend.h"
#include "worker/checkpoint/hf_loader.h"

namespace octet {
namespace {

using test::TensorMap;

void Rename(TensorMap& tensors, const std::string& from,
            const std::string& to) {
  tensors[to] = tensors.at(from);
  tensors[to].spec.name = to;
  tensors.erase(from);
}

void Replace(TensorMap& tensors, const std::string& name, DType dtype,
             const std::vector<int64_t>& shape) {
  const TensorSpec spec{name, dtype, shape};
  tensors[name] = {spec, std::string(spec.num_bytes(), '\0')};
}

class HfLoaderBadInputTest : public ::testing::Test {
 protected:
  std::string Message(const TensorMap& tensors, const ModelConfig& config,
                      const LoadOptions& options = {}) {
    test::WriteTensors(path_, tensors);
    const auto checkpoint = HfCheckpoint::Open(dir_.path());
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    const absl::Status status =
        LoadMixtral(**checkpoint, config, *backend_, options).status();
    EXPECT_EQ(stats_.live_bytes, 0);
    EXPECT_EQ((*checkpoint)->bytes_read(), 0u);  // found before any reading
    return std::string(status.message());
  }

  const ModelConfig config_ = test::SmallConfig();
  const TensorMap good_ = test::RandomTensors(config_, DType::kBF16, 3);
  test::MemoryBackendStats stats_;
  const std::unique_ptr<Backend> backend_ = test::NewMemoryBackend(&stats_);
  const test::TempDir dir_;
  const std::string path_ = dir_.path() + "/model.safetensors";
};

TEST_F(HfLoaderBadInputTest, Tensors) {
  const std::string head = "lm_head.weight";
  const std::string layer = "model.layers.1.";
  const std::string moe = layer + "block_sparse_moe.";
  const std::string k = layer + "self_attn.k_proj.weight";
  const struct {
    std::function<void(TensorMap&)> spoil;
    std::string message;
  } cases[] = {
      {[&](TensorMap& t) { t.erase(head); },
       "tensor 'lm_head.weight' is missing, expected shape [33, 12]"},
      {[&](TensorMap& t) { t.erase("model.embed_tokens.weight"); },
       "tensor 'model.embed_tokens.weight' is missing, expected shape "
       "[33, 12]"},
      {[&](TensorMap& t) { t.erase("model.norm.weight"); },
       "tensor 'model.norm.weight' is missing, expected shape [12]"},
      {[&](TensorMap& t) { t.erase(moe + "gate.weight"); },
       "tensor 'model.layers.1.block_sparse_moe.gate.weight' is missing, "
       "expected shape [4, 12]"},
      {[&](TensorMap& t) { t.erase(moe + "experts.2.w3.weight"); },
       "tensor 'model.layers.1.block_sparse_moe.experts.2.w3.weight' is "
       "missing, expected shape [20, 12]"},
      {[&](TensorMap& t) { Rename(t, k, layer + "attn.k.weight"); },
       "tensor 'model.layers.1.self_attn.k_proj.weight' is missing, expected "
       "shape [12, 12]"},
      {[&](TensorMap& t) {
         Replace(t, head, DType::kBF16, {12, 33});
       },
       "tensor 'lm_head.weight' has shape [12, 33], expected [33, 12]"},
      {[&](TensorMap& t) {
         Replace(t, head, DType::kBF16, {33, 12, 1});
       },
       "tensor 'lm_head.weight' has shape [33, 12, 1], expected [33, 12]"},
      {[&](TensorMap& t) {
         Replace(t, k, DType::kBF16, {24, 12});
       },
       "tensor 'model.layers.1.self_attn.k_proj.weight' has shape [24, 12], "
       "expected [12, 12]"},
      {[&](TensorMap& t) {
         Replace(t, moe + "gate.weight", DType::kBF16, {8, 12});
       },
       "tensor 'model.layers.1.block_sparse_moe.gate.weight' has shape "
       "[8, 12], expected [4, 12]"},
      {[&](TensorMap& t) {
         Replace(t, head, DType::kI64, {33, 12});
       },
       "tensor 'lm_head.weight' has dtype I64, expected F32, BF16 or F16"},
      {[&](TensorMap& t) {
         Rename(t, moe + "experts.3.w1.weight", moe + "experts.4.w1.weight");
       },
       "tensor 'model.layers.1.block_sparse_moe.experts.4.w1.weight' is beyond "
       "the config's 'num_local_experts' of 4"},
      {[&](TensorMap& t) {
         Replace(t, "model.layers.2.input_layernorm.weight", DType::kF32, {12});
       },
       "tensor 'model.layers.2.input_layernorm.weight' is beyond the config's "
       "'num_hidden_layers' of 2"},
      {[&](TensorMap& t) {
         Replace(t, layer + "self_attn.k_proj.bias", DType::kF32, {12});
       },
       "tensor 'model.layers.1.self_attn.k_proj.bias' is a bias, expected none "
       "in a Mixtral model"},
  };
  for (const auto& bad : cases) {
    TensorMap tensors = good_;
    bad.spoil(tensors);
    EXPECT_EQ(Message(tensors, config_),
              absl::StrCat(path_, ": ", bad.message));
  }
}

TEST_F(HfLoaderBadInputTest, FusedTensors) {
  const std::string experts = "model.layers.0.mlp.experts.";
  const TensorMap fused = test::FuseExperts(good_, config_);
  const struct {
    std::function<void(TensorMap&)> spoil;
    std::string message;
  } cases[] = {
      {[&](TensorMap& t) { t.erase(experts + "down_proj"); },
       "tensor 'model.layers.0.mlp.experts.down_proj' is missing, expected "
       "shape [4, 12, 20]"},
      {[&](TensorMap& t) {
         Replace(t, experts + "gate_up_proj", DType::kBF16, {4, 12, 40});
       },
       "tensor 'model.layers.0.mlp.experts.gate_up_proj' has shape "
       "[4, 12, 40], expected [4, 40, 12]"},
      {[&](TensorMap& t) {
         Replace(t, experts + "gate_up_proj", DType::kBF16, {8, 40, 12});
       },
       "tensor 'model.layers.0.mlp.experts.gate_up_proj' has shape "
       "[8, 40, 12], expected [4, 40, 12]"},
      {[&](TensorMap& t) {
         Replace(t, experts + "down_proj", DType::kU8, {4, 12, 20});
       },
       "tensor 'model.layers.0.mlp.experts.down_proj' has dtype U8, expected "
       "F32, BF16 or F16"},
  };
  for (const auto& bad : cases) {
    TensorMap tensors = fused;
    bad.spoil(tensors);
    EXPECT_EQ(Message(tensors, config_),
              absl::StrCat(path_, ": ", bad.message));
  }
}

TEST_F(HfLoaderBadInputTest, ConfigOfAnotherModel) {
  ModelConfig config = config_;
  config.num_layers = 3;
  EXPECT_EQ(Message(good_, config),
            path_ +
                ": tensor 'model.layers.2.input_layernorm.weight' is missing, "
                "expected shape [12]");
  config = config_;
  config.num_experts = 3;
  EXPECT_EQ(Message(good_, config),
            path_ +
                ": tensor 'model.layers.0.block_sparse_moe.experts.3.w1.weight'"
                " is beyond the config's 'num_local_experts' of 3");
  config = config_;
  config.num_experts = 5;
  EXPECT_EQ(Message(good_, config),
            path_ +
                ": tensor 'model.layers.0.block_sparse_moe.gate.weight' has "
                "shape [4, 12], expected [5, 12]");
  config = config_;
  config.head_dim = 8;
  EXPECT_EQ(Message(good_, config),
            path_ +
                ": tensor 'model.layers.0.self_attn.q_proj.weight' has shape "
                "[24, 12], expected [32, 12]");
}

// A rank without the broken expert refuses the checkpoint as the others do.
TEST_F(HfLoaderBadInputTest, EveryRankSeesTheSameFault) {
  TensorMap tensors = good_;
  tensors.erase("model.layers.0.block_sparse_moe.experts.3.w2.weight");
  LoadOptions with, without;
  with.expert_ids = {3};
  const std::string message = Message(tensors, config_, with);
  EXPECT_THAT(message, testing::HasSubstr("experts.3.w2.weight' is missing"));
  EXPECT_EQ(Message(tensors, config_, without), message);
}

TEST_F(HfLoaderBadInputTest, Options) {
  LoadOptions options;
  options.dtype = DType::kF16;
  EXPECT_EQ(Message(good_, config_, options),
            "compute dtype is f16, expected f32 or bf16");
  options = {};
  options.expert_ids = {1, 1};
  EXPECT_EQ(Message(good_, config_, options),
            "expert ids to load hold 1 after 1, expected rising ids below 4");
  options.expert_ids = {4};
  EXPECT_EQ(Message(good_, config_, options),
            "expert ids to load hold 4 after -1, expected rising ids below 4");
}

}  // namespace
}  // namespace octet
