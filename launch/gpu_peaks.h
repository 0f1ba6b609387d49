// What NVIDIA says its data center GPUs can do at best: the denominators of
// predicted times. Never measured here; the entries say where each number is
// from.
#ifndef OCTET_LAUNCH_GPU_PEAKS_H_
#define OCTET_LAUNCH_GPU_PEAKS_H_

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/op_cost.h"

namespace octet {

struct GpuPeak {
  absl::string_view name;         // "H100"
  absl::string_view device_name;  // as the driver says it
  DeviceLimits limits;  // bf16: tensor cores without sparsity; f32: without
                        // tensor cores
  absl::string_view source;  // for people, one line
};

// A100 80 GB SXM, H100 SXM, H200 SXM, B200.
absl::Span<const GpuPeak> GpuPeaks();

// The entry of the GPU that Backend::Description names, or null.
const GpuPeak* FindGpuPeak(absl::string_view description);

}  // namespace octet

#endif  // OCTET_LAUNCH_GPU_PEAKS_H_
