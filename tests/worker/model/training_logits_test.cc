// One live model: what training computes forward is what serving computes, to
// the last bit, with adapters and without, and adapters that are attached show
// in the next forward pass.
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "gtest/gtest.h"
#include "kernels/ops.h"
#include "tests/support/ranks.h"
#include "tests/worker/model/tiny_model.h"
#include "tests/worker/model/training_job.h"
#include "worker/model/training_layers.h"

namespace octet {
namespace {

using test::Routing;
using test::TinyModel;

// Logits [T, V] of the rows of x, as Transformer::Logits.
absl::StatusOr<std::vector<float>> LogitsOf(Backend& backend,
                                            const ModelConfig& config,
                                            const ModelWeights& weights,
                                            ConstTensor x, Stream& stream) {
  const int64_t t = x.rows();
  Scratch normed_memory(&backend), logits_memory(&backend);
  OCTET_ASSIGN_OR_RETURN(
      const Tensor normed,
      normed_memory.Get(weights.dtype, {t, config.hidden_dim}, stream));
  OCTET_ASSIGN_OR_RETURN(
      const Tensor logits,
      logits_memory.Get(DType::kF32, {t, config.vocab_size}, stream));
  OCTET_RETURN_IF_ERROR(ops::RmsNorm(backend, x, weights.final_norm.view,
                                     config.rms_norm_eps, normed, stream));
  OCTET_RETURN_IF_ERROR(
      ops::Gemm(backend, normed, *weights.lm_head, false, logits, stream));
  std::vector<float> host(logits.num_elements());
  OCTET_RETURN_IF_ERROR(backend.CopyToHost(host.data(), logits.data(),
                                           logits.num_bytes(), stream));
  return host;
}

// By training's layers, each document by itself in a slot of its own.
absl::StatusOr<std::vector<float>> TrainingLogits(
    test::TinyRank& rank, const ModelConfig& config,
    const std::vector<std::vector<int32_t>>& documents, Communicator& group) {
  Backend& backend = *rank.backend;
  OCTET_ASSIGN_OR_RETURN(const auto stream, backend.NewStream());
  TrainingBatch batch;
  for (const auto& ids : documents) batch.slots.push_back({{{ids, ids}}, {}});
  batch.rank_slots = {0, static_cast<int64_t>(documents.size())};
  const TrainingLayout layout = LayOut(batch, 0);
  RouterLosses losses(&backend, config, {});
  losses.Begin(&layout);
  TrainingLayers layers(&backend, &group, config, &*rank.placement,
                        &rank.weights, {}, &losses);
  TrainingLayers::Step step;
  step.layout = &layout;
  step.stream = stream.get();
  OCTET_ASSIGN_OR_RETURN(const ConstTensor x, layers.Forward(step, nullptr));
  return LogitsOf(backend, config, rank.weights, x, *stream);
}

absl::StatusOr<std::vector<float>> ServingLogits(
    test::TinyRank& rank, const ModelConfig& config,
    const std::vector<std::vector<int32_t>>& documents) {
  std::vector<float> all;
  for (const auto& ids : documents) {
    std::vector<int32_t> blocks(ids.size() / 4 + 1);
    for (size_t i = 0; i < blocks.size(); ++i) {
      blocks[i] = static_cast<int32_t>(blocks.size() - 1 - i);
    }
    const std::vector<SequenceSlice> slices = {{0, ids, blocks}};
    OCTET_RETURN_IF_ERROR(rank.transformer->Forward(
        0, slices, {static_cast<int64_t>(ids.size())}));
    for (size_t row = 0; row < ids.size(); ++row) {
      OCTET_ASSIGN_OR_RETURN(
          const ConstTensor logits,
          rank.transformer->Logits({static_cast<int32_t>(row)}));
      std::vector<float> host(config.vocab_size);
      OCTET_RETURN_IF_ERROR(rank.backend->CopyToHost(
          host.data(), logits.data(), logits.num_bytes(),
          rank.transformer->stream()));
      all.insert(all.end(), host.begin(), host.end());
    }
  }
  return all;
}

TEST(TrainingLogitsTest, AreThoseOfServing) {
  const TinyModel model =
      test::MakeTinyModel(test::TinyConfig(), Routing::kRandom, 51);
  std::vector<std::vector<int32_t>> documents;
  for (const int length : {1, 30, 17}) {
    std::vector<int32_t>& ids = documents.emplace_back();
    for (int i = 0; i < length; ++i) ids.push_back((i * 17 + length) % 61);
  }
  for (const cpu::Isa isa : cpu::SupportedIsas()) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const std::string name =
          absl::StrCat(cpu::Name(isa), ", ", octet::Name(dtype));
      const auto statuses = test::RunRanks(1, [&](Communicator& group) {
        test::TinyRankOptions options;
        options.dtype = dtype;
        options.backend.isa = isa;
        OCTET_ASSIGN_OR_RETURN(const auto rank,
                               test::NewTinyRank(model, options, group));
        OCTET_ASSIGN_OR_RETURN(const auto bare,
                               ServingLogits(*rank, model.config, documents));
        OCTET_ASSIGN_OR_RETURN(
            const auto bare_training,
            TrainingLogits(*rank, model.config, documents, group));
        EXPECT_EQ(bare_training, bare) << name;
        // On the transformer that has been running.
        OCTET_RETURN_IF_ERROR(test::AttachTinyAdapters(
            model, 0.5f, *rank->backend, rank->weights));
        OCTET_ASSIGN_OR_RETURN(const auto adapted,
                               ServingLogits(*rank, model.config, documents));
        OCTET_ASSIGN_OR_RETURN(
            const auto adapted_training,
            TrainingLogits(*rank, model.config, documents, group));
        EXPECT_EQ(adapted_training, adapted) << name;
        EXPECT_NE(adapted, bare) << name;
        return absl::OkStatus();
      });
      EXPECT_TRUE(statuses[0].ok()) << statuses[0];
    }
  }
}

// An adapter is W + s B A: the adapted model against the merged one in double
// precision.
TEST(TrainingLogitsTest, AdaptersAddTheirProductToTheWeights) {
  TinyModel model = test::MakeTinyModel(test::TinyConfig(), Routing::kTied, 52);
  std::vector<int32_t> ids;
  for (int i = 0; i < 24; ++i) ids.push_back(i * 7 % 61);
  std::vector<float> adapted;
  const auto statuses = test::RunRanks(1, [&](Communicator& group) {
    OCTET_ASSIGN_OR_RETURN(const auto rank,
                           test::NewTinyRank(model, {}, group));
    OCTET_RETURN_IF_ERROR(
        test::AttachTinyAdapters(model, 0, *rank->backend, rank->weights));
    OCTET_ASSIGN_OR_RETURN(adapted, ServingLogits(*rank, model.config, {ids}));
    const auto merge = [&](std::vector<float>& w, const LoraWeights& lora) {
      const int64_t n = lora.b->n(), k = lora.a->k(), r = lora.a->n();
      std::vector<float> a(r * k), b(n * r);
      EXPECT_TRUE(
          rank->backend
              ->UnpackRows(*lora.a, 0, Tensor(a.data(), DType::kF32, {r, k}))
              .ok());
      EXPECT_TRUE(
          rank->backend
              ->UnpackRows(*lora.b, 0, Tensor(b.data(), DType::kF32, {n, r}))
              .ok());
      for (int64_t i = 0; i < n * k; ++i) {
        double sum = w[i];
        for (int64_t j = 0; j < r; ++j) {
          sum += double{b[i / k * r + j]} * a[j * k + i % k];
        }
        w[i] = static_cast<float>(sum);
      }
    };
    for (size_t i = 0; i < model.layers.size(); ++i) {
      const LayerWeights& layer = rank->weights.layers[i];
      merge(model.layers[i].qkv, *layer.qkv_lora);
      merge(model.layers[i].o, *layer.o_lora);
      merge(model.layers[i].gate, *layer.gate_lora);
      for (size_t e = 0; e < layer.experts.size(); ++e) {
        merge(model.layers[i].experts[e].w13, *layer.experts[e].w13_lora);
        merge(model.layers[i].experts[e].w2, *layer.experts[e].w2_lora);
      }
    }
    return absl::OkStatus();
  });
  ASSERT_TRUE(statuses[0].ok()) << statuses[0];
  const test::Difference difference = test::Compare(
      test::ToValues(adapted), test::ReferenceOf(model, false).Logits(ids));
  ASSERT_TRUE(difference.comparable);
  EXPECT_LT(difference.max_relative, 1e-5);
}

}  // namespace
}  // namespace octet
