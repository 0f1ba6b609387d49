#include "kernels/cpu/context.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace octet::cpu {
namespace {

// Below this a loop is over before another thread has woken.
constexpr int64_t kInlineBytes = 64 << 10;
constexpr int64_t kPieceBytes = 32 << 10;

template <typename Index>
absl::Status CheckIndicesAs(absl::string_view operation, absl::string_view name,
                            ConstTensor indices, int64_t limit) {
  const Index* values = indices.as<Index>();
  for (int64_t i = 0; i < indices.num_elements(); ++i) {
    if (values[i] < 0 || values[i] >= limit) {
      return absl::InvalidArgumentError(
          absl::StrCat(operation, ": ", name, "[", i, "] is ", values[i],
                       ", expected 0 to ", limit - 1));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CpuContext::ReserveScratch(size_t num_bytes) {
  for (AlignedMemory& memory : scratch_) {
    if (memory.size_bytes() >= num_bytes) continue;
    auto grown = AlignedMemory::Allocate(num_bytes);
    if (!grown.ok()) return grown.status();
    memory = *std::move(grown);
  }
  return absl::OkStatus();
}

void CpuContext::ForRows(int64_t num_rows, int64_t row_bytes,
                         absl::FunctionRef<void(int64_t, int64_t)> body) {
  if (num_rows * row_bytes <= kInlineBytes || pool_.num_threads() == 1) {
    if (num_rows > 0) body(0, num_rows);
    return;
  }
  const int64_t piece =
      std::max<int64_t>(1, kPieceBytes / std::max<int64_t>(1, row_bytes));
  pool_.ParallelFor((num_rows + piece - 1) / piece, [&](int64_t item, int) {
    body(item * piece, std::min(num_rows, (item + 1) * piece));
  });
}

absl::Status CheckIndices(absl::string_view operation, absl::string_view name,
                          ConstTensor indices, int64_t limit) {
  return indices.dtype() == DType::kI64
             ? CheckIndicesAs<int64_t>(operation, name, indices, limit)
             : CheckIndicesAs<int32_t>(operation, name, indices, limit);
}

}  // namespace octet::cpu
