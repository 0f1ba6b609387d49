#include "kernels/cuda/rope_tables.h"

#include <vector>

#include "base/status_macros.h"
#include "kernels/cuda/rope.h"

namespace octet::cuda {

absl::StatusOr<const double2*> RopeTables::For(const RopeParams& params,
                                               CudaStream& stream) {
  if (params.theta != theta_ || params.head_dim != head_dim_) {
    const std::vector<double> table = RopeTable(params.theta, params.head_dim);
    head_dim_ = 0;  // whatever happens, not the old table
    OCTET_ASSIGN_OR_RETURN(
        table_, DeviceMemory::Allocate(table.size() * sizeof(double)));
    OCTET_RETURN_IF_ERROR(stream.Upload(table_.data(), table.data(),
                                        table.size() * sizeof(double)));
    OCTET_RETURN_IF_ERROR(stream.Synchronize());
    theta_ = params.theta;
    head_dim_ = params.head_dim;
  }
  return static_cast<const double2*>(table_.data());
}

}  // namespace octet::cuda
