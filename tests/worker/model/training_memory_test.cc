// The memory plan's activations against what a call leaves allocated.
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "gtest/gtest.h"
#include "tests/support/ranks.h"
#include "tests/worker/model/training_job.h"
#include "worker/model/training_pass.h"

namespace octet {
namespace {

using test::Routing;
using test::TinyModel;

// What is held after one call of T tokens on one rank, and what the plan says.
struct Bytes {
  double held = 0;
  double planned = 0;
};

Bytes MeasureBytes(const TinyModel& model, DType dtype,
                   const TrainingPassOptions& options,
                   std::optional<float> adapter_dropout) {
  constexpr int64_t kTokens = 96;
  const ModelConfig& config = model.config;
  std::vector<int32_t> ids(kTokens);
  for (int i = 0; i < kTokens; ++i) ids[i] = i % 61;
  TrainingBatch batch;
  batch.slots = {{{{ids, ids}}, {}}};
  batch.rank_slots = {0, 1};
  Bytes bytes;
  const auto statuses = test::RunRanks(1, [&](Communicator& group) {
    OCTET_ASSIGN_OR_RETURN(const auto backend, NewCpuBackend({}));
    OCTET_ASSIGN_OR_RETURN(const Placement placement,
                           Placement::Default(config.num_experts, 1));
    OCTET_ASSIGN_OR_RETURN(
        ModelWeights weights,
        test::PackTinyModel(model, *backend, dtype, placement.LocalExperts(0)));
    if (adapter_dropout) {
      OCTET_RETURN_IF_ERROR(
          test::AttachTinyAdapters(model, *adapter_dropout, *backend, weights));
    }
    bytes.planned = static_cast<double>(TrainingPass::ActivationBytes(
        config, dtype, options, kTokens, kTokens * config.top_k));
    OCTET_ASSIGN_OR_RETURN(const auto pass,
                           TrainingPass::Create(backend.get(), &group, config,
                                                &placement, &weights, options));
    test::RecordingSink sink(backend.get(),
                             {config.vocab_size, config.hidden_dim},
                             [](const WeightId&) { return true; });
    OCTET_RETURN_IF_ERROR(pass->ForwardBackward(1, batch, sink).status());
    bytes.held = static_cast<double>(pass->size_bytes());
    return absl::OkStatus();
  });
  EXPECT_TRUE(statuses[0].ok()) << statuses[0];
  return bytes;
}

// Scratch memory has the size of its first use, so the plan's parts can be held
// against it; what only several ranks need is in the plan, and not held here.
TEST(TrainingMemoryTest, ActivationBytesAreThoseHeld) {
  ModelConfig config = test::TinyConfig();
  config.num_layers = 3;
  const TinyModel model = test::MakeTinyModel(config, Routing::kRandom, 41);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const bool recompute : {false, true}) {
      for (const int lowest : {-1, 1}) {
        for (const auto dropout : {std::optional<float>(), std::optional(0.0f),
                                   std::optional(0.5f)}) {
          TrainingPassOptions options;
          options.recompute = recompute;
          options.lowest_layer = lowest;
          options.max_head_rows = 16;
          options.adapter_rank = dropout ? 4 : 0;
          options.adapters_drop = dropout.value_or(0) > 0;
          options.fused_products = true;  // the CPU backend does
          const Bytes bytes = MeasureBytes(model, dtype, options, dropout);
          const std::string name = absl::StrCat(
              octet::Name(dtype), ", recompute ", recompute, ", from layer ",
              lowest, ", dropout ", dropout.value_or(-1));
          EXPECT_LE(bytes.held, bytes.planned) << name;
          EXPECT_GE(bytes.held, bytes.planned * 0.7) << name;
          std::printf("%s: %.0f bytes, planned %.0f\n", name.c_str(),
                      bytes.held, bytes.planned);
        }
      }
    }
  }
}

}  // namespace
}  // namespace octet
