// What every transport must do, written once. A check is the body of one rank:
// run it on every rank of a group of any size. Failures are gtest failures that
// name the rank. Thread-safe: gtest's assertions are.
#ifndef OCTET_TESTS_WORKER_COMM_TRANSPORT_CHECKS_H_
#define OCTET_TESTS_WORKER_COMM_TRANSPORT_CHECKS_H_

#include <cstdint>

#include "worker/comm/communicator.h"

namespace octet::test {

// AllToAllV with splits from a seeded table (uneven, empty, one-hot, only to
// self, shuffled offsets with gaps): every byte is where its origin says, and
// no byte outside the parts has changed.
void CheckAllToAllVProvenance(Communicator& comm, uint64_t seed);

// Parts of `part_bytes` each.
void CheckLargeParts(Communicator& comm, int64_t part_bytes);

void CheckAllGather(Communicator& comm);
void CheckAllReduce(Communicator& comm);
void CheckBroadcast(Communicator& comm);

// After the barrier that the slowest rank enters last, all have entered.
void CheckBarrier(Communicator& comm);

// `num_calls` collectives drawn from a seed that all ranks share.
void CheckRandomSequence(Communicator& comm, uint64_t seed, int num_calls);

// One rank asks, while the others wait for it in a collective, who has not come
// to each point; rank r has come to point r.
void CheckRanksBehind(Communicator& comm);

// Bytes per operation against the formula, summed over ranks where the formula
// leaves the route open.
void CheckCounters(Communicator& comm);

}  // namespace octet::test

#endif  // OCTET_TESTS_WORKER_COMM_TRANSPORT_CHECKS_H_
