#include "tests/worker/train/scripted_pass.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "base/status_macros.h"
#include "kernels/dtype.h"
#include "kernels/philox.h"

namespace octet::test {
namespace {

constexpr float kEps = 1e-5f;
constexpr float kScale = 0.5f;

uint64_t KeyOf(const WeightId& id, uint64_t seed, bool is_dy) {
  return ((((seed * 16 + static_cast<uint64_t>(id.kind)) * 64 + id.layer + 1) *
               64 +
           id.expert_id + 1) *
              4 +
          static_cast<uint64_t>(id.part)) *
             2 +
         is_dy;
}

float Value(uint64_t key, int64_t slot, int64_t row, int64_t col, DType dtype) {
  const double uniform = UniformAt(key, (slot * 64 + row) * 65536 + col);
  const float value = static_cast<float>(uniform - 0.5);
  return dtype == DType::kBF16 ? ToFloat(ToBF16(value)) : value;
}

// Rows of the slots, one after the other, in device memory.
struct Activations {
  std::unique_ptr<Buffer> buffer;
  Tensor view;
};

absl::StatusOr<Activations> Make(Backend& backend, uint64_t key,
                                 const std::vector<SlotRows>& slots,
                                 int64_t cols, DType dtype, Stream& stream) {
  const int64_t rows = slots.empty() ? 0 : slots.back().end;
  std::vector<float> values;
  std::vector<BF16> rounded;
  for (const SlotRows& slot : slots) {
    for (int64_t row = slot.begin; row < slot.end; ++row) {
      for (int64_t col = 0; col < cols; ++col) {
        values.push_back(Value(key, slot.slot, row - slot.begin, col, dtype));
        rounded.push_back(ToBF16(values.back()));
      }
    }
  }
  Activations out;
  const size_t bytes = values.size() * SizeOf(dtype);
  OCTET_ASSIGN_OR_RETURN(out.buffer, backend.Allocate(bytes));
  out.view = Tensor(out.buffer->data(), dtype, {rows, cols});
  const void* from = dtype == DType::kF32
                         ? static_cast<const void*>(values.data())
                         : rounded.data();
  OCTET_RETURN_IF_ERROR(
      backend.CopyToDevice(out.view.data(), from, bytes, stream));
  return out;
}

// A token comes several times in a slot, and again in the next.
int32_t TokenId(int64_t slot, int64_t row, int64_t vocab) {
  return static_cast<int32_t>((slot / 2 * 31 + row / 3) % vocab);
}

bool IsNorm(WeightKind kind) {
  return kind == WeightKind::kInputNorm ||
         kind == WeightKind::kPostAttentionNorm ||
         kind == WeightKind::kFinalNorm;
}

absl::Status FillEmbedding(Backend& backend, const GradientSource& source,
                           const std::vector<SlotRows>& slots, uint64_t seed,
                           GradientSink& sink, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(const Activations dx,
                         Make(backend, KeyOf(source.weight, seed, true), slots,
                              source.cols, DType::kF32, stream));
  std::vector<int32_t> ids;
  for (const SlotRows& slot : slots) {
    for (int64_t row = 0; row < slot.end - slot.begin; ++row) {
      ids.push_back(TokenId(slot.slot, row, source.rows));
    }
  }
  OCTET_ASSIGN_OR_RETURN(const std::unique_ptr<Buffer> buffer,
                         backend.Allocate(ids.size() * sizeof(int32_t)));
  OCTET_RETURN_IF_ERROR(backend.CopyToDevice(
      buffer->data(), ids.data(), ids.size() * sizeof(int32_t), stream));
  return sink.AddEmbedding(dx.view,
                           ConstTensor(buffer->data(), DType::kI32,
                                       {static_cast<int64_t>(ids.size())}),
                           slots, stream);
}

// The head gives two rows of a slot at a time.
absl::Status FillHead(const WeightId& id, ConstTensor x, ConstTensor dy,
                      const std::vector<SlotRows>& slots, GradientSink& sink,
                      Stream& stream) {
  for (const SlotRows& slot : slots) {
    for (int64_t row = slot.begin; row < slot.end; row += 2) {
      const int64_t rows = std::min<int64_t>(2, slot.end - row);
      const SlotRows part = {slot.slot, 0, rows};
      OCTET_RETURN_IF_ERROR(sink.AddProduct(id, x.Rows(row, rows),
                                            dy.Rows(row, rows), kScale,
                                            {&part, 1}, stream));
    }
  }
  return absl::OkStatus();
}

absl::Status FillSource(Backend& backend, const GradientSource& source,
                        const std::vector<SlotRows>& slots, uint64_t seed,
                        DType dtype, GradientSink& sink, Stream& stream) {
  const WeightId& id = source.weight;
  if (id.kind == WeightKind::kEmbedding) {
    return FillEmbedding(backend, source, slots, seed, sink, stream);
  }
  const bool norm = IsNorm(id.kind);
  const DType activation = norm ? DType::kF32 : dtype;
  OCTET_ASSIGN_OR_RETURN(const Activations x,
                         Make(backend, KeyOf(id, seed, false), slots,
                              source.cols, activation, stream));
  OCTET_ASSIGN_OR_RETURN(
      const Activations dy,
      Make(backend, KeyOf(id, seed, true), slots,
           norm ? source.cols : source.rows, activation, stream));
  if (norm) return sink.AddNorm(id, x.view, kEps, dy.view, slots, stream);
  if (id.kind == WeightKind::kLmHead) {
    return FillHead(id, x.view, dy.view, slots, sink, stream);
  }
  return sink.AddProduct(id, x.view, dy.view, kScale, slots, stream);
}

}  // namespace

int64_t RowsOf(const WeightId& id, int64_t slot) {
  if (id.expert_id >= 0) {
    return (slot * 5 + id.expert_id * 3 + id.layer) % 7 % 4;
  }
  if (id.kind == WeightKind::kLmHead && slot % 5 == 4) return 0;
  return 3 + slot % 3;
}

absl::Status FillSink(Backend& backend, const ParameterSet& parameters,
                      const Placement& placement, int rank,
                      const SlotPlan& plan, uint64_t seed, DType dtype,
                      GradientSink& sink, Stream& stream) {
  for (const GradientSource& source : parameters.sources()) {
    const int expert = source.weight.expert_id;
    std::vector<SlotRows> slots;
    int64_t row = 0;
    for (int from = 0; from < placement.num_ranks(); ++from) {
      const bool here =
          expert < 0 ? from == rank : placement.RankFor(expert, from) == rank;
      if (!here) continue;
      for (int64_t s = plan.rank_begin[from]; s < plan.rank_begin[from + 1];
           ++s) {
        const int64_t slot = plan.first_slot + s;
        const int64_t rows = RowsOf(source.weight, slot);
        slots.push_back({slot, row, row + rows});
        row += rows;
      }
    }
    if (slots.empty()) continue;
    OCTET_RETURN_IF_ERROR(
        FillSource(backend, source, slots, seed, dtype, sink, stream));
  }
  return absl::OkStatus();
}

namespace {

// [rows, cols] of the source's weight.
std::vector<double> ReferenceOfSource(const GradientSource& source,
                                      int64_t num_slots, uint64_t seed,
                                      DType dtype) {
  const WeightId& id = source.weight;
  const int64_t rows = source.rows, cols = source.cols;
  std::vector<double> out(rows * cols, 0.0);
  const uint64_t x_key = KeyOf(id, seed, false), dy_key = KeyOf(id, seed, true);
  for (int64_t slot = 0; slot < num_slots; ++slot) {
    for (int64_t t = 0; t < RowsOf(id, slot); ++t) {
      if (id.kind == WeightKind::kEmbedding) {
        const int64_t to = TokenId(slot, t, rows) * cols;
        for (int64_t j = 0; j < cols; ++j) {
          out[to + j] += Value(dy_key, slot, t, j, DType::kF32);
        }
        continue;
      }
      if (IsNorm(id.kind)) {
        double squares = 0;
        for (int64_t j = 0; j < cols; ++j) {
          squares += std::pow(Value(x_key, slot, t, j, DType::kF32), 2);
        }
        const double r = 1 / std::sqrt(squares / cols + kEps);
        for (int64_t j = 0; j < cols; ++j) {
          out[j] += Value(x_key, slot, t, j, DType::kF32) * r *
                    Value(dy_key, slot, t, j, DType::kF32);
        }
        continue;
      }
      for (int64_t i = 0; i < rows; ++i) {
        const double dy = kScale * Value(dy_key, slot, t, i, dtype);
        for (int64_t j = 0; j < cols; ++j) {
          out[i * cols + j] += dy * Value(x_key, slot, t, j, dtype);
        }
      }
    }
  }
  return out;
}

}  // namespace

std::map<std::string, std::vector<double>> ReferenceGradients(
    const ParameterSet& parameters, int64_t num_slots, uint64_t seed,
    DType dtype) {
  std::map<std::string, std::vector<double>> out;
  for (const GradientSource& source : parameters.sources()) {
    const std::vector<double> whole =
        ReferenceOfSource(source, num_slots, seed, dtype);
    for (const GradientSource::Part& part : source.parts) {
      const Parameter& parameter = parameters.parameters()[part.parameter];
      std::vector<double>& sum = out[parameter.name];
      sum.resize(parameter.num_elements(), 0.0);
      for (int64_t i = 0; i < parameter.rows; ++i) {
        for (int64_t j = 0; j < parameter.cols; ++j) {
          sum[i * parameter.cols + j] +=
              whole[(parameter.row_begin + i) * source.cols +
                    parameter.col_begin + j];
        }
      }
    }
  }
  return out;
}

}  // namespace octet::test
