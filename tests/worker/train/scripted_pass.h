// A backward pass without a model: what a rank would put into a GradientSink,
// with activations that depend on weight, slot, row and column alone.
#ifndef OCTET_TESTS_WORKER_TRAIN_SCRIPTED_PASS_H_
#define OCTET_TESTS_WORKER_TRAIN_SCRIPTED_PASS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "worker/model/config.h"
#include "worker/moe/placement.h"
#include "worker/train/parameters.h"
#include "worker/train/slot_plan.h"

namespace octet::test {

// Rows of the slot that reach the weight: none of some experts' and, in every
// fifth slot, none of the head's.
int64_t RowsOf(const WeightId& id, int64_t slot);

// Puts into `sink` what rank `rank` computes of the plan's slots. `seed` tells
// steps apart.
absl::Status FillSink(Backend& backend, const ParameterSet& parameters,
                      const Placement& placement, int rank,
                      const SlotPlan& plan, uint64_t seed, DType dtype,
                      GradientSink& sink, Stream& stream);

// The gradient of each parameter summed over the slots, in double.
std::map<std::string, std::vector<double>> ReferenceGradients(
    const ParameterSet& parameters, int64_t num_slots, uint64_t seed,
    DType dtype);

}  // namespace octet::test

#endif  // OCTET_TESTS_WORKER_TRAIN_SCRIPTED_PASS_H_
