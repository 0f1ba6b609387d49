// octet bench train: training steps of a model of any shape.
#ifndef OCTET_LAUNCH_TRAINING_BENCH_COMMAND_H_
#define OCTET_LAUNCH_TRAINING_BENCH_COMMAND_H_

#include "absl/status/status.h"
#include "launch/command.h"

namespace octet {

// `args` are what follows "octet bench train".
absl::Status RunTrainingBenchCommand(const Args& args);

}  // namespace octet

#endif  // OCTET_LAUNCH_TRAINING_BENCH_COMMAND_H_
