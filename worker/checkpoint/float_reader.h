// Elements of a tensor in a safetensors file as f32, whatever floating-point
// dtype they have there. Thread-safe.
#ifndef OCTET_WORKER_CHECKPOINT_FLOAT_READER_H_
#define OCTET_WORKER_CHECKPOINT_FLOAT_READER_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/checkpoint/safetensors.h"

namespace octet {

// INVALID_ARGUMENT unless the tensor is F32, BF16 or F16.
absl::Status CheckFloats(const SafetensorsFile& file,
                         const SafetensorsEntry& entry);

// Elements [begin, begin + out.size()), which must lie inside the tensor
// (OUT_OF_RANGE).
absl::Status ReadFloats(const SafetensorsFile& file,
                        const SafetensorsEntry& entry, int64_t begin,
                        absl::Span<float> out);

}  // namespace octet

#endif  // OCTET_WORKER_CHECKPOINT_FLOAT_READER_H_
