// Which parameters a run trains, and how: the rules of the three methods.
#ifndef OCTET_WORKER_TRAIN_TRAINABLE_H_
#define OCTET_WORKER_TRAIN_TRAINABLE_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "proto/training.pb.h"
#include "worker/model/quantization.h"
#include "worker/train/parameters.h"

namespace octet {

enum class Trained {
  kNo,
  kFull,  // the parameter itself
  kLora,  // an adapter beside it
};

// One entry per parameter of the model (ModelParameters).
//
// FREEZE: `trainable` patterns are compared with a parameter's whole name, with
// and without ".weight". LORA: `target_modules` and `modules_to_save` name
// modules by the end of their names, as PEFT does (a target's end begins at a
// dot; one of modules_to_save need not). INVALID_ARGUMENT names the field and
// the entry: what matches nothing, what is trained both ways, a number out of
// range, a field that the method does not use.
absl::StatusOr<std::vector<Trained>> SelectTrained(
    absl::Span<const Parameter> parameters,
    const v1::CreateRunRequest& request);

// INVALID_ARGUMENT names a parameter of the model itself among `trained` that
// is kept in 4 bits: only an adapter beside it can be trained.
absl::Status CheckNotQuantized(absl::Span<const Parameter> trained,
                               const Quantization& quantization);

}  // namespace octet

#endif  // OCTET_WORKER_TRAIN_TRAINABLE_H_
