// One rank of a job in which something goes wrong (failure_job.h):
//   PROGRAM SCENARIO OUTPUT_DIR      under mpirun
// Each rank that lives to see its error writes it to OUTPUT_DIR/result.RANK:
//   code|missing ranks|poisoned or not|message
#ifndef OCTET_TESTS_WORKER_COMM_FAILURE_RANK_H_
#define OCTET_TESTS_WORKER_COMM_FAILURE_RANK_H_

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/comm/communicator.h"
#include "worker/comm/mpi/mpi_environment.h"

namespace octet::test {

// What a rank does; rank 1 is the one that fails.
using Scenario = std::function<absl::Status(Communicator&)>;
using NewCommunicator =
    std::function<absl::StatusOr<std::unique_ptr<Communicator>>(
        MpiEnvironment&)>;

// An all-to-all ("dispatch" of layer 3 in step 17) of `part_bytes` to every
// rank, `last_part_bytes` to the last.
absl::Status FailingDispatch(Communicator& comm, absl::Duration timeout,
                             int64_t part_bytes, int64_t last_part_bytes);
// The same with equal parts, after rank 1 has done something.
absl::Status DispatchUnless(Communicator& comm, absl::Duration timeout,
                            const std::function<void()>& rank_1_does,
                            int64_t part_bytes);

// main().
int FailureMain(int argc, char** argv, const NewCommunicator& new_communicator,
                const std::map<std::string, Scenario>& scenarios);

}  // namespace octet::test

#endif  // OCTET_TESTS_WORKER_COMM_FAILURE_RANK_H_
