#include "worker/train/parameter_exchange.h"

#include <algorithm>

#include "base/status_macros.h"
#include "kernels/training_ops.h"

namespace octet {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);
// Pieces end on multiples of this many rows, so that a backend that packs rows
// in tiles writes each tile once.
constexpr int64_t kPieceRows = 64;

}  // namespace

ParameterExchange::ParameterExchange(Backend* backend,
                                     Communicator* communicator,
                                     const ParameterSet* parameters,
                                     const ShardMap* shards,
                                     int64_t bucket_elements)
    : training_(backend->training()),
      communicator_(communicator),
      parameters_(parameters),
      shards_(shards),
      bucket_elements_(bucket_elements),
      send_(backend),
      received_(backend),
      whole_(backend) {}

absl::Status ParameterExchange::ForEach(const Optimizer& optimizer,
                                        const Wants& wants, const Use& use,
                                        int64_t step_id, Stream& stream) {
  std::vector<Piece> pieces;
  int64_t elements = 0;
  const int num_parameters = static_cast<int>(parameters_->parameters().size());
  for (int p = 0; p < num_parameters; ++p) {
    const Parameter& parameter = parameters_->parameters()[p];
    int64_t step = std::max<int64_t>(1, bucket_elements_ / parameter.cols);
    if (step > kPieceRows) step -= step % kPieceRows;
    for (int64_t row = 0; row < parameter.rows; row += step) {
      const int64_t rows = std::min(step, parameter.rows - row);
      pieces.push_back({p, row, rows});
      elements += rows * parameter.cols;
      if (elements < bucket_elements_) continue;
      OCTET_RETURN_IF_ERROR(
          Move(pieces, optimizer, wants, use, step_id, stream));
      pieces.clear();
      elements = 0;
    }
  }
  if (pieces.empty()) return absl::OkStatus();
  return Move(pieces, optimizer, wants, use, step_id, stream);
}

std::vector<ParameterExchange::Run> ParameterExchange::RunsOf(
    const Piece& piece) const {
  const int64_t cols = parameters_->parameters()[piece.parameter].cols;
  const int64_t begin = piece.row * cols;
  const int64_t end = begin + piece.num_rows * cols;
  std::vector<Run> runs;
  for (const OwnedRange& range : shards_->RangesOf(piece.parameter)) {
    const int64_t from = std::max(begin, range.begin);
    const int64_t to = std::min(end, range.end);
    if (from < to) runs.push_back({range.rank, from - begin, to - from});
  }
  return runs;
}

// This rank's own values of a run.
Tensor ParameterExchange::Owned(const Optimizer& optimizer, const Piece& piece,
                                const Run& run) const {
  const absl::Span<const OwnedRange> owned =
      shards_->OwnedBy(communicator_->rank());
  const int64_t cols = parameters_->parameters()[piece.parameter].cols;
  const int64_t begin = piece.row * cols + run.offset;
  size_t index = std::lower_bound(owned.begin(), owned.end(), piece.parameter,
                                  [](const OwnedRange& range, int parameter) {
                                    return range.parameter < parameter;
                                  }) -
                 owned.begin();
  while (owned[index].end <= begin) ++index;
  return optimizer.state(StateKind::kWeight, index)
      .Rows(begin - owned[index].begin, run.num_elements);
}

absl::Status ParameterExchange::Move(absl::Span<const Piece> pieces,
                                     const Optimizer& optimizer,
                                     const Wants& wants, const Use& use,
                                     int64_t step_id, Stream& stream) {
  const int own = communicator_->rank(), num_ranks = communicator_->size();
  std::vector<int64_t> send_bytes(num_ranks, 0), recv_bytes(num_ranks, 0);
  bool travels = false;  // on any rank
  for (const Piece& piece : pieces) {
    for (const Run& run : RunsOf(piece)) {
      for (int rank = 0; rank < num_ranks; ++rank) {
        if (rank == run.rank || !wants(rank, piece.parameter)) continue;
        travels = true;
        const int64_t bytes = run.num_elements * kFloatBytes;
        if (run.rank == own) send_bytes[rank] += bytes;
        if (rank == own) recv_bytes[run.rank] += bytes;
      }
    }
  }
  std::vector<int64_t> send_at(num_ranks), recv_at(num_ranks);
  int64_t send_end = 0, recv_end = 0;
  for (int rank = 0; rank < num_ranks; ++rank) {
    send_at[rank] = send_end;
    recv_at[rank] = recv_end;
    send_end += send_bytes[rank];
    recv_end += recv_bytes[rank];
  }
  OCTET_ASSIGN_OR_RETURN(
      const Tensor send,
      send_.Get(DType::kF32, {send_end / kFloatBytes}, stream));
  OCTET_ASSIGN_OR_RETURN(
      const Tensor received,
      received_.Get(DType::kF32, {recv_end / kFloatBytes}, stream));
  std::vector<int64_t> next = send_at;
  for (const Piece& piece : pieces) {
    for (const Run& run : RunsOf(piece)) {
      if (run.rank != own) continue;
      for (int rank = 0; rank < num_ranks; ++rank) {
        if (rank == own || !wants(rank, piece.parameter)) continue;
        OCTET_RETURN_IF_ERROR(train_ops::Cast(
            *training_, Owned(optimizer, piece, run),
            send.Rows(next[rank] / kFloatBytes, run.num_elements), stream));
        next[rank] += run.num_elements * kFloatBytes;
      }
    }
  }
  if (travels) {
    OpInfo op;
    op.operation = "gather weights";
    op.step_id = step_id;
    op.stream = &stream;
    OCTET_RETURN_IF_ERROR(
        communicator_->AllToAllV({send.data(), send_at, send_bytes,
                                  received.data(), recv_at, recv_bytes},
                                 op));
  }
  return Assemble(pieces, optimizer, wants, use, recv_at, received, stream);
}

absl::Status ParameterExchange::Assemble(absl::Span<const Piece> pieces,
                                         const Optimizer& optimizer,
                                         const Wants& wants, const Use& use,
                                         absl::Span<const int64_t> received_at,
                                         Tensor received, Stream& stream) {
  const int own = communicator_->rank();
  std::vector<int64_t> next(received_at.begin(), received_at.end());
  for (const Piece& piece : pieces) {
    if (!wants(own, piece.parameter)) continue;
    const int64_t cols = parameters_->parameters()[piece.parameter].cols;
    const std::vector<Run> runs = RunsOf(piece);
    const auto values_of = [&](const Run& run) {
      if (run.rank == own) return Owned(optimizer, piece, run);
      const Tensor part =
          received.Rows(next[run.rank] / kFloatBytes, run.num_elements);
      next[run.rank] += run.num_elements * kFloatBytes;
      return part;
    };
    Tensor whole;
    if (runs.size() == 1) {
      whole = values_of(runs[0]);
    } else {
      OCTET_ASSIGN_OR_RETURN(
          whole, whole_.Get(DType::kF32, {piece.num_rows * cols}, stream));
      for (const Run& run : runs) {
        OCTET_RETURN_IF_ERROR(
            train_ops::Cast(*training_, values_of(run),
                            whole.Rows(run.offset, run.num_elements), stream));
      }
    }
    OCTET_RETURN_IF_ERROR(
        use(piece.parameter, piece.row,
            ConstTensor(whole.data(), DType::kF32, {piece.num_rows, cols})));
  }
  return absl::OkStatus();
}

}  // namespace octet
