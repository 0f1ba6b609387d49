#include "worker/checkpoint/float_reader.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/dtype.h"

namespace octet {
namespace {

constexpr int64_t kPieceElements = 1 << 20;

bool IsFloat(std::optional<DType> dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16;
}

}  // namespace

absl::Status CheckFloats(const SafetensorsFile& file,
                         const SafetensorsEntry& entry) {
  if (IsFloat(SafetensorsDType(entry.dtype))) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(file.path(), ": tensor '", entry.name, "' has dtype ",
                   entry.dtype, ", expected F32, BF16 or F16"));
}

absl::Status ReadFloats(const SafetensorsFile& file,
                        const SafetensorsEntry& entry, int64_t begin,
                        absl::Span<float> out) {
  OCTET_RETURN_IF_ERROR(CheckFloats(file, entry));
  const DType dtype = *SafetensorsDType(entry.dtype);
  const int64_t size = static_cast<int64_t>(SizeOf(dtype));
  if (dtype == DType::kF32) {
    return file.Read(entry, begin * size, out.size() * size, out.data());
  }
  std::vector<uint16_t> bits;
  for (int64_t done = 0; done < static_cast<int64_t>(out.size());) {
    const int64_t count =
        std::min(kPieceElements, static_cast<int64_t>(out.size()) - done);
    bits.resize(count);
    OCTET_RETURN_IF_ERROR(
        file.Read(entry, (begin + done) * size, count * size, bits.data()));
    for (int64_t i = 0; i < count; ++i) {
      out[done + i] =
          dtype == DType::kBF16 ? ToFloat(BF16{bits[i]}) : HalfToFloat(bits[i]);
    }
    done += count;
  }
  return absl::OkStatus();
}

}  // namespace octet
