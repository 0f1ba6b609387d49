// The coordinator as one object: a gRPC server with octet.v1.Inference,
// octet.v1.Training, octet.v1.Cluster, octet.v1.WorkerLink, grpc.health.v1 and
// reflection, and the step loop behind them. Owns no tensor, links no MPI or
// CUDA, and outlives worker groups.
//
// Health: "" is SERVING while the process lives; "octet.v1.Inference"
// and "octet.v1.Training" are SERVING while a group is connected and no forward
// step takes longer than `stall_after`.
//
// Thread-safe. Several may live in one process.
#ifndef OCTET_COORDINATOR_COORDINATOR_H_
#define OCTET_COORDINATOR_COORDINATOR_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace octet {

class Coordinator {
 public:
  struct Options {
    std::string listen_address = "127.0.0.1:0";  // port 0 = any free one
    // A SentencePiece .model file; empty = requests carry token ids only.
    std::string tokenizer_path;
    std::string model_name;           // shown by GetInfo
    int32_t expected_vocab_size = 0;  // of the group's model; 0 = any

    int32_t max_waiting_requests = 256;
    int32_t max_running_per_rank = 64;  // sequences
    // Tokens of one rank's step; 0 = what the group's buffers hold. Smaller
    // steps give shorter pauses between tokens and slower prefill.
    int32_t max_step_tokens = 0;
    bool prefix_cache = true;
    int32_t max_queued_chunks = 64;   // per stream whose client is slow
    int32_t max_queued_events = 256;  // per WatchEvents call
    absl::Duration stall_after = absl::Seconds(30);
  };

  // Loads the tokenizer and listens. The error names the file or the address.
  static absl::StatusOr<std::unique_ptr<Coordinator>> Start(Options options);
  ~Coordinator();  // Shutdown(absl::ZeroDuration())
  Coordinator(const Coordinator&) = delete;
  Coordinator& operator=(const Coordinator&) = delete;

  int port() const;

  // Refuses new requests, gives the others `drain` to end, ends what is left
  // with UNAVAILABLE, tells the worker group to shut down, and stops. Later
  // calls return at once.
  void Shutdown(absl::Duration drain);
  // Returns when Shutdown is done.
  void Wait();

 private:
  class Impl;
  explicit Coordinator(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace octet

#endif  // OCTET_COORDINATOR_COORDINATOR_H_
