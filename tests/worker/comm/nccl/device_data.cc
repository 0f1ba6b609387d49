#include "tests/worker/comm/nccl/device_data.h"

#include <algorithm>

#include "base/status_macros.h"
#include "kernels/cuda/cuda_status.h"
#include "worker/comm/nccl/nccl_communicator.h"

namespace octet::test {
namespace {

// Bytes from the start of the buffer to the end of the last part.
int64_t Extent(absl::Span<const int64_t> offsets,
               absl::Span<const int64_t> bytes) {
  int64_t end = 1;
  for (size_t part = 0; part < offsets.size(); ++part) {
    end = std::max(end, offsets[part] + bytes[part]);
  }
  return end;
}

absl::StatusOr<cuda::DeviceMemory> ToDevice(const void* data, int64_t bytes,
                                            cudaStream_t stream) {
  OCTET_ASSIGN_OR_RETURN(cuda::DeviceMemory memory,
                         cuda::DeviceMemory::Allocate(bytes));
  OCTET_RETURN_IF_ERROR(
      cuda::CudaStatus(cudaMemcpyAsync(memory.data(), data, bytes,
                                       cudaMemcpyHostToDevice, stream),
                       "copy to the device"));
  return memory;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> NewNccl(
    std::unique_ptr<Communicator> host_data, absl::Duration timeout) {
  NcclOptions options;
  options.timeout = timeout;
  options.native_stream = [](const Stream& stream) {
    return static_cast<const NativeStream&>(stream).get();
  };
  return NewNcclCommunicator(std::move(host_data), options);
}

absl::Status OnDevice::AllToAllV(const AllToAllVArgs& args, const OpInfo& op) {
  const int64_t recv_bytes = Extent(args.recv_offsets, args.recv_bytes);
  OCTET_ASSIGN_OR_RETURN(
      const cuda::DeviceMemory send,
      ToDevice(args.send, Extent(args.send_offsets, args.send_bytes),
               copies_.get()));
  OCTET_ASSIGN_OR_RETURN(const cuda::DeviceMemory recv,
                         ToDevice(args.recv, recv_bytes, copies_.get()));
  OCTET_RETURN_IF_ERROR(cuda::CudaStatus(cudaStreamSynchronize(copies_.get()),
                                         "copies to the device"));
  AllToAllVArgs on_device = args;
  on_device.send = send.data();
  on_device.recv = recv.data();
  OpInfo with_stream = op;
  with_stream.stream = &stream_;
  OCTET_RETURN_IF_ERROR(nccl_->AllToAllV(on_device, with_stream));
  OCTET_RETURN_IF_ERROR(
      cuda::CudaStatus(cudaMemcpyAsync(args.recv, recv.data(), recv_bytes,
                                       cudaMemcpyDeviceToHost, copies_.get()),
                       "copy from the device"));
  return cuda::CudaStatus(cudaStreamSynchronize(copies_.get()),
                          "copies from the device");
}

}  // namespace octet::test
