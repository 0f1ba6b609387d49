#include "worker/model/router_losses.h"

#include <algorithm>

#include "base/status_macros.h"
#include "kernels/training_ops.h"
#include "worker/comm/all_gather_v.h"

namespace octet {

RouterLosses::RouterLosses(Backend* backend, const ModelConfig& config,
                           const RouterLossOptions& options)
    : backend_(backend),
      num_layers_(config.num_layers),
      num_experts_(config.num_experts),
      top_k_(config.top_k),
      options_(options),
      probabilities_(backend),
      log_sums_(backend),
      coefs_(backend) {}

void RouterLosses::Begin(const TrainingLayout* layout) {
  layout_ = layout;
  sums_.assign(layout->num_slots() * num_layers_ * (2 * num_experts_ + 1), 0);
}

double* RouterLosses::SlotSums(int64_t slot, int layer) {
  return sums_.data() + (slot * num_layers_ + layer) * (2 * num_experts_ + 1);
}

absl::Status RouterLosses::Collect(int layer, const MoeTape& tape,
                                   Stream& stream) {
  const int64_t num_tokens = layout_->num_tokens();
  const int e = num_experts_;
  if (num_tokens == 0) return absl::OkStatus();
  OCTET_ASSIGN_OR_RETURN(
      const Tensor probabilities,
      probabilities_.Get(DType::kF32, {num_tokens, e}, stream));
  OCTET_ASSIGN_OR_RETURN(const Tensor log_sums,
                         log_sums_.Get(DType::kF32, {num_tokens}, stream));
  OCTET_RETURN_IF_ERROR(train_ops::RouterProbabilities(
      *backend_->training(), tape.logits, probabilities, log_sums, stream));
  host_probabilities_.resize(num_tokens * e);
  host_log_sums_.resize(num_tokens);
  OCTET_RETURN_IF_ERROR(
      backend_->CopyToHost(host_probabilities_.data(), probabilities.data(),
                           probabilities.num_bytes(), stream));
  OCTET_RETURN_IF_ERROR(backend_->CopyToHost(
      host_log_sums_.data(), log_sums.data(), log_sums.num_bytes(), stream));
  OCTET_RETURN_IF_ERROR(backend_->Synchronize(stream));
  for (size_t i = 0; i < layout_->slot_rows.size(); ++i) {
    const SlotRows& rows = layout_->slot_rows[i];
    double* sums =
        SlotSums(layout_->first_slot + static_cast<int64_t>(i), layer);
    for (int64_t t = rows.begin; t < rows.end; ++t) {
      for (int k = 0; k < top_k_; ++k) ++sums[tape.choices[t * top_k_ + k]];
      for (int j = 0; j < e; ++j) sums[e + j] += host_probabilities_[t * e + j];
      sums[2 * e] += double{host_log_sums_[t]} * host_log_sums_[t];
    }
  }
  return absl::OkStatus();
}

absl::Status RouterLosses::Gather(Communicator& communicator, int64_t step_id) {
  const int64_t slot_bytes =
      num_layers_ * (2 * num_experts_ + 1) * int64_t{sizeof(double)};
  std::vector<int64_t> offsets;
  for (int64_t slot : layout_->rank_slots) offsets.push_back(slot * slot_bytes);
  OpInfo op;
  op.operation = "router_statistics";
  op.step_id = step_id;
  return AllGatherV(communicator, offsets, sums_.data(), op);
}

RouterLosses::Sums RouterLosses::SumOf(const SlotRange& slots,
                                       int layer) const {
  const int e = num_experts_;
  Sums total{std::vector<double>(e), std::vector<double>(e), 0};
  for (int64_t slot = slots.begin; slot < slots.end; ++slot) {
    const double* sums =
        sums_.data() + (slot * num_layers_ + layer) * (2 * e + 1);
    for (int j = 0; j < e; ++j) {
      total.counts[j] += sums[j];
      total.probabilities[j] += sums[e + j];
    }
    total.squared_log_sums += sums[2 * e];
  }
  return total;
}

RouterLosses::Sums RouterLosses::SumOfLayers(const SlotRange& slots) const {
  Sums total = SumOf(slots, 0);
  for (int layer = 1; layer < num_layers_; ++layer) {
    const Sums sums = SumOf(slots, layer);
    for (int j = 0; j < num_experts_; ++j) {
      total.counts[j] += sums.counts[j];
      total.probabilities[j] += sums.probabilities[j];
    }
    total.squared_log_sums += sums.squared_log_sums;
  }
  return total;
}

std::vector<RouterLosses::SlotRange> RouterLosses::Groups() const {
  const int64_t num_slots = layout_->num_slots();
  if (options_.scope == RouterLossScope::kBatch) return {{0, num_slots}};
  std::vector<SlotRange> groups;
  for (int64_t slot = 0; slot < num_slots; ++slot) {
    groups.push_back({slot, slot + 1});
  }
  return groups;
}

int64_t RouterLosses::TokensOf(const SlotRange& slots) const {
  const std::vector<int64_t>& begin = layout_->slot_map.token_begin;
  return begin[slots.end] - begin[slots.begin];
}

double RouterLosses::Aux(const Sums& sums, double num_rows) const {
  double aux = 0;
  for (int j = 0; j < num_experts_; ++j) {
    aux += sums.counts[j] / num_rows * (sums.probabilities[j] / num_rows);
  }
  return num_experts_ * aux;
}

RouterLossValues RouterLosses::Values() const {
  RouterLossValues values;
  values.layer_aux.assign(num_layers_, 0);
  const std::vector<SlotRange> groups = Groups();
  const double num_groups = static_cast<double>(groups.size());
  for (const SlotRange& group : groups) {
    const double num_tokens = static_cast<double>(TokensOf(group));
    const double num_rows = num_tokens * num_layers_;
    double mean_aux = 0;
    for (int layer = 0; layer < num_layers_; ++layer) {
      const double aux = Aux(SumOf(group, layer), num_tokens);
      values.layer_aux[layer] += aux / num_groups;
      mean_aux += aux / num_layers_;
    }
    const Sums sums = SumOfLayers(group);
    const double aux = options_.per_layer ? mean_aux : Aux(sums, num_rows);
    const double z = sums.squared_log_sums / num_rows;
    values.aux += aux / num_groups;
    values.z += z / num_groups;
    if (options_.scope == RouterLossScope::kSlot) {
      values.slot_aux.push_back(aux);
      values.slot_z.push_back(z);
    }
  }
  for (int layer = 0; layer < num_layers_; ++layer) {
    const Sums sums = SumOf({0, layout_->num_slots()}, layer);
    for (double count : sums.counts) {
      values.expert_tokens.push_back(static_cast<int64_t>(count));
    }
  }
  return values;
}

// aux is E / n^2 sum_e c[e] sum_rows p[e] with c constant, so each row's p[e]
// has the coefficient E c[e] / n^2; over L layers apart, / L.
absl::StatusOr<RouterGradient> RouterLosses::Gradient(int layer, double scale,
                                                      Stream& stream) {
  RouterGradient gradient;
  if (options_.aux_coef == 0 && options_.z_coef == 0) return gradient;
  host_coefs_.clear();
  const std::vector<SlotRange> groups = Groups();
  const bool by_slot = options_.scope == RouterLossScope::kSlot;
  const int64_t own_begin = layout_->first_slot;
  const int64_t own_end =
      own_begin + static_cast<int64_t>(layout_->slot_rows.size());
  const int64_t own_tokens = layout_->num_tokens();
  if (own_tokens == 0) return gradient;
  for (const SlotRange& group : groups) {
    if (by_slot && (group.begin < own_begin || group.begin >= own_end)) {
      continue;
    }
    const double num_tokens = static_cast<double>(TokensOf(group));
    // In f32 as a label's: see training_pass.h.
    const double weight =
        static_cast<float>(scale / static_cast<double>(groups.size()));
    const double n = options_.per_layer ? num_tokens : num_tokens * num_layers_;
    const double share = options_.per_layer ? 1.0 / num_layers_ : 1.0;
    const Sums sums =
        options_.per_layer ? SumOf(group, layer) : SumOfLayers(group);
    for (double count : sums.counts) {
      host_coefs_.push_back(static_cast<float>(
          weight * options_.aux_coef * share * num_experts_ * count / (n * n)));
    }
    RouterGradient::Rows rows{0, own_tokens, 0};
    if (by_slot) {
      const SlotRows& own = layout_->slot_rows[group.begin - own_begin];
      rows = {own.begin, own.end, 0};
    }
    rows.z_coef = static_cast<float>(weight * options_.z_coef /
                                     (num_tokens * num_layers_));
    gradient.rows.push_back(rows);
  }
  OCTET_ASSIGN_OR_RETURN(
      const Tensor coefs,
      coefs_.Get(DType::kF32,
                 {static_cast<int64_t>(gradient.rows.size()), num_experts_},
                 stream));
  OCTET_RETURN_IF_ERROR(backend_->CopyToDevice(coefs.data(), host_coefs_.data(),
                                               coefs.num_bytes(), stream));
  gradient.coefs = coefs;
  return gradient;
}

int64_t RouterLosses::size_bytes() const {
  return static_cast<int64_t>(probabilities_.size_bytes() +
                              log_sums_.size_bytes() + coefs_.size_bytes());
}

}  // namespace octet
