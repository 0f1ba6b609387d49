// The loader against its own input: what the packed weights hold is compared,
// to the last bit, with the bytes in the files.
#include "worker/checkpoint/hf_loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/support/data.h"
#include "tests/worker/checkpoint/checkpoint_files.h"
#include "tests/worker/checkpoint/memory_backend.h"
#include "worker/model/config.h"

namespace octet {
namespace {

using test::TensorMap;

std::vector<int> AllExperts(const ModelConfig& config) {
  std::vector<int> ids(config.num_experts);
  for (int e = 0; e < config.num_experts; ++e) ids[e] = e;
  return ids;
}

// The elements of a tensor in the file as bytes of `dtype`, converted by
// arithmetic of its own.
std::string Converted(const std::string& bytes, DType from, DType to) {
  if (from == to) return bytes;
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += SizeOf(from)) {
    uint32_t bits = 0;
    std::memcpy(&bits, &bytes[i], SizeOf(from));
    const float value = from == DType::kF32 ? std::bit_cast<float>(bits)
                        : from == DType::kBF16
                            ? std::bit_cast<float>(bits << 16)
                            : HalfToFloat(bits);
    if (to == DType::kF32) {
      out.append(reinterpret_cast<const char*>(&value), 4);
    } else {
      const BF16 rounded = ToBF16(value);
      out.append(reinterpret_cast<const char*>(&rounded), 2);
    }
  }
  return out;
}

class HfLoaderTest : public ::testing::Test {
 protected:
  std::string FileBytes(const TensorMap& tensors, const std::string& name,
                        DType to) {
    const test::TensorData& tensor = tensors.at(name);
    return Converted(tensor.bytes, tensor.spec.dtype, to);
  }
  std::string Bytes(const PackedMatrix& matrix) {
    return Bytes(*backend_, matrix);
  }
  static std::string Bytes(Backend& backend, const PackedMatrix& matrix) {
    std::string bytes(matrix.n() * matrix.k() * SizeOf(matrix.dtype()), '\0');
    EXPECT_TRUE(backend
                    .UnpackRows(matrix, 0,
                                Tensor(bytes.data(), matrix.dtype(),
                                       {matrix.n(), matrix.k()}))
                    .ok());
    return bytes;
  }
  static std::string Bytes(const OwnedTensor& tensor) {
    return std::string(static_cast<const char*>(tensor.view.data()),
                       tensor.view.num_bytes());
  }

  absl::StatusOr<ModelWeights> Load(const std::string& dir,
                                    const ModelConfig& config,
                                    const LoadOptions& options) {
    auto checkpoint = HfCheckpoint::Open(dir);
    if (!checkpoint.ok()) return checkpoint.status();
    auto weights = LoadMixtral(**checkpoint, config, *backend_, options);
    bytes_read_ = (*checkpoint)->bytes_read();
    return weights;
  }

  // Every weight of `weights` against `tensors` (per-expert layout).
  void ExpectEqual(const ModelWeights& weights, const TensorMap& tensors,
                   const ModelConfig& config, const std::vector<int>& experts) {
    const DType dtype = weights.dtype;
    const auto file = [&](const std::string& name) {
      return FileBytes(tensors, name, dtype);
    };
    const auto norm = [&](const std::string& name) {
      return FileBytes(tensors, name, DType::kF32);
    };
    EXPECT_EQ(Bytes(weights.embedding), file("model.embed_tokens.weight"));
    EXPECT_EQ(Bytes(weights.final_norm), norm("model.norm.weight"));
    EXPECT_EQ(Bytes(*weights.lm_head),
              file(config.tie_word_embeddings ? "model.embed_tokens.weight"
                                              : "lm_head.weight"));
    ASSERT_EQ(weights.layers.size(), static_cast<size_t>(config.num_layers));
    for (int l = 0; l < config.num_layers; ++l) {
      const LayerWeights& layer = weights.layers[l];
      const std::string p = absl::StrCat("model.layers.", l, ".");
      EXPECT_EQ(Bytes(layer.input_norm), norm(p + "input_layernorm.weight"));
      EXPECT_EQ(Bytes(layer.post_attention_norm),
                norm(p + "post_attention_layernorm.weight"));
      EXPECT_EQ(Bytes(*layer.qkv), file(p + "self_attn.q_proj.weight") +
                                       file(p + "self_attn.k_proj.weight") +
                                       file(p + "self_attn.v_proj.weight"));
      EXPECT_EQ(Bytes(*layer.o), file(p + "self_attn.o_proj.weight"));
      EXPECT_EQ(Bytes(*layer.gate), file(p + "block_sparse_moe.gate.weight"));
      ASSERT_EQ(layer.experts.size(), experts.size());
      for (size_t i = 0; i < experts.size(); ++i) {
        EXPECT_EQ(layer.experts[i].expert_id, experts[i]);
        const std::string e =
            absl::StrCat(p, "block_sparse_moe.experts.", experts[i], ".");
        EXPECT_EQ(Bytes(*layer.experts[i].w13),
                  file(e + "w1.weight") + file(e + "w3.weight"));
        EXPECT_EQ(Bytes(*layer.experts[i].w2), file(e + "w2.weight"));
      }
    }
    EXPECT_EQ(stats_.rows_written_twice, 0);
    EXPECT_EQ(weights.num_bytes(), stats_.live_bytes);
    EXPECT_EQ(weights.num_bytes(),
              WeightBytes(config, static_cast<int>(experts.size()), dtype));
  }

  test::MemoryBackendStats stats_;
  const std::unique_ptr<Backend> backend_ = test::NewMemoryBackend(&stats_);
  const test::TempDir dir_;
  const std::string single_ = dir_.path() + "/model.safetensors";
  uint64_t bytes_read_ = 0;
};

// Every layout on disk, dtype of the file and compute dtype.
TEST_F(HfLoaderTest, HoldsWhatTheFilesHold) {
  for (bool tied : {false, true}) {
    ModelConfig config = test::SmallConfig();
    config.tie_word_embeddings = tied;
    for (DType file_dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
      const TensorMap tensors = test::RandomTensors(config, file_dtype, 1);
      for (bool fused : {false, true}) {
        const TensorMap on_disk =
            fused ? test::FuseExperts(tensors, config) : tensors;
        for (int shards : {1, 3}) {
          const test::TempDir dir;
          if (shards == 1) {
            test::WriteTensors(dir.path() + "/model.safetensors", on_disk);
          } else {
            test::WriteShards(dir.path(), on_disk, shards);
          }
          for (std::optional<DType> dtype :
               {std::optional<DType>(), std::optional(DType::kF32),
                std::optional(DType::kBF16)}) {
            SCOPED_TRACE(
                absl::StrCat("tied ", tied, " file ", Name(file_dtype),
                             " fused ", fused, " shards ", shards, " compute ",
                             dtype.has_value() ? Name(*dtype) : "auto"));
            LoadOptions options;
            options.dtype = dtype;
            options.expert_ids = AllExperts(config);
            const auto weights = Load(dir.path(), config, options);
            ASSERT_TRUE(weights.ok()) << weights.status();
            ExpectEqual(*weights, tensors, config, options.expert_ids);
          }
        }
      }
    }
  }
}

TEST_F(HfLoaderTest, AutoDTypeLosesNoBits) {
  const ModelConfig config = test::SmallConfig();
  const auto dtype_of = [&](const TensorMap& tensors) {
    test::WriteTensors(single_, tensors);
    const auto weights = Load(dir_.path(), config, {});
    EXPECT_TRUE(weights.ok()) << weights.status();
    return weights->dtype;
  };
  TensorMap tensors = test::RandomTensors(config, DType::kBF16, 1);
  EXPECT_EQ(dtype_of(tensors), DType::kBF16);
  // Norms are kept in f32 anyway, so they have no say.
  const TensorMap wide = test::RandomTensors(config, DType::kF32, 1);
  for (const auto& [name, tensor] : wide) {
    if (absl::EndsWith(name, "norm.weight")) tensors[name] = tensor;
  }
  EXPECT_EQ(dtype_of(tensors), DType::kBF16);
  // One f32 matrix decides, be it an expert of another rank.
  const std::string expert =
      "model.layers.1.block_sparse_moe.experts.3.w2.weight";
  tensors[expert] = wide.at(expert);
  EXPECT_EQ(dtype_of(tensors), DType::kF32);
  EXPECT_EQ(dtype_of(test::RandomTensors(config, DType::kF16, 1)), DType::kF32);
}

TEST_F(HfLoaderTest, ReadsItsOwnExpertsAndNoMore) {
  const ModelConfig config = test::SmallConfig();
  const TensorMap tensors = test::RandomTensors(config, DType::kBF16, 7);
  const uint64_t expert_bytes =
      config.num_layers * 3 * config.ffn_dim * config.hidden_dim * 2;
  uint64_t total = 0;
  for (const auto& [name, tensor] : tensors) total += tensor.bytes.size();
  for (bool fused : {false, true}) {
    test::WriteTensors(single_,
                       fused ? test::FuseExperts(tensors, config) : tensors);
    for (const std::vector<int>& experts :
         {std::vector<int>{}, std::vector<int>{2}, std::vector<int>{0, 3},
          std::vector<int>{0, 1, 2, 3}}) {
      LoadOptions options;
      options.expert_ids = experts;
      int64_t last_done = 0, last_total = 0;
      options.progress = [&](int64_t done, int64_t bytes_total) {
        EXPECT_GT(done, last_done);
        last_done = done;
        last_total = bytes_total;
      };
      const auto weights = Load(dir_.path(), config, options);
      ASSERT_TRUE(weights.ok()) << weights.status();
      ExpectEqual(*weights, tensors, config, experts);
      EXPECT_EQ(bytes_read_, total - (4 - experts.size()) * expert_bytes);
      EXPECT_EQ(static_cast<uint64_t>(last_done), bytes_read_);
      EXPECT_EQ(static_cast<uint64_t>(last_total), bytes_read_);
    }
  }
}

TEST_F(HfLoaderTest, PieceSizeChangesNothing) {
  ModelConfig config = test::SmallConfig();
  config.vocab_size = 300;  // more than one piece of 64 rows
  const TensorMap tensors = test::RandomTensors(config, DType::kF32, 5);
  test::WriteTensors(single_, tensors);
  for (int64_t staging_bytes : {1, 100, 48 * 65, 48 * 130, 1 << 20}) {
    LoadOptions options;
    options.expert_ids = {1, 2};
    options.staging_bytes = staging_bytes;
    const auto weights = Load(dir_.path(), config, options);
    ASSERT_TRUE(weights.ok()) << weights.status();
    ExpectEqual(*weights, tensors, config, options.expert_ids);
  }
}

TEST_F(HfLoaderTest, DataThatIsNotAligned) {
  const ModelConfig config = test::SmallConfig();
  const TensorMap tensors = test::RandomTensors(config, DType::kF32, 5);
  test::WriteTensors(single_, tensors);
  const std::string file = test::ReadText(single_);
  uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  test::WriteRawSafetensors(single_, file.substr(8, length) + " ",
                            file.substr(8 + length));
  LoadOptions options;
  options.expert_ids = AllExperts(config);
  const auto weights = Load(dir_.path(), config, options);
  ASSERT_TRUE(weights.ok()) << weights.status();
  ExpectEqual(*weights, tensors, config, options.expert_ids);
}

TEST_F(HfLoaderTest, TiedHeadMayBeStoredToo) {
  ModelConfig config = test::SmallConfig();
  TensorMap tensors = test::RandomTensors(config, DType::kBF16, 5);
  test::WriteTensors(single_, tensors);
  config.tie_word_embeddings = true;
  const auto weights = Load(dir_.path(), config, {});
  ASSERT_TRUE(weights.ok()) << weights.status();
  ExpectEqual(*weights, tensors, config, {});
}

TEST_F(HfLoaderTest, IgnoresTensorsThatMixtralDoesNotHave) {
  const ModelConfig config = test::SmallConfig();
  TensorMap tensors = test::RandomTensors(config, DType::kBF16, 5);
  for (const std::string name :
       {"model.layers.0.self_attn.rotary_emb.inv_freq", "optimizer.step"}) {
    tensors[name] = {{name, DType::kI64, {1}}, std::string(8, '\0')};
  }
  test::WriteTensors(single_, tensors);
  testing::internal::CaptureStderr();
  const auto weights = Load(dir_.path(), config, {});
  const std::string log = testing::internal::GetCapturedStderr();
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_THAT(
      log, testing::HasSubstr(
               single_ + ": 1 tensors are no part of Mixtral and are ignored, "
                         "for example 'optimizer.step'"));
}

TEST_F(HfLoaderTest, OutOfMemoryFreesEverything) {
  const ModelConfig config = test::SmallConfig();
  test::WriteTensors(single_, test::RandomTensors(config, DType::kBF16, 5));
  LoadOptions options;
  options.expert_ids = AllExperts(config);
  const int64_t needed = WeightBytes(config, config.num_experts, DType::kBF16);
  for (int64_t room = 0; room < needed; room += needed / 50) {
    stats_.fail_after_bytes = room;
    const auto weights = Load(dir_.path(), config, options);
    EXPECT_EQ(weights.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(stats_.live_bytes, 0);
  }
  stats_.fail_after_bytes = needed;
  EXPECT_TRUE(Load(dir_.path(), config, options).ok());
}

// The committed checkpoints, as transformers wrote them.
TEST_F(HfLoaderTest, LoadsEveryGoldenCheckpoint) {
  for (const char* name :
       {"e8k2_old", "e8k2_fused", "e4k1_tied_old", "e8k2_window_fused_sharded",
        "e16k3_old_sharded", "e8k3_headdim_fused", "e4k2_bf16_old_sharded",
        "e8k2_bf16_tied_window_fused", "e8k1_fp16_old", "e4k3_tied_window_old",
        "e16k2_tied_fused_sharded", "e16k1_bf16_window_old"}) {
    SCOPED_TRACE(name);
    const std::string dir =
        test::SourcePath(absl::StrCat("tests/golden/", name));
    const auto config = LoadModelConfig(dir);
    ASSERT_TRUE(config.ok()) << config.status();
    LoadOptions options;
    options.expert_ids = AllExperts(*config);
    const auto weights = Load(dir, *config, options);
    ASSERT_TRUE(weights.ok()) << weights.status();
    EXPECT_EQ(weights->dtype,
              absl::StrContains(name, "bf16") ? DType::kBF16 : DType::kF32);
    EXPECT_EQ(weights->num_bytes(),
              WeightBytes(*config, config->num_experts, weights->dtype));
  }
}

TEST_F(HfLoaderTest, CpuBackendHoldsTheSame) {
  const auto cpu = NewCpuBackend({});
  ASSERT_TRUE(cpu.ok()) << cpu.status();
  for (const char* name :
       {"e8k3_headdim_fused", "e8k1_fp16_old", "e4k2_bf16_old_sharded",
        "e8k2_bf16_tied_window_fused"}) {
    SCOPED_TRACE(name);
    const std::string dir =
        test::SourcePath(absl::StrCat("tests/golden/", name));
    const auto config = LoadModelConfig(dir);
    ASSERT_TRUE(config.ok()) << config.status();
    const auto checkpoint = HfCheckpoint::Open(dir);
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    LoadOptions options;
    options.expert_ids = {1, 3};
    options.staging_bytes = 1000;
    const auto a = LoadMixtral(**checkpoint, *config, *backend_, options);
    const auto b = LoadMixtral(**checkpoint, *config, **cpu, options);
    ASSERT_TRUE(a.ok() && b.ok()) << a.status() << b.status();
    const auto expect_equal = [&](const PackedMatrix& x,
                                  const PackedMatrix& y) {
      EXPECT_EQ(x.dtype(), y.dtype());
      EXPECT_EQ(Bytes(x), Bytes(**cpu, y));
    };
    EXPECT_EQ(Bytes(a->embedding), Bytes(b->embedding));
    EXPECT_EQ(Bytes(a->final_norm), Bytes(b->final_norm));
    expect_equal(*a->lm_head, *b->lm_head);
    for (int layer = 0; layer < config->num_layers; ++layer) {
      const LayerWeights& x = a->layers[layer];
      const LayerWeights& y = b->layers[layer];
      EXPECT_EQ(Bytes(x.input_norm), Bytes(y.input_norm));
      expect_equal(*x.qkv, *y.qkv);
      expect_equal(*x.o, *y.o);
      expect_equal(*x.gate, *y.gate);
      for (size_t i = 0; i < options.expert_ids.size(); ++i) {
        expect_equal(*x.experts[i].w13, *y.experts[i].w13);
        expect_equal(*x.experts[i].w2, *y.experts[i].w2);
      }
    }
  }
}

// Two files with equal weights in the two layouts.
TEST_F(HfLoaderTest, GoldenLayoutsAgree) {
  const std::string old_dir = test::SourcePath("tests/golden/e8k2_old");
  const auto config = LoadModelConfig(old_dir);
  ASSERT_TRUE(config.ok()) << config.status();
  LoadOptions options;
  options.expert_ids = {0, 5, 7};
  const auto old_weights = Load(old_dir, *config, options);
  const auto fused_weights =
      Load(test::SourcePath("tests/golden/e8k2_fused"), *config, options);
  ASSERT_TRUE(old_weights.ok() && fused_weights.ok());
  EXPECT_EQ(Bytes(*old_weights->lm_head), Bytes(*fused_weights->lm_head));
  for (int layer = 0; layer < config->num_layers; ++layer) {
    const LayerWeights& a = old_weights->layers[layer];
    const LayerWeights& b = fused_weights->layers[layer];
    EXPECT_EQ(Bytes(*a.qkv), Bytes(*b.qkv));
    EXPECT_EQ(Bytes(*a.gate), Bytes(*b.gate));
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(Bytes(*a.experts[i].w13), Bytes(*b.experts[i].w13));
      EXPECT_EQ(Bytes(*a.experts[i].w2), Bytes(*b.experts[i].w2));
    }
  }
}

}  // namespace
}  // namespace octet
