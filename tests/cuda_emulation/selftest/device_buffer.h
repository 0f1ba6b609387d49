// Device memory with copies, for tests. A failing call ends the test.
#ifndef CUDA_EMU_SELFTEST_DEVICE_BUFFER_H_
#define CUDA_EMU_SELFTEST_DEVICE_BUFFER_H_

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdlib>
#include <vector>

namespace cuda_emu_selftest {

inline void Must(cudaError_t error) {
  if (error != cudaSuccess) std::abort();
}

template <class T>
class DeviceBuffer {
 public:
  explicit DeviceBuffer(size_t count) : count_(count) {
    void* p = nullptr;
    Must(cudaMalloc(&p, count * sizeof(T)));
    data_ = static_cast<T*>(p);
  }
  explicit DeviceBuffer(const std::vector<T>& host)
      : DeviceBuffer(host.size()) {
    Must(cudaMemcpy(data_, host.data(), host.size() * sizeof(T),
                    cudaMemcpyHostToDevice));
  }
  ~DeviceBuffer() { (void)cudaFree(data_); }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  T* data() const { return data_; }

  std::vector<T> ToHost() const {
    std::vector<T> host(count_);
    Must(cudaMemcpy(host.data(), data_, count_ * sizeof(T),
                    cudaMemcpyDeviceToHost));
    return host;
  }

 private:
  T* data_ = nullptr;
  size_t count_;
};

}  // namespace cuda_emu_selftest

#endif  // CUDA_EMU_SELFTEST_DEVICE_BUFFER_H_
