#include "tests/worker/moe/moe_case.h"

#include <memory>

#include "absl/types/span.h"
#include "base/status_macros.h"
#include "tests/reference/reference_ops.h"
#include "worker/moe/moe_layer.h"

namespace octet::test {
namespace {

std::vector<float> Exact(std::vector<float> values) {
  for (float& value : values) value = ToFloat(octet::ToBF16(value));
  return values;
}

absl::StatusOr<std::unique_ptr<PackedMatrix>> Pack(
    Backend& backend, DType dtype, int64_t n, const std::vector<float>& rows) {
  const int64_t k = static_cast<int64_t>(rows.size()) / n;
  OCTET_ASSIGN_OR_RETURN(auto matrix, backend.NewPackedMatrix(dtype, n, k));
  OCTET_RETURN_IF_ERROR(backend.PackRows(
      *matrix, 0, ConstTensor(rows.data(), DType::kF32, {n, k})));
  return matrix;
}

struct Weights {
  std::vector<std::unique_ptr<PackedMatrix>> owned;
  MoeWeights views;
};

absl::StatusOr<Weights> PackWeights(Backend& backend, const MoeJob& job,
                                    const MoeCase& moe,
                                    absl::Span<const int> experts) {
  Weights weights;
  const auto pack = [&](int64_t n, const std::vector<float>& rows)
      -> absl::StatusOr<const PackedMatrix*> {
    OCTET_ASSIGN_OR_RETURN(weights.owned.emplace_back(),
                           Pack(backend, job.dtype, n, rows));
    return weights.owned.back().get();
  };
  MoeWeights& views = weights.views;
  OCTET_ASSIGN_OR_RETURN(views.gate.w, pack(kMoeExperts, moe.gate));
  for (const int e : experts) {
    OCTET_ASSIGN_OR_RETURN(views.w13.w.emplace_back(),
                           pack(2 * kMoeFfn, moe.w13[e]));
    OCTET_ASSIGN_OR_RETURN(views.w2.w.emplace_back(),
                           pack(kMoeHidden, moe.w2[e]));
  }
  return weights;
}

MoeShape ShapeOf(const MoeJob& job) {
  MoeShape shape;
  shape.num_layers = 1;
  shape.num_experts = kMoeExperts;
  shape.top_k = job.top_k;
  shape.hidden_dim = kMoeHidden;
  shape.ffn_dim = kMoeFfn;
  shape.dtype = job.dtype;
  shape.max_expert_rows = job.max_expert_rows;
  shape.max_chunks = job.max_chunks;
  shape.min_chunk_tokens = 2;
  return shape;
}

}  // namespace

MoeCase MakeMoeCase(uint64_t seed, int64_t num_tokens) {
  Random random(seed);
  MoeCase moe;
  moe.gate = Exact(random.Floats(kMoeExperts * kMoeHidden, 0.5f));
  for (int e = 0; e < kMoeExperts; ++e) {
    moe.w13.push_back(Exact(random.Floats(2 * kMoeFfn * kMoeHidden, 0.2f)));
    moe.w2.push_back(Exact(random.Floats(kMoeHidden * kMoeFfn, 0.2f)));
  }
  moe.x = Exact(random.Floats(num_tokens * kMoeHidden));
  moe.residual = random.Floats(num_tokens * kMoeHidden);
  return moe;
}

Values MoeReference(const MoeCase& moe, int top_k, DType dtype) {
  const auto rounded = [&](Values values) {
    for (double& value : values) {
      if (dtype == DType::kBF16) value = RoundToBF16(value);
    }
    return values;
  };
  Values out = ToValues(moe.residual);
  for (size_t t = 0; t < moe.x.size() / kMoeHidden; ++t) {
    const Values row = ToValues(
        absl::MakeConstSpan(moe.x).subspan(t * kMoeHidden, kMoeHidden));
    const Values logits = MatMul(row, ToValues(moe.gate), kMoeHidden);
    const Routing routing = Route(logits, top_k);
    for (int k = 0; k < top_k; ++k) {
      const Values w13 = ToValues(moe.w13[routing.ids[k]]);
      const size_t half = kMoeFfn * kMoeHidden;
      const Values mid =
          rounded(SwiGlu(row, Values(w13.begin(), w13.begin() + half),
                         Values(w13.begin() + half, w13.end()), kMoeHidden));
      const Values expert =
          rounded(MatMul(mid, ToValues(moe.w2[routing.ids[k]]), kMoeFfn));
      for (int64_t h = 0; h < kMoeHidden; ++h) {
        out[t * kMoeHidden + h] += routing.weights[k] * expert[h];
      }
    }
  }
  return out;
}

absl::Status RunMoeRank(const MoeJob& job, const MoeCase& moe,
                        const Placement& placement, Backend& backend,
                        Communicator& communicator, std::vector<float>& out) {
  const int rank = communicator.rank();
  OCTET_ASSIGN_OR_RETURN(const auto stream, backend.NewStream());
  OCTET_ASSIGN_OR_RETURN(
      const Weights weights,
      PackWeights(backend, job, moe, placement.LocalExperts(rank)));
  MoeLayer layer(&backend, &communicator, &placement, ShapeOf(job));

  const int64_t tokens = job.rank_tokens[rank];
  int64_t first = 0;
  for (int r = 0; r < rank; ++r) first += job.rank_tokens[r] * kMoeHidden;
  const int64_t count = tokens * kMoeHidden;
  const std::vector<BF16> narrow =
      ToBF16(absl::MakeConstSpan(moe.x).subspan(first, count));
  const void* rows = job.dtype == DType::kF32
                         ? static_cast<const void*>(moe.x.data() + first)
                         : narrow.data();
  OCTET_ASSIGN_OR_RETURN(const auto x_memory, backend.Allocate(count * 4 + 1));
  OCTET_ASSIGN_OR_RETURN(const auto out_memory,
                         backend.Allocate(count * 4 + 1));
  const Tensor x(x_memory->data(), job.dtype, {tokens, kMoeHidden});
  const Tensor residual(out_memory->data(), DType::kF32, {tokens, kMoeHidden});
  MoeSeconds seconds;
  for (int call = 0; call < job.num_calls; ++call) {
    if (count > 0) {
      OCTET_RETURN_IF_ERROR(
          backend.CopyToDevice(x.data(), rows, x.num_bytes(), *stream));
      OCTET_RETURN_IF_ERROR(
          backend.CopyToDevice(residual.data(), moe.residual.data() + first,
                               residual.num_bytes(), *stream));
    }
    OCTET_RETURN_IF_ERROR(layer.Forward(weights.views, x, job.rank_tokens,
                                        residual, {call, 0, stream.get()},
                                        &seconds));
    if (count > 0) {
      OCTET_RETURN_IF_ERROR(backend.CopyToHost(
          out.data() + first, residual.data(), residual.num_bytes(), *stream));
    }
    OCTET_RETURN_IF_ERROR(backend.Synchronize(*stream));
  }
  return absl::OkStatus();
}

}  // namespace octet::test
