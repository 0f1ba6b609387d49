// f32 memory that gradients pass through: buffers go back to the pool and are
// used again for the same size, so a training step allocates nothing once the
// first is done.
//
// A buffer that goes back may still be read by work on a stream; whoever takes
// it next must work on the same stream. Threads: one at a time. The backend
// must outlive the pool, and the pool its buffers.
#ifndef OCTET_WORKER_TRAIN_BUFFER_POOL_H_
#define OCTET_WORKER_TRAIN_BUFFER_POOL_H_

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace octet {

class BufferPool;

// A vector of f32; empty when moved from.
class PooledBuffer {
 public:
  PooledBuffer() = default;
  PooledBuffer(BufferPool* pool, std::unique_ptr<Buffer> buffer,
               int64_t num_elements)
      : pool_(pool), buffer_(std::move(buffer)), num_elements_(num_elements) {}
  PooledBuffer(PooledBuffer&& other) noexcept = default;
  PooledBuffer& operator=(PooledBuffer&& other) noexcept;
  ~PooledBuffer() { Release(); }

  bool empty() const { return buffer_ == nullptr; }
  int64_t num_elements() const { return num_elements_; }
  // Elements [offset, offset + rows * cols) as a matrix.
  Tensor Matrix(int64_t offset, int64_t rows, int64_t cols) const {
    return Tensor(static_cast<float*>(buffer_->data()) + offset, DType::kF32,
                  {rows, cols});
  }
  // Elements [offset, offset + count).
  Tensor Vector(int64_t offset, int64_t count) const {
    return Tensor(static_cast<float*>(buffer_->data()) + offset, DType::kF32,
                  {count});
  }
  Tensor view() const { return Vector(0, num_elements_); }

 private:
  void Release();

  BufferPool* pool_ = nullptr;
  std::unique_ptr<Buffer> buffer_;
  int64_t num_elements_ = 0;
};

class BufferPool {
 public:
  explicit BufferPool(Backend* backend) : backend_(backend) {}

  // Contents are undefined. RESOURCE_EXHAUSTED names the size.
  absl::StatusOr<PooledBuffer> Get(int64_t num_elements);
  // Of buffers in use and idle.
  int64_t size_bytes() const { return size_bytes_; }

 private:
  friend class PooledBuffer;
  void Return(std::unique_ptr<Buffer> buffer, int64_t num_elements);

  Backend* backend_;
  std::map<int64_t, std::vector<std::unique_ptr<Buffer>>> idle_;
  int64_t size_bytes_ = 0;
};

}  // namespace octet

#endif  // OCTET_WORKER_TRAIN_BUFFER_POOL_H_
