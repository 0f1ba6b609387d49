#include "kernels/cpu/permute.h"

#include <cstring>
#include <vector>

#include "base/status_macros.h"

namespace octet::cpu {
namespace {

template <typename Element>  // float or uint16_t (bf16)
void CombineAs(void (*combine)(const Element* const*, const float*, int,
                               int64_t, float*),
               CpuContext& context, ConstTensor rows, ConstTensor slot_rows,
               ConstTensor weights, Tensor out) {
  const int64_t hidden = out.dim(1);
  const int num_slots = static_cast<int>(slot_rows.dim(1));
  const int32_t* slot_row = slot_rows.as<int32_t>();
  const Element* from = rows.as<Element>();
  context.ForRows(
      out.dim(0), hidden * (num_slots + 2) * sizeof(Element),
      [&](int64_t begin, int64_t end) {
        std::vector<const Element*> sources(num_slots);
        for (int64_t t = begin; t < end; ++t) {
          for (int k = 0; k < num_slots; ++k) {
            sources[k] = from + slot_row[t * num_slots + k] * hidden;
          }
          combine(sources.data(), weights.as<float>() + t * num_slots,
                  num_slots, hidden, out.as<float>() + t * hidden);
        }
      });
}

}  // namespace

absl::Status GatherRows(CpuContext& context, ConstTensor src,
                        ConstTensor row_ids, Tensor out) {
  OCTET_RETURN_IF_ERROR(
      CheckIndices("GatherRows", "row_ids", row_ids, src.dim(0)));
  const int32_t* row_id = row_ids.as<int32_t>();
  const int64_t row_bytes =
      out.dim(1) * static_cast<int64_t>(SizeOf(out.dtype()));
  const char* from = static_cast<const char*>(src.data());
  char* to = static_cast<char*>(out.data());
  context.ForRows(out.dim(0), row_bytes, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(to + i * row_bytes, from + row_id[i] * row_bytes, row_bytes);
    }
  });
  return absl::OkStatus();
}

absl::Status CombineRows(CpuContext& context, ConstTensor rows,
                         ConstTensor slot_rows, ConstTensor weights,
                         Tensor out) {
  OCTET_RETURN_IF_ERROR(
      CheckIndices("CombineRows", "slot_rows", slot_rows, rows.dim(0)));
  if (rows.dtype() == DType::kF32) {
    CombineAs<float>(context.kernels().combine_f32, context, rows, slot_rows,
                     weights, out);
  } else {
    CombineAs<uint16_t>(context.kernels().combine_bf16, context, rows,
                        slot_rows, weights, out);
  }
  return absl::OkStatus();
}

}  // namespace octet::cpu
