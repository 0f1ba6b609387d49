// Router losses against formulas in double precision, and their gradient
// against differences of those.
#include "worker/model/router_losses.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/training_ops.h"
#include "tests/reference/host_tensor.h"
#include "tests/support/ranks.h"

namespace octet {
namespace {

using test::Values;

constexpr int kLayers = 3;
constexpr int kExperts = 5;
constexpr int kTopK = 2;
const std::vector<int64_t> kSlotTokens = {4, 9, 1, 6};

ModelConfig Config() {
  ModelConfig config;
  config.num_layers = kLayers;
  config.num_experts = kExperts;
  config.top_k = kTopK;
  return config;
}

// [L] of [T, E] over all slots.
using Logits = std::vector<Values>;

int64_t AllTokens() {
  return std::accumulate(kSlotTokens.begin(), kSlotTokens.end(), int64_t{0});
}

std::vector<int32_t> ChoicesOf(const Values& logits) {
  std::vector<int32_t> choices;
  for (size_t t = 0; t < logits.size() / kExperts; ++t) {
    std::vector<int32_t> order(kExperts);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return logits[t * kExperts + a] > logits[t * kExperts + b];
    });
    choices.insert(choices.end(), order.begin(), order.begin() + kTopK);
  }
  return choices;
}

struct Row {
  const double* logits;
  const int32_t* choices;
};

// aux and z of some rows, as transformers' load_balancing_loss_func.
void Losses(const std::vector<Row>& rows, double& aux, double& z) {
  std::vector<double> counts(kExperts), mean(kExperts);
  const double n = static_cast<double>(rows.size());
  z = 0;
  for (const Row& row : rows) {
    double sum = 0;
    for (int e = 0; e < kExperts; ++e) sum += std::exp(row.logits[e]);
    for (int e = 0; e < kExperts; ++e) {
      mean[e] += std::exp(row.logits[e]) / sum / n;
    }
    for (int k = 0; k < kTopK; ++k) counts[row.choices[k]] += 1 / n;
    z += std::log(sum) * std::log(sum) / n;
  }
  aux = 0;
  for (int e = 0; e < kExperts; ++e) aux += kExperts * counts[e] * mean[e];
}

struct Expected {
  double aux = 0, z = 0;
  std::vector<double> layer_aux = std::vector<double>(kLayers);
};

Expected Reference(const Logits& logits,
                   const std::vector<std::vector<int32_t>>& choices,
                   const RouterLossOptions& options) {
  std::vector<std::pair<int64_t, int64_t>> groups = {{0, AllTokens()}};
  if (options.scope == RouterLossScope::kSlot) {
    groups.clear();
    int64_t begin = 0;
    for (int64_t tokens : kSlotTokens) {
      groups.push_back({begin, begin + tokens});
      begin += tokens;
    }
  }
  Expected out;
  const double share = 1.0 / static_cast<double>(groups.size());
  for (const auto& [begin, end] : groups) {
    std::vector<Row> all;
    double aux = 0, z = 0, mean_aux = 0;
    for (int layer = 0; layer < kLayers; ++layer) {
      std::vector<Row> rows;
      for (int64_t t = begin; t < end; ++t) {
        rows.push_back(
            {&logits[layer][t * kExperts], &choices[layer][t * kTopK]});
      }
      Losses(rows, aux, z);
      out.layer_aux[layer] += aux * share;
      mean_aux += aux / kLayers;
      all.insert(all.end(), rows.begin(), rows.end());
    }
    Losses(all, aux, z);
    out.aux += (options.per_layer ? mean_aux : aux) * share;
    out.z += z * share;
  }
  return out;
}

// Values and gradients [L] of [T, E] of all ranks' rows one after another.
struct Outcome {
  RouterLossValues values;
  std::vector<std::vector<float>> gradients =
      std::vector<std::vector<float>>(kLayers);
};

Outcome RunLosses(int num_ranks, const std::vector<std::vector<float>>& logits,
                  const std::vector<std::vector<int32_t>>& choices,
                  const RouterLossOptions& options, double scale) {
  std::vector<std::vector<int32_t>> ids, labels;
  TrainingBatch batch;
  for (int64_t tokens : kSlotTokens) ids.emplace_back(tokens, 1);
  for (const auto& slot : ids) batch.slots.push_back({{{slot, slot}}, {}});
  batch.rank_slots = SplitSlots(kSlotTokens, num_ranks);
  std::vector<Outcome> outcomes(num_ranks);
  const auto statuses = test::RunRanks(num_ranks, [&](Communicator& group) {
    OCTET_ASSIGN_OR_RETURN(const auto backend, NewCpuBackend({}));
    OCTET_ASSIGN_OR_RETURN(const auto stream, backend->NewStream());
    const TrainingLayout layout = LayOut(batch, group.rank());
    const int64_t t = layout.num_tokens();
    const int64_t first = layout.slot_map.token_begin[layout.first_slot];
    Outcome& outcome = outcomes[group.rank()];
    RouterLosses losses(backend.get(), Config(), options);
    losses.Begin(&layout);
    std::vector<std::unique_ptr<MoeTape>> tapes;
    for (int layer = 0; layer < kLayers; ++layer) {
      MoeTape& tape =
          *tapes.emplace_back(std::make_unique<MoeTape>(backend.get()));
      OCTET_ASSIGN_OR_RETURN(
          tape.logits,
          tape.logits_memory.Get(DType::kF32, {t, kExperts}, *stream));
      if (t > 0) {
        OCTET_RETURN_IF_ERROR(backend->CopyToDevice(
            tape.logits.data(), logits[layer].data() + first * kExperts,
            tape.logits.num_bytes(), *stream));
      }
      tape.choices.assign(choices[layer].begin() + first * kTopK,
                          choices[layer].begin() + (first + t) * kTopK);
      OCTET_RETURN_IF_ERROR(losses.Collect(layer, tape, *stream));
    }
    OCTET_RETURN_IF_ERROR(losses.Gather(group, 1));
    outcome.values = losses.Values();
    for (int layer = 0; layer < kLayers; ++layer) {
      OCTET_ASSIGN_OR_RETURN(const RouterGradient gradient,
                             losses.Gradient(layer, scale, *stream));
      std::vector<float> dlogits(t * kExperts);
      const Tensor device(dlogits.data(), DType::kF32, {t, kExperts});
      for (size_t i = 0; i < gradient.rows.size(); ++i) {
        const auto& rows = gradient.rows[i];
        const int64_t count = rows.end - rows.begin;
        OCTET_RETURN_IF_ERROR(train_ops::RouterLossBackward(
            *backend->training(), tapes[layer]->logits.Rows(rows.begin, count),
            ConstTensor(gradient.coefs.Rows(static_cast<int64_t>(i), 1).data(),
                        DType::kF32, {kExperts}),
            rows.z_coef, device.Rows(rows.begin, count), *stream));
      }
      outcome.gradients[layer] = dlogits;
    }
    return absl::OkStatus();
  });
  Outcome all;
  all.values = outcomes[0].values;
  for (int rank = 0; rank < num_ranks; ++rank) {
    EXPECT_TRUE(statuses[rank].ok()) << statuses[rank];
    EXPECT_EQ(outcomes[rank].values.aux, all.values.aux);
    for (int layer = 0; layer < kLayers; ++layer) {
      all.gradients[layer].insert(all.gradients[layer].end(),
                                  outcomes[rank].gradients[layer].begin(),
                                  outcomes[rank].gradients[layer].end());
    }
  }
  return all;
}

TEST(RouterLossesTest, ValuesAndGradientsInEveryScope) {
  test::Random random(12);
  constexpr double kLossScale = 0.5, kStep = 1e-5;
  std::vector<std::vector<float>> narrow;
  Logits logits;
  std::vector<std::vector<int32_t>> choices;
  for (int layer = 0; layer < kLayers; ++layer) {
    narrow.push_back(random.Floats(AllTokens() * kExperts, 2));
    logits.push_back(test::ToValues(narrow.back()));
    choices.push_back(ChoicesOf(logits.back()));
  }
  for (const bool per_layer : {false, true}) {
    for (const auto scope : {RouterLossScope::kBatch, RouterLossScope::kSlot}) {
      const RouterLossOptions options = {0.7f, 0.3f, per_layer, scope};
      const std::string name = absl::StrCat("per layer ", per_layer, ", scope ",
                                            static_cast<int>(scope));
      const Outcome outcome =
          RunLosses(1, narrow, choices, options, kLossScale);
      const Expected expected = Reference(logits, choices, options);
      EXPECT_NEAR(outcome.values.aux, expected.aux, 1e-6) << name;
      EXPECT_NEAR(outcome.values.z, expected.z, 1e-6 * expected.z) << name;
      for (int layer = 0; layer < kLayers; ++layer) {
        EXPECT_NEAR(outcome.values.layer_aux[layer], expected.layer_aux[layer],
                    1e-6)
            << name;
        Values slopes;
        for (double& logit : logits[layer]) {
          const double at = logit;
          double loss[2];
          for (const int side : {0, 1}) {
            logit = at + (side == 0 ? -kStep : kStep);
            const Expected moved = Reference(logits, choices, options);
            loss[side] = double{options.aux_coef} * moved.aux +
                         double{options.z_coef} * moved.z;
          }
          logit = at;
          slopes.push_back(kLossScale * (loss[1] - loss[0]) / (2 * kStep));
        }
        const test::Difference difference =
            test::Compare(test::ToValues(outcome.gradients[layer]), slopes);
        ASSERT_TRUE(difference.comparable);
        EXPECT_LT(difference.max_relative, 1e-5) << name << ", layer " << layer;
      }
      for (const int num_ranks : {2, 3, 7}) {
        const Outcome wide =
            RunLosses(num_ranks, narrow, choices, options, kLossScale);
        EXPECT_EQ(wide.values.aux, outcome.values.aux) << name;
        EXPECT_EQ(wide.values.z, outcome.values.z) << name;
        EXPECT_EQ(wide.values.expert_tokens, outcome.values.expert_tokens);
        EXPECT_EQ(wide.gradients, outcome.gradients) << name;
      }
    }
  }
}

TEST(RouterLossesTest, IsKWhenTokensAndProbabilitiesAreBalanced) {
  // Each expert twice per five tokens, all logits equal.
  std::vector<std::vector<float>> logits(
      kLayers, std::vector<float>(AllTokens() * kExperts));
  std::vector<std::vector<int32_t>> choices(kLayers);
  for (auto& layer : choices) {
    for (int64_t i = 0; i < AllTokens() * kTopK; ++i) {
      layer.push_back(static_cast<int32_t>(i % kExperts));
    }
  }
  const RouterLossValues values = RunLosses(2, logits, choices, {}, 1).values;
  EXPECT_NEAR(values.aux, kTopK, 1e-6);
  EXPECT_EQ(
      values.expert_tokens,
      std::vector<int64_t>(kLayers * kExperts, AllTokens() * kTopK / kExperts));
}

}  // namespace
}  // namespace octet
