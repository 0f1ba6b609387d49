#include "worker/comm/mpi/mpi_environment.h"

#include <mpi.h>

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/logging.h"

namespace octet {

absl::StatusOr<std::unique_ptr<MpiEnvironment>> MpiEnvironment::Init(
    int* argc, char*** argv) {
  int initialized = 0;
  MPI_Initialized(&initialized);
  if (initialized) {
    return absl::FailedPreconditionError("MPI was started twice");
  }
  int provided = MPI_THREAD_SINGLE;
  const int code =
      MPI_Init_thread(argc, argv, MPI_THREAD_SERIALIZED, &provided);
  if (code != MPI_SUCCESS) {
    return absl::UnavailableError(
        absl::StrCat("MPI_Init_thread failed with code ", code));
  }
  // Abort may speak to peers from another thread.
  if (provided < MPI_THREAD_SERIALIZED) {
    return absl::FailedPreconditionError(
        absl::StrCat("MPI offers thread level ", provided,
                     ", expected MPI_THREAD_SERIALIZED (",
                     MPI_THREAD_SERIALIZED, ") or more"));
  }
  auto environment = std::unique_ptr<MpiEnvironment>(new MpiEnvironment);
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm_rank(MPI_COMM_WORLD, &environment->rank_);
  MPI_Comm_size(MPI_COMM_WORLD, &environment->size_);
  MPI_Comm host_ranks = MPI_COMM_NULL;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL,
                      &host_ranks);
  MPI_Comm_rank(host_ranks, &environment->local_rank_);
  MPI_Comm_size(host_ranks, &environment->local_size_);
  MPI_Comm_free(&host_ranks);
  char name[MPI_MAX_PROCESSOR_NAME] = {};
  int length = 0;
  MPI_Get_processor_name(name, &length);
  environment->host_.assign(name, static_cast<size_t>(length));
  return environment;
}

MpiEnvironment::~MpiEnvironment() {
  if (broken_ || abort_reason() != nullptr) {
    OCTET_LOG(WARNING) << "leaving a broken group without MPI_Finalize";
    return;
  }
  MPI_Finalize();
}

void MpiEnvironment::AwaitTermination(absl::Duration grace) const {
  // Between its SIGTERM and its SIGKILL mpirun leaves a second; a rank that
  // ends at once was seen to cost its peers theirs.
  constexpr absl::Duration kForPeers = absl::Milliseconds(500);
  absl::Time end = absl::Now() + grace;
  bool requested = false;
  while (absl::Now() < end) {
    if (!requested && abort_reason() != nullptr) {
      requested = true;
      end = std::min(end, absl::Now() + kForPeers);
    }
    absl::SleepFor(absl::Milliseconds(10));
  }
}

}  // namespace octet
