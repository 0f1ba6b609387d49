#include "worker/moe/dispatcher.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/logging.h"
#include "base/status_macros.h"
#include "kernels/ops.h"
#include "worker/comm/all_gather_v.h"

namespace octet {
namespace {

OpInfo MakeOp(absl::string_view operation, const StepContext& step,
              Stream* stream) {
  OpInfo op;
  op.operation = operation;
  op.layer = step.layer;
  op.step_id = step.step_id;
  op.stream = stream;
  return op;
}

// Bytes of each part, for parts at prefix-sum offsets; `own` moves nothing.
void PartBytes(absl::Span<const int64_t> offsets, int64_t row_bytes, int own,
               std::vector<int64_t>& part_offsets,
               std::vector<int64_t>& part_bytes) {
  const size_t num_ranks = offsets.size() - 1;
  part_offsets.resize(num_ranks);
  part_bytes.resize(num_ranks);
  for (size_t p = 0; p < num_ranks; ++p) {
    part_offsets[p] = offsets[p] * row_bytes;
    part_bytes[p] = static_cast<int>(p) == own
                        ? 0
                        : (offsets[p + 1] - offsets[p]) * row_bytes;
  }
}

}  // namespace

Dispatcher::Dispatcher(Backend* backend, Communicator* communicator,
                       const Placement* placement)
    : backend_(backend),
      communicator_(communicator),
      placement_(placement),
      send_(backend),
      received_(backend),
      returned_(backend),
      send_rows_(backend),
      expert_rows_(backend),
      slot_rows_(backend),
      row_weights_(backend) {
  OCTET_CHECK(placement->num_ranks() == communicator->size())
      << "placement for " << placement->num_ranks() << " ranks";
}

absl::StatusOr<DispatchHandle> Dispatcher::Route(
    ConstTensor topk_ids, absl::Span<const int64_t> rank_tokens,
    const StepContext& step) {
  OCTET_ASSIGN_OR_RETURN(std::vector<DispatchHandle> handles,
                         RouteChunks(topk_ids, rank_tokens, 1, step));
  return std::move(handles[0]);
}

absl::StatusOr<std::vector<DispatchHandle>> Dispatcher::RouteChunks(
    ConstTensor topk_ids, absl::Span<const int64_t> rank_tokens, int num_chunks,
    const StepContext& step) {
  const int num_ranks = communicator_->size();
  const int64_t num_tokens = topk_ids.rows();
  const int top_k = static_cast<int>(topk_ids.dim(1));
  OCTET_CHECK(static_cast<int>(rank_tokens.size()) == num_ranks &&
              rank_tokens[communicator_->rank()] == num_tokens);
  own_choices_.resize(num_tokens * top_k);
  OCTET_RETURN_IF_ERROR(
      backend_->CopyToHost(own_choices_.data(), topk_ids.data(),
                           topk_ids.num_bytes(), *step.stream));
  OCTET_RETURN_IF_ERROR(backend_->Synchronize(*step.stream));
  if (num_ranks == 1) {
    return PlanChunks(*placement_, 0, top_k, rank_tokens, own_choices_,
                      num_chunks);
  }
  OCTET_RETURN_IF_ERROR(ShareTable<int32_t>(own_choices_, top_k, rank_tokens,
                                            "route", all_choices_, step));
  return PlanChunks(*placement_, communicator_->rank(), top_k, rank_tokens,
                    all_choices_, num_chunks);
}

template <typename T>
absl::Status Dispatcher::ShareTable(absl::Span<const T> own,
                                    int values_per_token,
                                    absl::Span<const int64_t> rank_tokens,
                                    absl::string_view operation,
                                    std::vector<T>& all,
                                    const StepContext& step) {
  const int64_t token_bytes = values_per_token * int64_t{sizeof(T)};
  std::vector<int64_t> offsets = {0};
  for (int64_t tokens : rank_tokens) {
    offsets.push_back(offsets.back() + tokens * token_bytes);
  }
  all.resize(offsets.back() / sizeof(T));
  std::copy(own.begin(), own.end(),
            all.begin() + offsets[communicator_->rank()] / sizeof(T));
  return AllGatherV(*communicator_, offsets, all.data(),
                    MakeOp(operation, step, nullptr));
}

absl::StatusOr<ConstTensor> Dispatcher::Dispatch(const DispatchHandle& handle,
                                                 ConstTensor x,
                                                 const StepContext& step) {
  OCTET_CHECK(x.rows() == handle.num_tokens) << x.ToString();
  // Alone, every token stays and keeps its place.
  if (communicator_->size() == 1) return x;
  return Exchange(x, handle.send_tokens, handle.send_offsets,
                  handle.recv_offsets, "dispatch", received_, step);
}

absl::Status Dispatcher::GatherExpertRows(const DispatchHandle& handle,
                                          ConstTensor received,
                                          int64_t row_begin, Tensor out,
                                          const StepContext& step) {
  OCTET_ASSIGN_OR_RETURN(const ConstTensor rows,
                         Upload(absl::MakeConstSpan(handle.expert_recv_rows)
                                    .subspan(row_begin, out.rows()),
                                expert_rows_, step));
  return ops::GatherRows(*backend_, received, rows, out, *step.stream);
}

absl::StatusOr<CombinedRows> Dispatcher::Combine(const DispatchHandle& handle,
                                                 ConstTensor expert_out,
                                                 const StepContext& step) {
  return CombineInto(handle, expert_out, returned_, step);
}

absl::StatusOr<CombinedRows> Dispatcher::CombineInto(
    const DispatchHandle& handle, ConstTensor expert_out, Scratch& rows,
    const StepContext& step) {
  OCTET_CHECK(expert_out.rows() == handle.expert_rows())
      << expert_out.ToString();
  CombinedRows combined;
  if (communicator_->size() == 1) {
    combined.rows = expert_out;
  } else {
    OCTET_ASSIGN_OR_RETURN(
        combined.rows,
        Exchange(expert_out, handle.reply_expert_rows, handle.reply_offsets,
                 handle.pair_offsets, "combine", rows, step));
  }
  OCTET_ASSIGN_OR_RETURN(combined.slot_rows, SlotRowsOf(handle, step));
  return combined;
}

absl::StatusOr<ConstTensor> Dispatcher::SlotRowsOf(const DispatchHandle& handle,
                                                   const StepContext& step) {
  const bool alone = communicator_->size() == 1;
  OCTET_ASSIGN_OR_RETURN(
      const ConstTensor slot_rows,
      Upload(alone ? handle.reply_expert_rows : handle.slot_rows, slot_rows_,
             step));
  return ConstTensor(slot_rows.data(), DType::kI32,
                     {handle.num_tokens, handle.top_k});
}

absl::StatusOr<ConstTensor> Dispatcher::ExpertRowWeights(
    const DispatchHandle& handle, ConstTensor topk_weights,
    absl::Span<const int64_t> rank_tokens, const StepContext& step) {
  own_weights_.resize(handle.pair_rows());
  OCTET_RETURN_IF_ERROR(
      backend_->CopyToHost(own_weights_.data(), topk_weights.data(),
                           topk_weights.num_bytes(), *step.stream));
  OCTET_RETURN_IF_ERROR(backend_->Synchronize(*step.stream));
  const bool alone = communicator_->size() == 1;
  if (!alone) {
    OCTET_RETURN_IF_ERROR(ShareTable<float>(own_weights_, handle.top_k,
                                            rank_tokens, "router_weights",
                                            all_weights_, step));
  }
  const std::vector<float>& all = alone ? own_weights_ : all_weights_;
  host_row_weights_.clear();
  for (int32_t pair : handle.expert_pairs) {
    host_row_weights_.push_back(all[pair]);
  }
  OCTET_ASSIGN_OR_RETURN(
      const Tensor weights,
      row_weights_.Get(DType::kF32, {handle.expert_rows()}, *step.stream));
  if (!host_row_weights_.empty()) {
    OCTET_RETURN_IF_ERROR(
        backend_->CopyToDevice(weights.data(), host_row_weights_.data(),
                               weights.num_bytes(), *step.stream));
  }
  return ConstTensor(weights);
}

absl::StatusOr<Tensor> Dispatcher::Exchange(
    ConstTensor source, absl::Span<const int32_t> source_rows,
    absl::Span<const int64_t> send_offsets,
    absl::Span<const int64_t> recv_offsets, absl::string_view operation,
    Scratch& out, const StepContext& step) {
  const int own = communicator_->rank();
  const int64_t row_bytes = source.dim(1) * SizeOf(source.dtype());
  const int64_t num_send = send_offsets.back();
  OCTET_ASSIGN_OR_RETURN(const ConstTensor rows,
                         Upload(source_rows, send_rows_, step));
  OCTET_ASSIGN_OR_RETURN(
      Tensor send,
      send_.Get(source.dtype(), {num_send, source.dim(1)}, *step.stream));
  OCTET_ASSIGN_OR_RETURN(
      Tensor recv, out.Get(source.dtype(), {recv_offsets.back(), source.dim(1)},
                           *step.stream));
  auto gather = [&](int64_t begin, int64_t end, Tensor to) -> absl::Status {
    if (begin == end) return absl::OkStatus();
    const ConstTensor part(rows.as<int32_t>() + begin, DType::kI32,
                           {end - begin});
    return ops::GatherRows(*backend_, source, part, to, *step.stream);
  };
  // Rows that stay go straight to where they would arrive.
  const int64_t own_begin = send_offsets[own], own_end = send_offsets[own + 1];
  OCTET_RETURN_IF_ERROR(gather(0, own_begin, send.Rows(0, own_begin)));
  OCTET_RETURN_IF_ERROR(gather(
      own_begin, own_end, recv.Rows(recv_offsets[own], own_end - own_begin)));
  OCTET_RETURN_IF_ERROR(
      gather(own_end, num_send, send.Rows(own_end, num_send - own_end)));

  std::vector<int64_t> send_at, send_bytes, recv_at, recv_bytes;
  PartBytes(send_offsets, row_bytes, own, send_at, send_bytes);
  PartBytes(recv_offsets, row_bytes, own, recv_at, recv_bytes);
  OCTET_RETURN_IF_ERROR(communicator_->AllToAllV(
      {send.data(), send_at, send_bytes, recv.data(), recv_at, recv_bytes},
      MakeOp(operation, step, step.stream)));
  return recv;
}

absl::StatusOr<ConstTensor> Dispatcher::Upload(absl::Span<const int32_t> values,
                                               Scratch& memory,
                                               const StepContext& step) {
  OCTET_ASSIGN_OR_RETURN(
      const Tensor device,
      memory.Get(DType::kI32, {static_cast<int64_t>(values.size())},
                 *step.stream));
  if (!values.empty()) {
    OCTET_RETURN_IF_ERROR(backend_->CopyToDevice(
        device.data(), values.data(), device.num_bytes(), *step.stream));
  }
  return ConstTensor(device);
}

int64_t Dispatcher::size_bytes() const {
  return static_cast<int64_t>(
      send_.size_bytes() + received_.size_bytes() + returned_.size_bytes() +
      send_rows_.size_bytes() + expert_rows_.size_bytes() +
      slot_rows_.size_bytes() + row_weights_.size_bytes());
}

}  // namespace octet
