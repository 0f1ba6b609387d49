#include "worker/comm/counters.h"

#include <string>

namespace octet {

void CommCounters::Add(absl::string_view operation, int64_t bytes_sent,
                       int64_t bytes_received, absl::Duration waited) {
  std::lock_guard lock(mutex_);
  OpCounters* found = nullptr;
  for (OpCounters& counters : operations_) {
    if (counters.operation == operation) found = &counters;
  }
  if (found == nullptr) {
    found = &operations_.emplace_back();
    found->operation = std::string(operation);
  }
  found->calls += 1;
  found->bytes_sent += bytes_sent;
  found->bytes_received += bytes_received;
  found->waited += waited;
}

std::vector<OpCounters> CommCounters::Snapshot() const {
  std::lock_guard lock(mutex_);
  return operations_;
}

}  // namespace octet
