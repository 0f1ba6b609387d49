#include "tests/worker/train/trainer_rank.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/worker/train/scripted_pass.h"
#include "worker/model/training_batch.h"

namespace octet::test {
namespace {

absl::StatusOr<std::vector<float>> Unpacked(Backend& backend,
                                            const PackedMatrix& matrix) {
  std::vector<float> out(matrix.n() * matrix.k());
  if (matrix.dtype() == DType::kF32) {
    OCTET_RETURN_IF_ERROR(backend.UnpackRows(
        matrix, 0, Tensor(out.data(), DType::kF32, {matrix.n(), matrix.k()})));
    return out;
  }
  std::vector<BF16> rounded(out.size());
  OCTET_RETURN_IF_ERROR(backend.UnpackRows(
      matrix, 0,
      Tensor(rounded.data(), DType::kBF16, {matrix.n(), matrix.k()})));
  for (size_t i = 0; i < out.size(); ++i) out[i] = ToFloat(rounded[i]);
  return out;
}

}  // namespace

ModelConfig TrainerConfig(bool tied) {
  ModelConfig config = TinyConfig();
  config.vocab_size = 4200;
  config.num_experts = 4;
  config.tie_word_embeddings = tied;
  return config;
}

v1::CreateRunRequest FullRequest() {
  v1::CreateRunRequest request;
  request.set_method(v1::TRAINING_METHOD_FULL);
  return request;
}

v1::CreateRunRequest LoraRequest() {
  v1::CreateRunRequest request;
  request.set_method(v1::TRAINING_METHOD_LORA);
  request.set_seed(5);
  request.mutable_lora()->set_rank(3);
  request.mutable_lora()->set_alpha(5);
  request.mutable_lora()->add_target_modules("all");
  request.mutable_lora()->add_modules_to_save("embed_tokens");
  request.mutable_lora()->add_modules_to_save("norm");
  return request;
}

v1::AdamWConfig TestAdamW() {
  v1::AdamWConfig config;
  config.set_learning_rate(1e-2);
  config.set_weight_decay(0.1);
  config.set_max_grad_norm(3.0);
  return config;
}

absl::StatusOr<std::unique_ptr<TrainerRank>> TrainerRank::New(
    Communicator& communicator, const ModelConfig& config, DType dtype,
    const v1::CreateRunRequest& request, const PeftAdapter* adapter) {
  std::unique_ptr<TrainerRank> rank(new TrainerRank);
  rank->config_ = config;
  rank->communicator_ = &communicator;
  rank->dtype_ = dtype;
  OCTET_ASSIGN_OR_RETURN(rank->backend_, NewCpuBackend({}));
  OCTET_ASSIGN_OR_RETURN(
      rank->placement_,
      Placement::Default(config.num_experts, communicator.size()));
  TinyModel model = MakeTinyModel(config, Routing::kRandom, 3);
  if (config.tie_word_embeddings) model.lm_head = model.embedding;
  OCTET_ASSIGN_OR_RETURN(
      rank->weights_,
      PackTinyModel(model, *rank->backend_, dtype,
                    rank->placement_->LocalExperts(communicator.rank())));
  OCTET_ASSIGN_OR_RETURN(ParameterSet parameters,
                         ParameterSet::Create(config, request));
  OCTET_ASSIGN_OR_RETURN(
      rank->trainer_, WeightTrainer::Create(
                          {rank->backend_.get(), &communicator, &rank->config_,
                           &*rank->placement_, &rank->weights_},
                          std::move(parameters), request, adapter, 0));
  return rank;
}

absl::Status TrainerRank::Accumulate(int64_t num_slots, uint64_t seed) {
  SlotPlan plan;
  plan.first_slot = trainer_->pending_slots();
  std::vector<int64_t> tokens(num_slots);
  for (int64_t i = 0; i < num_slots; ++i) {
    tokens[i] = 3 + (plan.first_slot + i) % 3;
  }
  plan.rank_begin = SplitSlots(tokens, communicator_->size());
  GradientSink& sink = trainer_->Begin(plan);
  OCTET_RETURN_IF_ERROR(FillSink(*backend_, trainer_->parameters(), *placement_,
                                 communicator_->rank(), plan, seed, dtype_,
                                 sink, trainer_->stream()));
  return trainer_->Finish(1);
}

absl::StatusOr<std::map<std::string, std::vector<float>>>
TrainerRank::Values() {
  std::map<std::string, std::vector<float>> out;
  OCTET_RETURN_IF_ERROR(trainer_->exchange().ForEach(
      trainer_->optimizer(), [](int, int) { return true; },
      [&](int index, int64_t row, ConstTensor values) {
        const Parameter& parameter = trainer_->parameters().parameters()[index];
        std::vector<float>& to = out[parameter.name];
        EXPECT_EQ(static_cast<int64_t>(to.size()), row * parameter.cols);
        to.resize(to.size() + values.num_elements());
        return backend_->CopyToHost(&to[row * parameter.cols], values.data(),
                                    values.num_bytes(), trainer_->stream());
      },
      2, trainer_->stream()));
  return out;
}

absl::StatusOr<std::map<std::string, std::vector<float>>>
TrainerRank::LiveValues() {
  std::map<std::string, std::vector<float>> out;
  for (const Parameter& parameter : ModelParameters(config_)) {
    const int expert = parameter.weight.expert_id;
    if (expert >= 0 &&
        placement_->LocalIndex(communicator_->rank(), expert) < 0) {
      continue;
    }
    std::vector<float>& to = out[parameter.name];
    to.resize(parameter.num_elements());
    OCTET_RETURN_IF_ERROR(trainer_->live().Read(
        parameter, 0, parameter.num_elements(), to.data(), trainer_->stream()));
    const auto* lora = FindLora(weights_, parameter.weight);
    if (lora == nullptr || *lora == nullptr) continue;
    OCTET_ASSIGN_OR_RETURN(out[parameter.name + " A"],
                           Unpacked(*backend_, *(*lora)->a));
    OCTET_ASSIGN_OR_RETURN(out[parameter.name + " sB"],
                           Unpacked(*backend_, *(*lora)->b));
  }
  OCTET_ASSIGN_OR_RETURN(out["head"], Unpacked(*backend_, *weights_.lm_head));
  return out;
}

}  // namespace octet::test
