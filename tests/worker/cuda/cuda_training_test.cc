// Training on emulated GPUs, NCCL between the ranks: gradients of the golden
// checkpoints, and runs of whole steps. What a rank computes alone is compared
// with torch's; what the ranks compute together, to the last bit with that.
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "gtest/gtest.h"
#include "tests/cuda_emulation/include/cuda_emu/control.h"
#include "tests/reference/host_tensor.h"
#include "tests/worker/comm/mpi_test_main.h"
#include "tests/worker/model/golden_gradients.h"
#include "tests/worker/train/run_rank.h"
#include "worker/comm/local/local_group.h"
#include "worker/device/cuda_rank.h"
#include "worker/train/run.h"

namespace octet {
namespace {

// This process as a rank of the group, and as the only rank of one.
class Ranks {
 public:
  static absl::StatusOr<Ranks> New() {
    Ranks ranks;
    OCTET_ASSIGN_OR_RETURN(auto mpi, NewMpiCommunicator(test::Mpi()));
    OCTET_ASSIGN_OR_RETURN(ranks.rank_,
                           NewCudaRank(std::move(mpi), absl::Seconds(120)));
    ranks.self_ = std::move(NewLocalGroup(1, {})[0]);
    return ranks;
  }

  Communicator& group() { return *rank_.communicator; }
  Communicator& self() { return *self_; }
  const RankDevice& device() const { return rank_.device; }

 private:
  CudaRank rank_;
  std::unique_ptr<Communicator> self_;
};

// ---- gradients

using Case = std::tuple<const char*, const char*>;  // checkpoint, golden

class CudaGradientsTest : public ::testing::TestWithParam<Case> {};

absl::StatusOr<test::GoldenRun> Gradients(const test::GoldenTraining& golden,
                                          const test::GoldenPass& pass,
                                          Ranks& ranks, bool together) {
  OCTET_ASSIGN_OR_RETURN(const auto backend, ranks.device().new_backend());
  return test::RunGoldenPass(golden, pass,
                             together ? ranks.group() : ranks.self(), *backend);
}

// Each of `own` is among `all`, and the ranks together have them all.
void ExpectPartOf(const test::SlotGradients& own,
                  const test::SlotGradients& all, Communicator& group) {
  auto count = static_cast<int64_t>(own.size());
  for (const auto& [key, values] : own) {
    const auto found = all.find(key);
    ASSERT_NE(found, all.end()) << key.first << ", slot " << key.second;
    EXPECT_EQ(test::FirstMismatch(values, found->second), "")
        << key.first << ", slot " << key.second;
  }
  ASSERT_TRUE(
      group.AllReduceI64(absl::MakeSpan(&count, 1), ReduceOp::kSum, {}).ok());
  EXPECT_EQ(count, static_cast<int64_t>(all.size()));
}

TEST_P(CudaGradientsTest, AreTorchsAndHaveTheSameBitsAtEveryWidth) {
  const test::GoldenTraining golden(std::get<0>(GetParam()));
  const std::string prefix = absl::StrCat(std::get<1>(GetParam()), "/");
  test::GoldenPass pass = test::MakeGoldenPass(golden, prefix);
  auto ranks = Ranks::New();
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  const auto alone = Gradients(golden, pass, *ranks, false);
  ASSERT_TRUE(alone.ok()) << alone.status();
  EXPECT_NEAR(alone->result.loss, golden.Number(prefix + "loss"), 1e-5);
  EXPECT_NEAR(alone->result.aux_loss, golden.Number(prefix + "aux_loss"), 1e-5);
  test::CompareGradients(golden, pass, alone->gradients);
  // Spread over the ranks; and all on the last one.
  std::vector<int64_t> all_on_last(test::Mpi().size(), 0);
  all_on_last.push_back(static_cast<int64_t>(pass.slots.inputs.size()));
  for (const std::vector<int64_t>& split : {{}, all_on_last}) {
    pass.rank_slots = split;
    const auto together = Gradients(golden, pass, *ranks, true);
    ASSERT_TRUE(together.ok()) << together.status();
    EXPECT_EQ(together->result.loss, alone->result.loss);
    EXPECT_EQ(together->result.aux_loss, alone->result.aux_loss);
    EXPECT_EQ(together->result.slot_losses, alone->result.slot_losses);
    ExpectPartOf(together->gradients, alone->gradients, ranks->group());
  }
  EXPECT_EQ(cuda_emu::ErrorCount(), 0) << cuda_emu::LastMessage();
}

INSTANTIATE_TEST_SUITE_P(
    Goldens, CudaGradientsTest,
    ::testing::Combine(::testing::Values("e8k2_old", "e4k3_tied_window_old",
                                         "e16k3_old_sharded"),
                       ::testing::Values("full", "batch", "lora")),
    [](const auto& info) {
      return absl::StrCat(std::get<0>(info.param), "_",
                          std::get<1>(info.param));
    });

// ---- steps

// A run, and the slots of each of its steps.
struct Steps {
  std::string checkpoint;
  std::optional<DType> dtype;
  v1::CreateRunRequest create;
  std::vector<v1::ForwardBackwardRequest> steps;
};

// The loss and the gradient's norm of each step, and at last the loss of the
// last step's slots.
struct Curve {
  std::vector<double> losses, norms;
};

absl::StatusOr<Curve> Train(const Steps& steps, Communicator& communicator,
                            const RankDevice& device) {
  test::RunRankOptions options;
  options.new_backend = device.new_backend;
  options.checkpoint = test::GoldenPath(steps.checkpoint);
  options.dtype = steps.dtype;
  OCTET_ASSIGN_OR_RETURN(const auto rank,
                         test::RunRank::New(communicator, options));
  OCTET_ASSIGN_OR_RETURN(
      const auto run,
      TrainingRun::Create(rank->model(), rank->environment, steps.create, 0));
  Curve curve;
  int64_t step_id = 0;
  for (const v1::ForwardBackwardRequest& step : steps.steps) {
    OCTET_ASSIGN_OR_RETURN(const v1::ForwardResponse response,
                           run->ForwardBackward(step, ++step_id));
    OCTET_ASSIGN_OR_RETURN(const v1::OptimStepResponse done,
                           run->OptimStep(test::GoldenStep(), step_id));
    curve.losses.push_back(response.loss());
    curve.norms.push_back(done.grad_norm());
  }
  v1::ForwardRequest last;
  *last.mutable_slots() = steps.steps.back().slots();
  OCTET_ASSIGN_OR_RETURN(const v1::ForwardResponse response,
                         run->Forward(last, ++step_id));
  curve.losses.push_back(response.loss());
  return curve;
}

// What rank 0 finds alone, while the others wait.
absl::StatusOr<Curve> TrainAlone(const Steps& steps, Ranks& ranks) {
  Curve curve;
  curve.norms.resize(steps.steps.size());
  curve.losses.resize(steps.steps.size() + 1);
  if (ranks.group().rank() == 0) {
    OCTET_ASSIGN_OR_RETURN(curve, Train(steps, ranks.self(), ranks.device()));
  }
  OpInfo op;
  op.operation = "curve";
  op.timeout = absl::Minutes(5);
  for (std::vector<double>* values : {&curve.losses, &curve.norms}) {
    OCTET_RETURN_IF_ERROR(ranks.group().Broadcast(
        values->data(), static_cast<int64_t>(values->size() * sizeof(double)),
        0, op));
  }
  return curve;
}

class CudaStepsTest : public ::testing::Test {
 protected:
  // What a rank finds alone, as all of them together do.
  static Curve SameCurve(const Steps& steps) {
    auto ranks = Ranks::New();
    EXPECT_TRUE(ranks.ok()) << ranks.status();
    if (!ranks.ok()) return {};
    const auto alone = TrainAlone(steps, *ranks);
    EXPECT_TRUE(alone.ok()) << alone.status();
    const auto together = Train(steps, ranks->group(), ranks->device());
    EXPECT_TRUE(together.ok()) << together.status();
    EXPECT_EQ(cuda_emu::ErrorCount(), 0) << cuda_emu::LastMessage();
    if (!alone.ok() || !together.ok()) return {};
    EXPECT_EQ(together->losses, alone->losses);
    EXPECT_EQ(together->norms, alone->norms);
    EXPECT_LT(alone->losses.back(), alone->losses.front());
    return *alone;
  }
};

TEST_F(CudaStepsTest, FollowTorch) {
  const std::string name = "e8k2_old";
  const std::vector<v1::ForwardBackwardRequest> slots(4,
                                                      test::GoldenSlots(name));
  for (const bool adapted : {false, true}) {
    const Curve curve = SameCurve(
        {name, std::nullopt,
         adapted ? test::GoldenLoraRun(name) : test::GoldenFullRun(), slots});
    const std::vector<float> golden =
        test::GoldenFloats(name, adapted ? "lora/curve" : "full/curve");
    for (size_t i = 0; i < curve.losses.size(); ++i) {
      EXPECT_NEAR(curve.losses[i], golden[i], 1e-3) << "step " << i;
    }
  }
}

// One slot: every rank but one has none.
TEST_F(CudaStepsTest, RanksWithoutSlots) {
  const std::string name = "e8k2_old";
  Steps steps{name, std::nullopt, test::GoldenLoraRun(name), {}};
  steps.create.mutable_lora()->set_dropout(0.3f);
  const v1::ForwardBackwardRequest all = test::GoldenSlots(name);
  for (const int slot : {2, 0, 2, 2}) {
    *steps.steps.emplace_back().add_slots() = all.slots(slot);
  }
  SameCurve(steps);
}

// K is 1: all tokens go to the first expert, the others have none in any step.
TEST_F(CudaStepsTest, AllTokensToOneExpert) {
  const std::string name = "e4k1_tied_old";
  const int num_layers = LoadModelConfig(test::GoldenPath(name))->num_layers;
  Steps steps{name, std::nullopt, test::GoldenFullRun(), {}};
  v1::ForwardBackwardRequest request = test::GoldenSlots("e8k2_old");
  for (const v1::TrainingSlot& slot : request.slots()) {
    v1::SlotRoutes* routes = request.add_routes();
    for (int layer = 0; layer < num_layers; ++layer) {
      routes->add_layers()->mutable_expert_ids()->Resize(
          slot.sequences(0).token_ids_size(), 0);
    }
  }
  steps.steps.assign(4, request);
  SameCurve(steps);
}

TEST_F(CudaStepsTest, Bf16WithRecomputation) {
  Steps steps{"e8k2_old", DType::kBF16, test::GoldenFullRun(), {}};
  steps.create.set_recompute(true);
  steps.steps.assign(2, test::GoldenSlots("e8k2_old"));
  SameCurve(steps);
}

}  // namespace
}  // namespace octet
