#include "worker/train/gradient_store.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "kernels/training_ops.h"

namespace octet {
namespace {

// A leaf is summed in its own memory: the rows of a slot may come in several
// calls, and the embedding's are added one by one.
bool ComesInPieces(WeightKind kind) {
  return kind == WeightKind::kLmHead || kind == WeightKind::kFinalNorm ||
         kind == WeightKind::kEmbedding;
}

}  // namespace

absl::Status AddNode(TrainingBackend& training, const PooledBuffer& left,
                     const PooledBuffer& right, Stream& stream) {
  return train_ops::AddScaled(training, right.view(), 1.0f, left.view(),
                              stream);
}

GradientStore::GradientStore(Backend* backend, const ParameterSet* parameters,
                             const Placement* placement, int rank,
                             BufferPool* pool)
    : backend_(backend),
      training_(backend->training()),
      parameters_(parameters),
      placement_(placement),
      rank_(rank),
      pool_(pool),
      trees_(parameters->sources().size()),
      product_(backend) {
  OCTET_CHECK(training_ != nullptr) << "the backend cannot train";
}

void GradientStore::Begin(const SlotPlan& plan) {
  Clear();
  plan_ = plan;
  const int64_t first = plan.first_slot;
  dense_covered_ = SlotRanges();
  dense_covered_.Add(first + plan.rank_begin[rank_],
                     first + plan.rank_begin[rank_ + 1]);
  expert_covered_.assign(placement_->num_experts(), SlotRanges());
  for (int expert : placement_->LocalExperts(rank_)) {
    for (int source = 0; source < placement_->num_ranks(); ++source) {
      if (placement_->RankFor(expert, source) != rank_) continue;
      expert_covered_[expert].Add(first + plan.rank_begin[source],
                                  first + plan.rank_begin[source + 1]);
    }
  }
}

void GradientStore::Clear() {
  for (GradientTree& tree : trees_) tree.Clear();
}

bool GradientStore::Wants(const WeightId& id) const {
  return parameters_->FindSource(id) >= 0;
}

absl::Status GradientStore::Finish(Stream& stream) {
  for (size_t i = 0; i < trees_.size(); ++i) {
    OCTET_RETURN_IF_ERROR(
        Settle(static_cast<int>(i), plan_.end_slot(), stream));
  }
  return absl::OkStatus();
}

absl::Status GradientStore::Settle(int source, int64_t end_slot,
                                   Stream& stream) {
  const int expert = parameters_->sources()[source].weight.expert_id;
  const SlotRanges& covered =
      expert < 0 ? dense_covered_ : expert_covered_[expert];
  return trees_[source].Settle(
      [&](const SlotBlock& block) {
        return block.end() <= end_slot &&
               covered.Contains(block.begin(), block.end());
      },
      [&](PooledBuffer& left, PooledBuffer&& right) {
        return AddNode(*training_, left, right, stream);
      });
}

absl::Status GradientStore::AddLeaf(int source, int64_t slot, const Fill& fill,
                                    Stream& stream) {
  const WeightKind kind = parameters_->sources()[source].weight.kind;
  GradientTree& tree = trees_[source];
  const SlotBlock leaf = {0, slot};
  if (!tree.empty() && tree.nodes().back().block.end() > leaf.begin()) {
    if (ComesInPieces(kind) && tree.nodes().back().block == leaf) {
      return fill(tree.nodes().back().value, /*accumulate=*/true);
    }
    return absl::InternalError(absl::StrCat(
        "gradient of weight kind ", static_cast<int>(kind), " came for slot ",
        slot, " after that of a later slot or the same"));
  }
  OCTET_RETURN_IF_ERROR(Settle(source, leaf.begin(), stream));
  if (!ComesInPieces(kind) && !tree.empty() && leaf.index % 2 == 1 &&
      tree.nodes().back().block == SlotBlock{0, leaf.index - 1}) {
    // The left sibling waits: the sum needs no buffer of its own.
    OCTET_RETURN_IF_ERROR(fill(tree.nodes().back().value, /*accumulate=*/true));
    tree.nodes().back().block = leaf.parent();
    return absl::OkStatus();
  }
  OCTET_ASSIGN_OR_RETURN(
      PooledBuffer node,
      pool_->Get(parameters_->sources()[source].num_elements));
  OCTET_RETURN_IF_ERROR(fill(node, /*accumulate=*/false));
  tree.Add(leaf, std::move(node));
  return absl::OkStatus();
}

absl::Status GradientStore::FillProduct(const GradientSource& source,
                                        ConstTensor x, ConstTensor dy,
                                        float scale, const PooledBuffer& node,
                                        bool accumulate, Stream& stream) {
  if (source.whole) {
    return train_ops::GemmBackwardWeight(
        *training_, x, dy, scale, accumulate,
        node.Matrix(0, source.rows, source.cols), stream);
  }
  OCTET_ASSIGN_OR_RETURN(
      const Tensor product,
      product_.Get(DType::kF32, {source.rows, source.cols}, stream));
  OCTET_RETURN_IF_ERROR(train_ops::GemmBackwardWeight(
      *training_, x, dy, scale, /*accumulate=*/false, product, stream));
  for (const GradientSource::Part& part : source.parts) {
    const Parameter& parameter = parameters_->parameters()[part.parameter];
    OCTET_RETURN_IF_ERROR(train_ops::CopyBlock(
        *training_, product, {parameter.row_begin, parameter.col_begin},
        node.Matrix(part.offset, parameter.rows, parameter.cols), {0, 0},
        parameter.rows, parameter.cols, accumulate, stream));
  }
  return absl::OkStatus();
}

absl::Status GradientStore::AddProduct(const WeightId& id, ConstTensor x,
                                       ConstTensor dy, float scale,
                                       absl::Span<const SlotRows> slots,
                                       Stream& stream) {
  // A tied head's products come in the embedding's name, before the embedding's
  // own part: they are a tree of their own.
  const int index = parameters_->FindSource(
      id.kind == WeightKind::kEmbedding ? WeightId{WeightKind::kLmHead} : id);
  OCTET_CHECK(index >= 0) << "gradient of a frozen weight";
  const GradientSource& source = parameters_->sources()[index];
  for (const SlotRows& rows : slots) {
    const int64_t count = rows.end - rows.begin;
    if (count == 0) continue;
    OCTET_RETURN_IF_ERROR(AddLeaf(
        index, rows.slot,
        [&](const PooledBuffer& node, bool accumulate) {
          return FillProduct(source, x.Rows(rows.begin, count),
                             dy.Rows(rows.begin, count), scale, node,
                             accumulate, stream);
        },
        stream));
  }
  return absl::OkStatus();
}

absl::Status GradientStore::AddNorm(const WeightId& id, ConstTensor x,
                                    float eps, ConstTensor dy,
                                    absl::Span<const SlotRows> slots,
                                    Stream& stream) {
  const int index = parameters_->FindSource(id);
  OCTET_CHECK(index >= 0) << "gradient of a frozen norm";
  for (const SlotRows& rows : slots) {
    const int64_t count = rows.end - rows.begin;
    if (count == 0) continue;
    OCTET_RETURN_IF_ERROR(AddLeaf(
        index, rows.slot,
        [&](const PooledBuffer& node, bool accumulate) -> absl::Status {
          const ConstTensor x_rows = x.Rows(rows.begin, count);
          const ConstTensor dy_rows = dy.Rows(rows.begin, count);
          if (!accumulate) {
            return train_ops::RmsNormBackwardWeight(
                *training_, x_rows, eps, dy_rows, false, node.view(), stream);
          }
          // A leaf is summed by itself before it is added.
          OCTET_ASSIGN_OR_RETURN(const PooledBuffer leaf,
                                 pool_->Get(node.num_elements()));
          OCTET_RETURN_IF_ERROR(train_ops::RmsNormBackwardWeight(
              *training_, x_rows, eps, dy_rows, false, leaf.view(), stream));
          return AddNode(*training_, node, leaf, stream);
        },
        stream));
  }
  return absl::OkStatus();
}

absl::Status GradientStore::AddEmbedding(ConstTensor dx, ConstTensor ids,
                                         absl::Span<const SlotRows> slots,
                                         Stream& stream) {
  const int index = parameters_->FindSource({WeightKind::kEmbedding});
  OCTET_CHECK(index >= 0) << "gradient of a frozen embedding";
  const GradientSource& source = parameters_->sources()[index];
  for (const SlotRows& rows : slots) {
    const int64_t count = rows.end - rows.begin;
    if (count == 0) continue;
    OCTET_RETURN_IF_ERROR(AddLeaf(
        index, rows.slot,
        [&](const PooledBuffer& node, bool accumulate) -> absl::Status {
          const Tensor table = node.Matrix(0, source.rows, source.cols);
          if (!accumulate) {
            OCTET_RETURN_IF_ERROR(
                backend_->Zero(table.data(), table.num_bytes(), stream));
          }
          return train_ops::EmbeddingBackward(
              *training_, dx.Rows(rows.begin, count),
              ids.Rows(rows.begin, count), table, stream);
        },
        stream));
  }
  return absl::OkStatus();
}

}  // namespace octet
