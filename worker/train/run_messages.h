// Between the messages of proto/training.proto and what a run computes with.
#ifndef OCTET_WORKER_TRAIN_RUN_MESSAGES_H_
#define OCTET_WORKER_TRAIN_RUN_MESSAGES_H_

#include <string>

#include "absl/status/statusor.h"
#include "google/protobuf/repeated_field.h"
#include "proto/training.pb.h"
#include "worker/checkpoint/peft_adapter.h"
#include "worker/model/config.h"
#include "worker/model/training_batch.h"
#include "worker/model/training_pass.h"
#include "worker/train/parameters.h"

namespace octet {

// The request with everything decided: defaults filled in, and what an adapter
// (lora.init_from, nullptr: there is none) says of itself. INVALID_ARGUMENT
// names the field; names of modules are ParameterSet's to check.
absl::StatusOr<v1::CreateRunRequest> ResolveRequest(
    const v1::CreateRunRequest& request, const PeftAdapter* adapter);

// Of a resolved request. `parameters` are those that it trains.
TrainingPassOptions ToPassOptions(const v1::CreateRunRequest& request,
                                  const ParameterSet& parameters,
                                  const ModelConfig& config);

// Slots (and routes, none or one per slot) as a batch without a plan; spans
// belong to the messages.
absl::StatusOr<TrainingBatch> ToBatch(
    const google::protobuf::RepeatedPtrField<v1::TrainingSlot>& slots,
    const google::protobuf::RepeatedPtrField<v1::SlotRoutes>& routes,
    const ModelConfig& config);

// Of a resolved request; "all" is spelt out.
AdapterConfig ToAdapterConfig(const v1::LoraConfig& lora,
                              const std::string& base_model);

v1::ForwardResponse ToResponse(const PassResult& result,
                               const ModelConfig& config, bool return_logprobs);

}  // namespace octet

#endif  // OCTET_WORKER_TRAIN_RUN_MESSAGES_H_
