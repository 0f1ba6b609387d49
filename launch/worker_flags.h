// The flags of a worker rank, as `octet serve`, `octet worker` and octet-worker
// take them.
#ifndef OCTET_LAUNCH_WORKER_FLAGS_H_
#define OCTET_LAUNCH_WORKER_FLAGS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "launch/flags.h"
#include "worker/service/worker.h"

namespace octet {

struct WorkerFlags {
  std::string model;
  std::string device = "cpu";
  std::string dtype = "auto";
  std::string quantization = "none";
  std::string placement;
  int moe_chunks = 0;
  int threads = 0;
  std::string isa = "auto";
  int64_t kv_cache_mib = 0;
  int64_t kv_blocks = 0;
  int kv_block_tokens = 16;
  int64_t max_step_tokens = 512;
  int64_t save_kib_per_second = 0;
  absl::Duration connect_timeout = absl::Minutes(2);
  absl::Duration load_timeout = absl::Minutes(30);
  absl::Duration collective_timeout = absl::Seconds(30);

  void AddTo(Flags& flags);
  // INVALID_ARGUMENT names the flag. `program` leads the sentence.
  absl::StatusOr<WorkerOptions> ToOptions(const std::string& program,
                                          const std::string& coordinator) const;
  // The same flags again, for a program to be started.
  std::vector<std::string> ToArguments() const;

 private:
  // Calls visit(name, pointer to field, help, range) for every flag: the one
  // list of them.
  template <typename Self, typename Visit>
  static void ForEach(Self& self, Visit visit);
};

}  // namespace octet

#endif  // OCTET_LAUNCH_WORKER_FLAGS_H_
