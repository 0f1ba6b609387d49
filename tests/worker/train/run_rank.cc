#include "tests/worker/train/run_rank.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/support/data.h"
#include "worker/checkpoint/hf_checkpoint.h"
#include "worker/checkpoint/hf_loader.h"
#include "worker/checkpoint/safetensors.h"

namespace octet::test {
namespace {

template <typename T>
std::vector<T> ReadGolden(absl::string_view name, const std::string& key) {
  const auto file =
      SafetensorsFile::Open(GoldenPath(name) + "/training.safetensors");
  EXPECT_TRUE(file.ok()) << file.status();
  const SafetensorsEntry* entry = (*file)->Find(key);
  EXPECT_NE(entry, nullptr) << key;
  std::vector<T> out(entry->num_bytes() / sizeof(T));
  EXPECT_TRUE((*file)->Read(*entry, 0, entry->num_bytes(), out.data()).ok());
  return out;
}

}  // namespace

absl::StatusOr<std::unique_ptr<RunRank>> RunRank::New(
    Communicator& communicator, const RunRankOptions& options) {
  auto rank = std::make_unique<RunRank>();
  rank->communicator = &communicator;
  rank->environment.checkpoint_dir = options.checkpoint;
  rank->environment.memory = options.memory;
  OCTET_ASSIGN_OR_RETURN(rank->config, LoadModelConfig(options.checkpoint));
  OCTET_ASSIGN_OR_RETURN(rank->backend, options.new_backend
                                            ? options.new_backend()
                                            : NewCpuBackend({}));
  OCTET_ASSIGN_OR_RETURN(
      rank->placement,
      Placement::Parse(options.placement, rank->config.num_experts,
                       communicator.size()));
  OCTET_ASSIGN_OR_RETURN(const auto checkpoint,
                         HfCheckpoint::Open(options.checkpoint));
  LoadOptions load;
  load.dtype = options.dtype;
  const auto experts = rank->placement->LocalExperts(communicator.rank());
  load.expert_ids.assign(experts.begin(), experts.end());
  OCTET_ASSIGN_OR_RETURN(rank->weights, LoadMixtral(*checkpoint, rank->config,
                                                    *rank->backend, load));
  return rank;
}

std::string GoldenPath(absl::string_view name) {
  return SourcePath(absl::StrCat("tests/golden/", name));
}

std::vector<float> GoldenFloats(absl::string_view name,
                                const std::string& key) {
  return ReadGolden<float>(name, key);
}

v1::ForwardBackwardRequest GoldenSlots(absl::string_view name) {
  v1::ForwardBackwardRequest request;
  for (int i = 0; i < 4; ++i) {
    v1::TrainingSequence* sequence = request.add_slots()->add_sequences();
    const std::string slot = absl::StrCat("slot", i, "/");
    const auto ids = ReadGolden<int32_t>(name, slot + "input_ids");
    const auto labels = ReadGolden<int32_t>(name, slot + "labels");
    sequence->mutable_token_ids()->Add(ids.begin(), ids.end());
    sequence->mutable_labels()->Add(labels.begin(), labels.end());
  }
  return request;
}

v1::CreateRunRequest GoldenFullRun() {
  v1::CreateRunRequest request;
  request.set_run_id("golden");
  request.set_method(v1::TRAINING_METHOD_FULL);
  request.mutable_router_loss()->set_aux_coef(0.02f);
  request.mutable_router_loss()->set_scope(v1::ROUTER_LOSS_SCOPE_SLOT);
  return request;
}

v1::CreateRunRequest GoldenLoraRun(absl::string_view name) {
  v1::CreateRunRequest request = GoldenFullRun();
  request.set_method(v1::TRAINING_METHOD_LORA);
  request.mutable_lora()->set_init_from(GoldenPath(name) + "/adapter");
  return request;
}

v1::OptimStepRequest GoldenStep() {
  v1::OptimStepRequest request;
  request.mutable_adamw()->set_learning_rate(1e-3);
  request.mutable_adamw()->set_weight_decay(0.1);
  request.mutable_adamw()->set_max_grad_norm(1.0);
  return request;
}

}  // namespace octet::test
