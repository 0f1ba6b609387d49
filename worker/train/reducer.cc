#include "worker/train/reducer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "kernels/training_ops.h"

namespace octet {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);

OpInfo ReduceOpInfo(int64_t step_id, Stream* stream) {
  OpInfo op;
  op.operation = "reduce";
  op.step_id = step_id;
  op.stream = stream;
  return op;
}

}  // namespace

GradientReducer::GradientReducer(Backend* backend, Communicator* communicator,
                                 const ParameterSet* parameters,
                                 const ShardMap* shards, BufferPool* pool,
                                 int64_t bucket_elements)
    : training_(backend->training()),
      communicator_(communicator),
      parameters_(parameters),
      shards_(shards),
      pool_(pool),
      bucket_elements_(bucket_elements),
      trees_(parameters->sources().size()),
      send_(backend),
      received_(backend) {}

GradientReducer::Share GradientReducer::ShareOf(int source, int rank) const {
  Share share;
  for (const GradientSource::Part& part :
       parameters_->sources()[source].parts) {
    for (const OwnedRange& range : shards_->RangesOf(part.parameter)) {
      if (range.rank != rank) continue;
      share.num_elements += range.num_elements();
      const int64_t offset = part.offset + range.begin;
      if (!share.pieces.empty() &&
          share.pieces.back().offset + share.pieces.back().num_elements ==
              offset) {
        share.pieces.back().num_elements += range.num_elements();
      } else {
        share.pieces.push_back({offset, range.num_elements()});
      }
    }
  }
  return share;
}

bool GradientReducer::Shared(int source) const {
  const int parameter = parameters_->sources()[source].parts.front().parameter;
  return shards_->HoldersOf(parameter).size() > 1;
}

absl::Status GradientReducer::Settle(int source, int64_t end_slot,
                                     Stream& stream) {
  return trees_[source].Settle(
      [&](const SlotBlock& block) { return block.end() <= end_slot; },
      [&](PooledBuffer& left, PooledBuffer&& right) {
        return AddNode(*training_, left, right, stream);
      });
}

absl::Status GradientReducer::Reduce(GradientStore& store, const SlotPlan& plan,
                                     int64_t step_id, Stream& stream) {
  sums_.clear();
  end_slot_ = plan.end_slot();
  OCTET_ASSIGN_OR_RETURN(const BlockLists blocks,
                         ExchangeBlocks(store, step_id));
  std::vector<Unit> bucket;
  int64_t elements = 0;
  for (int source = 0; source < static_cast<int>(trees_.size()); ++source) {
    if (!Shared(source)) {
      // Held by one rank, which owns it: nodes go from tree to tree.
      for (GradientTree::Node& node : store.tree(source).nodes()) {
        trees_[source].Add(node.block, std::move(node.value));
      }
      store.tree(source).Clear();
      OCTET_RETURN_IF_ERROR(Settle(source, end_slot_, stream));
      continue;
    }
    size_t num_nodes = 0;
    for (const auto& of_rank : blocks) {
      num_nodes = std::max(num_nodes, of_rank[source].size());
    }
    for (size_t i = 0; i < num_nodes; ++i) {
      bucket.push_back({source, i, i + 1 == num_nodes});
      elements += parameters_->sources()[source].num_elements;
      if (elements < bucket_elements_) continue;
      OCTET_RETURN_IF_ERROR(MoveBucket(bucket, blocks, store, step_id, stream));
      bucket.clear();
      elements = 0;
    }
  }
  if (!bucket.empty()) {
    OCTET_RETURN_IF_ERROR(MoveBucket(bucket, blocks, store, step_id, stream));
  }
  store.Clear();
  return absl::OkStatus();
}

// Which nodes each rank has is known to it alone: routing and labels decide.
absl::StatusOr<GradientReducer::BlockLists> GradientReducer::ExchangeBlocks(
    GradientStore& store, int64_t step_id) {
  const int num_ranks = communicator_->size();
  BlockLists out(num_ranks, std::vector<std::vector<SlotBlock>>(trees_.size()));
  std::vector<int64_t> own;
  for (size_t source = 0; source < trees_.size(); ++source) {
    if (!Shared(static_cast<int>(source))) continue;
    const auto& nodes = store.tree(static_cast<int>(source)).nodes();
    own.push_back(static_cast<int64_t>(nodes.size()));
    for (const GradientTree::Node& node : nodes) {
      own.push_back(node.block.level);
      own.push_back(node.block.index);
    }
  }
  if (num_ranks == 1) return out;
  int64_t longest = static_cast<int64_t>(own.size());
  const OpInfo op = ReduceOpInfo(step_id, nullptr);
  OCTET_RETURN_IF_ERROR(communicator_->AllReduceI64(absl::MakeSpan(&longest, 1),
                                                    ReduceOp::kMax, op));
  own.resize(longest);
  std::vector<int64_t> all(longest * num_ranks);
  OCTET_RETURN_IF_ERROR(communicator_->AllGather(
      own.data(), all.data(), longest * int64_t{sizeof(int64_t)}, op));
  for (int rank = 0; rank < num_ranks; ++rank) {
    const int64_t* next = all.data() + rank * longest;
    const int64_t* end = next + longest;
    for (size_t source = 0; source < trees_.size(); ++source) {
      if (!Shared(static_cast<int>(source))) continue;
      const int64_t count = *next++;
      if (count < 0 || count > (end - next) / 2) {
        return absl::InternalError(
            absl::StrCat("rank ", rank, " announced ", count,
                         " gradient nodes, more than its list can hold"));
      }
      for (int64_t i = 0; i < count; ++i, next += 2) {
        out[rank][source].push_back({static_cast<int>(next[0]), next[1]});
      }
    }
  }
  return out;
}

absl::Status GradientReducer::MoveBucket(absl::Span<const Unit> units,
                                         const BlockLists& blocks,
                                         GradientStore& store, int64_t step_id,
                                         Stream& stream) {
  const int own = communicator_->rank(), num_ranks = communicator_->size();
  // Elements to and from each rank; what is owned here does not travel.
  std::vector<int64_t> send_bytes(num_ranks, 0), recv_bytes(num_ranks, 0);
  for (const Unit& unit : units) {
    const int64_t own_share = ShareOf(unit.source, own).num_elements;
    for (int rank = 0; rank < num_ranks; ++rank) {
      if (rank == own) continue;
      if (unit.ordinal < blocks[own][unit.source].size()) {
        send_bytes[rank] +=
            ShareOf(unit.source, rank).num_elements * kFloatBytes;
      }
      if (unit.ordinal < blocks[rank][unit.source].size()) {
        recv_bytes[rank] += own_share * kFloatBytes;
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
  OCTET_RETURN_IF_ERROR(Pack(units, blocks, store, send_at, send, stream));
  OCTET_RETURN_IF_ERROR(communicator_->AllToAllV(
      {send.data(), send_at, send_bytes, received.data(), recv_at, recv_bytes},
      ReduceOpInfo(step_id, &stream)));
  return Unpack(units, blocks, recv_at, received, stream);
}

absl::Status GradientReducer::Pack(absl::Span<const Unit> units,
                                   const BlockLists& blocks,
                                   GradientStore& store,
                                   absl::Span<const int64_t> offsets,
                                   Tensor send, Stream& stream) {
  const int own = communicator_->rank(), num_ranks = communicator_->size();
  std::vector<int64_t> next(offsets.begin(), offsets.end());
  for (const Unit& unit : units) {
    if (unit.ordinal >= blocks[own][unit.source].size()) continue;
    GradientTree::Node& node = store.tree(unit.source).nodes()[unit.ordinal];
    const PooledBuffer value = std::move(node.value);
    for (int rank = 0; rank < num_ranks; ++rank) {
      const Share share = ShareOf(unit.source, rank);
      if (share.num_elements == 0) continue;
      if (rank != own) {
        OCTET_RETURN_IF_ERROR(CopyShare(
            share, value.view(),
            send.Rows(next[rank] / kFloatBytes, share.num_elements), stream));
        next[rank] += share.num_elements * kFloatBytes;
        continue;
      }
      OCTET_ASSIGN_OR_RETURN(PooledBuffer kept, pool_->Get(share.num_elements));
      OCTET_RETURN_IF_ERROR(
          CopyShare(share, value.view(), kept.view(), stream));
      trees_[unit.source].Add(node.block, std::move(kept));
    }
  }
  return absl::OkStatus();
}

absl::Status GradientReducer::Unpack(absl::Span<const Unit> units,
                                     const BlockLists& blocks,
                                     absl::Span<const int64_t> offsets,
                                     Tensor received, Stream& stream) {
  const int own = communicator_->rank(), num_ranks = communicator_->size();
  std::vector<int64_t> next(offsets.begin(), offsets.end());
  for (const Unit& unit : units) {
    const int64_t share = ShareOf(unit.source, own).num_elements;
    for (int rank = 0; rank < num_ranks && share > 0; ++rank) {
      if (rank == own || unit.ordinal >= blocks[rank][unit.source].size()) {
        continue;
      }
      OCTET_ASSIGN_OR_RETURN(PooledBuffer node, pool_->Get(share));
      OCTET_RETURN_IF_ERROR(train_ops::Cast(
          *training_, received.Rows(next[rank] / kFloatBytes, share),
          node.view(), stream));
      next[rank] += share * kFloatBytes;
      trees_[unit.source].Add(blocks[rank][unit.source][unit.ordinal],
                              std::move(node));
    }
    // All of the source has come.
    if (unit.last) {
      OCTET_RETURN_IF_ERROR(Settle(unit.source, end_slot_, stream));
    }
  }
  return absl::OkStatus();
}

absl::Status GradientReducer::CopyShare(const Share& share, ConstTensor node,
                                        Tensor out, Stream& stream) {
  int64_t at = 0;
  for (const Piece& piece : share.pieces) {
    OCTET_RETURN_IF_ERROR(
        train_ops::Cast(*training_, node.Rows(piece.offset, piece.num_elements),
                        out.Rows(at, piece.num_elements), stream));
    at += piece.num_elements;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<ConstTensor>> GradientReducer::Sum(Stream& stream) {
  const int own = communicator_->rank();
  const absl::Span<const OwnedRange> ranges = shards_->OwnedBy(own);
  std::vector<Tensor> out(ranges.size());
  const auto merge = [&](PooledBuffer& left, PooledBuffer&& right) {
    return AddNode(*training_, left, right, stream);
  };
  sums_.resize(trees_.size());
  for (size_t source = 0; source < trees_.size(); ++source) {
    if (trees_[source].empty()) continue;
    OCTET_ASSIGN_OR_RETURN(sums_[source], trees_[source].Fold(merge));
    int64_t at = 0;
    for (const GradientSource::Part& part :
         parameters_->sources()[source].parts) {
      for (auto range = std::lower_bound(
               ranges.begin(), ranges.end(), part.parameter,
               [](const OwnedRange&r, int p) { return r.parameter < p; });
           range != ranges.end() && range->parameter == part.parameter;
           ++range) {
        const Tensor sum = sums_[source].Vector(at, range->num_elements());
        at += range->num_elements();
        Tensor& gradient = out[range - ranges.begin()];
        if (gradient.data() == nullptr) {
          gradient = sum;
          continue;
        }
        // A tied head after the embedding: embedding + head.
        OCTET_RETURN_IF_ERROR(
            train_ops::AddScaled(*training_, sum, 1.0f, gradient, stream));
      }
    }
  }
  return std::vector<ConstTensor>(out.begin(), out.end());
}

void GradientReducer::Clear() {
  for (GradientTree& tree : trees_) tree.Clear();
  sums_.clear();
  end_slot_ = 0;
}

}  // namespace octet
