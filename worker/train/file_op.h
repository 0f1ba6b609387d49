// Names a collective in which ranks wait for each other's files.
#ifndef OCTET_WORKER_TRAIN_FILE_OP_H_
#define OCTET_WORKER_TRAIN_FILE_OP_H_

#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "worker/comm/communicator.h"

namespace octet {

// `operation` is a literal. Disks differ: a rank may be minutes behind.
inline OpInfo FileOp(absl::string_view operation, int64_t step_id) {
  OpInfo op;
  op.operation = operation;
  op.step_id = step_id;
  op.timeout = absl::Minutes(30);
  return op;
}

}  // namespace octet

#endif  // OCTET_WORKER_TRAIN_FILE_OP_H_
