#include "kernels/cpu/cpu_objects.h"

#include "base/status_macros.h"
#include "kernels/cpu/packed_matrix.h"

namespace octet::cpu {

absl::Status CheckStream(Stream& stream) {
  return dynamic_cast<CpuStream*>(&stream)
             ? absl::OkStatus()
             : absl::InvalidArgumentError(
                   "CpuBackend: the stream is another backend's, expected one "
                   "from NewStream");
}

absl::Status CheckOwned(const PackedMatrix& matrix) {
  return dynamic_cast<const CpuMatrix*>(&matrix)
             ? absl::OkStatus()
             : absl::InvalidArgumentError(
                   "CpuBackend: the matrix is another backend's, expected one "
                   "from NewPackedMatrix");
}

absl::Status CheckMatrix(const PackedMatrix& matrix) {
  OCTET_RETURN_IF_ERROR(CheckOwned(matrix));
  return static_cast<const CpuMatrix&>(matrix).CheckReadable();
}

absl::Status CheckMatrices(absl::Span<const PackedMatrix* const> matrices) {
  for (const PackedMatrix* matrix : matrices) {
    OCTET_RETURN_IF_ERROR(CheckMatrix(*matrix));
  }
  return absl::OkStatus();
}

}  // namespace octet::cpu
