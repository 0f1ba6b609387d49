// A backend that only keeps weights, row-major, and checks how they are
// written: the loader's other side without any kernel.
#ifndef OCTET_TESTS_WORKER_CHECKPOINT_MEMORY_BACKEND_H_
#define OCTET_TESTS_WORKER_CHECKPOINT_MEMORY_BACKEND_H_

#include <memory>

#include "kernels/backend.h"

namespace octet::test {

struct MemoryBackendStats {
  int64_t live_bytes = 0;         // of buffers and matrices
  int64_t fail_after_bytes = -1;  // Allocate and NewPackedMatrix fail beyond
  int64_t rows_written_twice = 0;
};

// Operations return FAILED_PRECONDITION. `stats` must outlive the backend and
// all it made.
std::unique_ptr<Backend> NewMemoryBackend(MemoryBackendStats* stats);

}  // namespace octet::test

#endif  // OCTET_TESTS_WORKER_CHECKPOINT_MEMORY_BACKEND_H_
