#include "launch/gpu_peaks.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace octet {
namespace {

// Data sheets print tensor-core peaks of Hopper and Blackwell with 2:4
// sparsity, twice the dense ones that stand here. Where two documents of NVIDIA
// differ, the larger number stands: a floor must not be too high.
constexpr GpuPeak kPeaks[] = {
    {.name = "A100",
     .device_name = "NVIDIA A100-SXM4-80GB",
     .limits = {.bytes_per_second = 2.039e12,
                .bf16_flops_per_second = 312e12,
                .f32_flops_per_second = 19.5e12},
     .source = "A100 80 GB SXM: NVIDIA A100 Tensor Core GPU data sheet (2039 "
               "GB/s; 312 TFLOPS bf16; 19.5 TFLOPS fp32)"},
    {.name = "H100",
     .device_name = "NVIDIA H100 80GB HBM3",
     .limits = {.bytes_per_second = 3.35e12,
                .bf16_flops_per_second = 989.5e12,
                .f32_flops_per_second = 67e12},
     .source = "H100 SXM: NVIDIA H100 Tensor Core GPU data sheet (3.35 TB/s; "
               "1979 TFLOPS bf16 with sparsity; 67 TFLOPS fp32)"},
    {.name = "H200",
     .device_name = "NVIDIA H200",
     .limits = {.bytes_per_second = 4.8e12,
                .bf16_flops_per_second = 989.5e12,
                .f32_flops_per_second = 67e12},
     .source = "H200 SXM: NVIDIA H200 Tensor Core GPU data sheet (4.8 TB/s; "
               "1979 TFLOPS bf16 with sparsity; 67 TFLOPS fp32)"},
    {.name = "B200",
     .device_name = "NVIDIA B200",
     .limits = {.bytes_per_second = 8e12,
                .bf16_flops_per_second = 2250e12,
                .f32_flops_per_second = 80e12},
     .source = "B200: NVIDIA Blackwell Architecture Technical Brief, HGX B200 "
               "(8 TB/s; 4.5 PFLOPS bf16 with sparsity; 80 TFLOPS fp32)"},
};

}  // namespace

absl::Span<const GpuPeak> GpuPeaks() { return kPeaks; }

const GpuPeak* FindGpuPeak(absl::string_view description) {
  // "cuda (NVIDIA H200, sm_90, ...": not "NVIDIA H200 NVL", which has others.
  for (const GpuPeak& peak : kPeaks) {
    if (absl::StrContains(description,
                          absl::StrCat("(", peak.device_name, ","))) {
      return &peak;
    }
  }
  return nullptr;
}

}  // namespace octet
