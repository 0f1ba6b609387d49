// For tests of device data: a stream of the CUDA runtime behind the seam, and a
// communicator that takes host buffers, moves them to the GPU, and back.
#ifndef OCTET_TESTS_WORKER_COMM_NCCL_DEVICE_DATA_H_
#define OCTET_TESTS_WORKER_COMM_NCCL_DEVICE_DATA_H_

#include <cuda_runtime.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/cuda/cuda_memory.h"
#include "worker/comm/communicator.h"
#include "worker/comm/mpi/mpi_environment.h"

namespace octet::test {

class NativeStream : public Stream {
 public:
  NativeStream() : stream_(cuda::NewStream().value()) {}
  cudaStream_t get() const { return stream_.get(); }

 private:
  cuda::OwnedStream stream_;
};

// Over MPI; OpInfo.stream is a NativeStream.
absl::StatusOr<std::unique_ptr<Communicator>> NewNccl(
    std::unique_ptr<Communicator> host_data, absl::Duration timeout);

// Gives the checks of all transports device memory: what an AllToAllV gets is
// copied to the GPU, sent from there, and copied back.
class OnDevice final : public Communicator {
 public:
  explicit OnDevice(std::unique_ptr<Communicator> nccl)
      : nccl_(std::move(nccl)) {}

  int rank() const override { return nccl_->rank(); }
  int size() const override { return nccl_->size(); }
  absl::string_view transport() const override { return nccl_->transport(); }
  std::string host(int rank) const override { return nccl_->host(rank); }
  absl::Status AllToAllV(const AllToAllVArgs& args, const OpInfo& op) override;
  absl::Status AllGather(const void* send, void* recv, int64_t bytes,
                         const OpInfo& op) override {
    return nccl_->AllGather(send, recv, bytes, op);
  }
  absl::Status AllReduceI64(absl::Span<int64_t> values, ReduceOp reduce,
                            const OpInfo& op) override {
    return nccl_->AllReduceI64(values, reduce, op);
  }
  absl::Status Broadcast(void* data, int64_t bytes, int root,
                         const OpInfo& op) override {
    return nccl_->Broadcast(data, bytes, root, op);
  }
  absl::Status Barrier(const OpInfo& op) override { return nccl_->Barrier(op); }
  absl::Status Poll(const OpInfo& op) override { return nccl_->Poll(op); }
  void SetProgress(int64_t point) override { nccl_->SetProgress(point); }
  std::vector<int> RanksBehind(int64_t point,
                               absl::Duration patience) override {
    return nccl_->RanksBehind(point, patience);
  }
  void Abort(const absl::Status& reason) override { nccl_->Abort(reason); }
  std::vector<OpCounters> counters() const override {
    return nccl_->counters();
  }

  // Of every AllToAllV, and of nothing else.
  NativeStream& stream() { return stream_; }

 private:
  std::unique_ptr<Communicator> nccl_;
  NativeStream stream_;
  NativeStream copies_;
};

}  // namespace octet::test

#endif  // OCTET_TESTS_WORKER_COMM_NCCL_DEVICE_DATA_H_
