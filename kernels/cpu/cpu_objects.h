// The CPU backend's streams, and how its objects are told apart from another
// backend's.
#ifndef OCTET_KERNELS_CPU_CPU_OBJECTS_H_
#define OCTET_KERNELS_CPU_CPU_OBJECTS_H_

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"

namespace octet::cpu {

// Work is done when the call that asks for it returns: there is nothing to
// order.
class CpuStream : public Stream {};

// INVALID_ARGUMENT for an object of another backend.
absl::Status CheckStream(Stream& stream);
absl::Status CheckOwned(const PackedMatrix& matrix);
// The same, and the error of a matrix that products may not read yet.
absl::Status CheckMatrix(const PackedMatrix& matrix);
absl::Status CheckMatrices(absl::Span<const PackedMatrix* const> matrices);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_CPU_OBJECTS_H_
