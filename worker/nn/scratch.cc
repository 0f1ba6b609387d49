#include "worker/nn/scratch.h"

#include <algorithm>

#include "base/status_macros.h"

namespace octet {

absl::StatusOr<Tensor> Scratch::Get(DType dtype,
                                    std::initializer_list<int64_t> dims,
                                    Stream& stream) {
  const size_t num_bytes = Tensor(nullptr, dtype, dims).num_bytes();
  if (num_bytes > size_bytes()) {
    OCTET_RETURN_IF_ERROR(backend_->Synchronize(stream));
    // A quarter more than asked, so that slowly rising sizes do not allocate
    // each time; the old memory goes first, so that both never exist at once.
    const size_t grown =
        size_bytes() == 0 ? num_bytes : num_bytes + num_bytes / 4;
    buffer_.reset();
    OCTET_ASSIGN_OR_RETURN(buffer_, backend_->Allocate(grown));
  }
  return Tensor(buffer_ ? buffer_->data() : nullptr, dtype, dims);
}

}  // namespace octet
