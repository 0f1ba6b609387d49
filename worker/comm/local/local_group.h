// Ranks that are threads of one process. Data goes straight from the sender's
// buffer to the receiver's; there is no lock on the way. More ranks than cores
// are fine: a rank that waits long sleeps in the kernel.
//
// One rank's failure is the group's: the other ranks return the same status
// code, and none returns while another still reads its buffers.
#ifndef OCTET_WORKER_COMM_LOCAL_LOCAL_GROUP_H_
#define OCTET_WORKER_COMM_LOCAL_LOCAL_GROUP_H_

#include <memory>
#include <string>
#include <vector>

#include "worker/comm/communicator.h"
#include "worker/comm/transport_communicator.h"

namespace octet {

struct LocalGroupOptions {
  CommunicatorOptions communicator;
  std::string host;  // for messages; empty: this machine's name
};

// Element r is rank r's, to be used by one thread. `size` is at least 1. The
// communicators may go in any order; when one goes, peers that wait for it get
// UNAVAILABLE.
std::vector<std::unique_ptr<Communicator>> NewLocalGroup(
    int size, LocalGroupOptions options = {});

}  // namespace octet

#endif  // OCTET_WORKER_COMM_LOCAL_LOCAL_GROUP_H_
