#include "worker/model/training_pass.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/comm/all_gather_v.h"
#include "worker/nn/phase_clock.h"

namespace octet {
namespace {

TrainingLayersOptions LayersOptions(const TrainingPassOptions& options) {
  TrainingLayersOptions out;
  out.recompute = options.recompute;
  out.first_layer = std::max(0, options.lowest_layer);
  out.max_expert_rows = options.max_expert_rows;
  return out;
}

// What the linear layers hold beside their inputs and outputs, with adapters on
// every module if there are any. Each object's buffers hold its widest layer:
// attention forward and backward, the gate, and the experts, whose forward pass
// runs in chunks and keeps u.
int64_t LinearBytes(const ModelConfig& config, DType dtype,
                    const TrainingPassOptions& options, int64_t num_tokens,
                    int64_t num_expert_rows) {
  const int64_t rank = options.adapter_rank;
  const bool fused = options.fused_products, dropout = options.adapters_drop;
  const int64_t h = config.hidden_dim, f = config.ffn_dim;
  const int64_t chunk = std::min(num_expert_rows, options.max_expert_rows);
  const int64_t activation =
      Linear::SwiGluBytes(num_expert_rows, chunk, f, fused, dropout);
  if (rank == 0) return activation;
  const auto bytes = [&](int64_t rows, int64_t n, int64_t k, int64_t r,
                         bool grouped, bool backward) {
    return Linear::AdapterBytes(dtype, rows, n, k, r, grouped, fused, dropout,
                                backward);
  };
  const int64_t qkv = config.q_dim() + 2 * config.kv_dim();
  const int64_t attention_k = std::max<int64_t>(h, config.q_dim());
  const int64_t t = num_tokens, rows = num_expert_rows;
  const int64_t attention = bytes(t, qkv, attention_k, 3 * rank, false, false) +
                            bytes(t, qkv, attention_k, 3 * rank, false, true);
  const int64_t gate = bytes(t, config.num_experts, h, rank, false, true);
  const int64_t experts = std::max(
      bytes(rows, 2 * f, std::max(h, dropout ? f : h), 2 * rank, true, true),
      bytes(chunk, h, f, rank, true, false));
  const int64_t kept_u =
      TrainingLayers::NumTapes(config, LayersOptions(options)) * rows * 3 *
      rank * static_cast<int64_t>(SizeOf(dtype));
  return activation + attention + gate + experts + kept_u +
         (dropout ? 8 * (t + rows) : 0);
}

}  // namespace

TrainingPass::TrainingPass(Backend* backend, Communicator* communicator,
                           const ModelConfig& config,
                           const Placement* placement,
                           const ModelWeights* weights,
                           const TrainingPassOptions& options)
    : communicator_(communicator),
      config_(config),
      options_(options),
      router_losses_(backend, config, options.router_loss),
      layers_(backend, communicator, config, placement, weights,
              LayersOptions(options), &router_losses_),
      head_(backend, config, weights, options.max_head_rows),
      dx_(backend) {}

absl::StatusOr<std::unique_ptr<TrainingPass>> TrainingPass::Create(
    Backend* backend, Communicator* communicator, const ModelConfig& config,
    const Placement* placement, const ModelWeights* weights,
    const TrainingPassOptions& options) {
  if (backend->training() == nullptr) {
    return absl::UnimplementedError(absl::StrCat(
        "training: ", backend->Description(), " has no training operations"));
  }
  std::unique_ptr<TrainingPass> pass(new TrainingPass(
      backend, communicator, config, placement, weights, options));
  OCTET_ASSIGN_OR_RETURN(pass->stream_, backend->NewStream());
  return pass;
}

absl::StatusOr<PassResult> TrainingPass::Forward(int64_t step_id,
                                                 const TrainingBatch& batch) {
  return Run(step_id, batch, nullptr);
}

absl::StatusOr<PassResult> TrainingPass::ForwardBackward(
    int64_t step_id, const TrainingBatch& batch, GradientSink& sink) {
  return Run(step_id, batch, &sink);
}

absl::StatusOr<PassResult> TrainingPass::Run(int64_t step_id,
                                             const TrainingBatch& batch,
                                             GradientSink* sink) {
  PhaseClock total;
  const ForwardSeconds before = layers_.seconds();
  const double waited_before = WaitedSeconds();
  PassResult result;
  const TrainingLayout layout = LayOut(batch, communicator_->rank());
  const int64_t t = layout.num_tokens();
  router_losses_.Begin(&layout);
  TrainingLayers::Step step;
  step.step_id = step_id;
  step.layout = &layout;
  step.keep = step.drop = sink != nullptr;
  step.seed = options_.seed;
  step.stream = stream_.get();
  OCTET_ASSIGN_OR_RETURN(
      const ConstTensor x,
      layers_.Forward(step, options_.keep_routes ? &result.routes : nullptr));

  PhaseClock clock;
  std::vector<float> losses(layout.label_begin.back());
  const absl::Span<float> own_losses = absl::MakeSpan(losses).subspan(
      layout.label_begin[layout.first_slot], layout.label_rows.size());
  OCTET_ASSIGN_OR_RETURN(
      const Tensor dx,
      dx_.Get(DType::kF32, {sink != nullptr ? t : 0, config_.hidden_dim},
              *stream_));
  if (sink == nullptr) {
    OCTET_RETURN_IF_ERROR(head_.Forward(layout, x, own_losses, *stream_));
  } else {
    OCTET_RETURN_IF_ERROR(
        head_.ForwardBackward(layout, x, LabelScales(layout, batch.loss_scale),
                              own_losses, *sink, dx, *stream_));
  }
  clock.AddTo(result.seconds.head);

  OCTET_RETURN_IF_ERROR(ShareLosses(step_id, layout, losses));
  OCTET_RETURN_IF_ERROR(router_losses_.Gather(*communicator_, step_id));
  Summarize(layout, std::move(losses), result);
  if (sink != nullptr) {
    OCTET_RETURN_IF_ERROR(layers_.Backward(batch.loss_scale, dx, *sink));
    if (options_.lowest_layer < 0) {
      OCTET_RETURN_IF_ERROR(layers_.EmbeddingBackward(dx, *sink));
    }
  }
  const ForwardSeconds& after = layers_.seconds();
  PassSeconds& seconds = result.seconds;
  seconds.attention = after.attention - before.attention;
  seconds.router = after.moe.router - before.moe.router;
  seconds.experts = after.moe.expert - before.moe.expert;
  seconds.dispatch = after.moe.dispatch - before.moe.dispatch;
  seconds.combine = after.moe.combine - before.moe.combine;
  seconds.waiting = WaitedSeconds() - waited_before;
  total.AddTo(seconds.total);
  return result;
}

std::vector<float> TrainingPass::LabelScales(const TrainingLayout& layout,
                                             double loss_scale) const {
  std::vector<float> scales;
  for (size_t i = 0; i < layout.label_slots.size(); ++i) {
    const SlotRows& labels = layout.label_slots[i];
    const int64_t count = labels.end - labels.begin;
    const double weight =
        options_.reduction == LossReduction::kTokenMean
            ? loss_scale / static_cast<double>(layout.label_begin.back())
            : static_cast<float>(loss_scale /
                                 static_cast<double>(layout.num_slots())) /
                  static_cast<double>(count);
    scales.insert(scales.end(), count, static_cast<float>(weight));
  }
  return scales;
}

absl::Status TrainingPass::ShareLosses(int64_t step_id,
                                       const TrainingLayout& layout,
                                       std::vector<float>& losses) {
  std::vector<int64_t> offsets;
  for (int64_t slot : layout.rank_slots) {
    offsets.push_back(layout.label_begin[slot] * int64_t{sizeof(float)});
  }
  OpInfo op;
  op.operation = "losses";
  op.step_id = step_id;
  return AllGatherV(*communicator_, offsets, losses.data(), op);
}

void TrainingPass::Summarize(const TrainingLayout& layout,
                             std::vector<float> losses,
                             PassResult& result) const {
  const int64_t num_slots = layout.num_slots();
  result.num_tokens = layout.slot_map.token_begin.back();
  result.num_labels = layout.label_begin.back();
  double sum = 0, sum_of_means = 0;
  for (int64_t slot = 0; slot < num_slots; ++slot) {
    double slot_sum = 0;
    for (int64_t i = layout.label_begin[slot]; i < layout.label_begin[slot + 1];
         ++i) {
      slot_sum += losses[i];
    }
    const int64_t count = layout.num_labels(slot);
    const double mean = count == 0 ? 0 : slot_sum / static_cast<double>(count);
    result.slot_labels.push_back(count);
    result.slot_losses.push_back(mean);
    sum += slot_sum;
    sum_of_means += mean;
  }
  if (options_.reduction == LossReduction::kSlotMean) {
    result.loss = sum_of_means / static_cast<double>(num_slots);
  } else if (result.num_labels > 0) {
    result.loss = sum / static_cast<double>(result.num_labels);
  }
  if (options_.keep_logprobs) {
    for (float& loss : losses) loss = -loss;
    result.logprobs = std::move(losses);
  }
  RouterLossValues router = router_losses_.Values();
  result.aux_loss = router.aux;
  result.z_loss = router.z;
  result.layer_aux_losses = std::move(router.layer_aux);
  result.slot_aux_losses = std::move(router.slot_aux);
  result.slot_z_losses = std::move(router.slot_z);
  result.expert_tokens = std::move(router.expert_tokens);
}

double TrainingPass::WaitedSeconds() const {
  absl::Duration waited;
  for (const OpCounters& counters : communicator_->counters()) {
    waited += counters.waited;
  }
  return absl::ToDoubleSeconds(waited);
}

int64_t TrainingPass::size_bytes() const {
  return router_losses_.size_bytes() + layers_.size_bytes() +
         head_.size_bytes() + static_cast<int64_t>(dx_.size_bytes());
}

int64_t TrainingPass::ActivationBytes(const ModelConfig& config, DType dtype,
                                      const TrainingPassOptions& options,
                                      int64_t num_tokens,
                                      int64_t num_expert_rows) {
  return TrainingLayers::Bytes(config, dtype, LayersOptions(options),
                               num_tokens, num_expert_rows) +
         TrainingHead::Bytes(config, dtype, options.max_head_rows, num_tokens) +
         LinearBytes(config, dtype, options, num_tokens, num_expert_rows) +
         num_tokens * 4 * (config.hidden_dim + 2 * config.num_experts);
}

}  // namespace octet
