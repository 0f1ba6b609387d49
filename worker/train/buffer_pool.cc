#include "worker/train/buffer_pool.h"

#include "base/status_macros.h"

namespace octet {

PooledBuffer& PooledBuffer::operator=(PooledBuffer&& other) noexcept {
  Release();
  pool_ = other.pool_;
  buffer_ = std::move(other.buffer_);
  num_elements_ = std::exchange(other.num_elements_, 0);
  return *this;
}

void PooledBuffer::Release() {
  if (buffer_ != nullptr) pool_->Return(std::move(buffer_), num_elements_);
}

absl::StatusOr<PooledBuffer> BufferPool::Get(int64_t num_elements) {
  std::vector<std::unique_ptr<Buffer>>& idle = idle_[num_elements];
  if (!idle.empty()) {
    PooledBuffer out(this, std::move(idle.back()), num_elements);
    idle.pop_back();
    return out;
  }
  OCTET_ASSIGN_OR_RETURN(
      std::unique_ptr<Buffer> buffer,
      backend_->Allocate(static_cast<size_t>(num_elements) * sizeof(float)));
  size_bytes_ += num_elements * static_cast<int64_t>(sizeof(float));
  return PooledBuffer(this, std::move(buffer), num_elements);
}

void BufferPool::Return(std::unique_ptr<Buffer> buffer, int64_t num_elements) {
  idle_[num_elements].push_back(std::move(buffer));
}

}  // namespace octet
