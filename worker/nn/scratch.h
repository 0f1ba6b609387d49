// Device memory that is used again and again, step after step: it grows to the
// largest size ever asked for and is never given back before destruction.
//
// Threads: one at a time. The backend must outlive it.
#ifndef OCTET_WORKER_NN_SCRATCH_H_
#define OCTET_WORKER_NN_SCRATCH_H_

#include <cstdint>
#include <initializer_list>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/backend.h"

namespace octet {

class Scratch {
 public:
  explicit Scratch(Backend* backend) : backend_(backend) {}

  // A tensor of this shape at the start of the memory; its contents are
  // undefined when the memory had to grow, else what was there. Views from
  // earlier calls are valid until the memory grows; growing waits for the
  // stream first. RESOURCE_EXHAUSTED names the size.
  absl::StatusOr<Tensor> Get(DType dtype, std::initializer_list<int64_t> dims,
                             Stream& stream);

  size_t size_bytes() const { return buffer_ ? buffer_->size_bytes() : 0; }

 private:
  Backend* backend_;
  std::unique_ptr<Buffer> buffer_;
};

}  // namespace octet

#endif  // OCTET_WORKER_NN_SCRATCH_H_
