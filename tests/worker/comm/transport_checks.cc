#include "tests/worker/comm/transport_checks.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace octet::test {
namespace {

constexpr uint8_t kUntouched = 0xA5;

// The byte that `sender` sends to `receiver` at `index` in round `round`: both
// sides compute it, so a byte tells where it came from.
uint8_t Provenance(uint64_t round, int sender, int receiver, int64_t index) {
  uint64_t x = round * 0x9E3779B97F4A7C15u + sender * 0xBF58476D1CE4E5B9u +
               receiver * 0x94D049BB133111EBu + index * 0xD6E8FEB86659FD93u;
  x ^= x >> 29;
  x *= 0xBF58476D1CE4E5B9u;
  return static_cast<uint8_t>(x >> 56);
}

enum class Split { kUneven, kEmpty, kOneHot, kSelfOnly, kEven, kNumSplits };

// table[sender][receiver] in bytes; equal on all ranks.
std::vector<std::vector<int64_t>> SplitTable(int size, Split split,
                                             std::mt19937_64& random) {
  std::vector<std::vector<int64_t>> table(size, std::vector<int64_t>(size, 0));
  const int hot = static_cast<int>(random() % size);
  for (int sender = 0; sender < size; ++sender) {
    for (int receiver = 0; receiver < size; ++receiver) {
      int64_t& bytes = table[sender][receiver];
      const int64_t drawn = static_cast<int64_t>(random() % 40000);
      switch (split) {
        case Split::kUneven:
          bytes = random() % 4 == 0 ? 0 : drawn;
          break;
        case Split::kOneHot:
          bytes = receiver == hot ? drawn : 0;
          break;
        case Split::kSelfOnly:
          bytes = receiver == sender ? drawn : 0;
          break;
        case Split::kEven:
          bytes = 4096;
          break;
        case Split::kEmpty:
        case Split::kNumSplits:
          break;
      }
    }
  }
  return table;
}

// Parts in a shuffled order with gaps between them.
std::vector<int64_t> ScatteredOffsets(const std::vector<int64_t>& part_bytes,
                                      std::mt19937_64& random,
                                      int64_t* total_bytes) {
  std::vector<int> order(part_bytes.size());
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random);
  std::vector<int64_t> offsets(part_bytes.size());
  int64_t end = 0;
  for (int part : order) {
    end += static_cast<int64_t>(random() % 7);
    offsets[part] = end;
    end += part_bytes[part];
  }
  *total_bytes = end + 3;
  return offsets;
}

void AllToAllVRound(Communicator& comm, uint64_t round, Split split,
                    std::mt19937_64& shared, std::mt19937_64& own) {
  SCOPED_TRACE("rank " + std::to_string(comm.rank()) + " round " +
               std::to_string(round));
  const auto table = SplitTable(comm.size(), split, shared);
  const int me = comm.rank();
  const std::vector<int64_t>& send_bytes = table[me];
  std::vector<int64_t> recv_bytes(comm.size());
  for (int peer = 0; peer < comm.size(); ++peer) {
    recv_bytes[peer] = table[peer][me];
  }
  int64_t send_total = 0;
  int64_t recv_total = 0;
  const auto send_offsets = ScatteredOffsets(send_bytes, own, &send_total);
  const auto recv_offsets = ScatteredOffsets(recv_bytes, own, &recv_total);
  std::vector<uint8_t> send(send_total, 0);
  std::vector<uint8_t> recv(recv_total, kUntouched);
  std::vector<uint8_t> expected = recv;
  for (int peer = 0; peer < comm.size(); ++peer) {
    for (int64_t i = 0; i < send_bytes[peer]; ++i) {
      send[send_offsets[peer] + i] = Provenance(round, me, peer, i);
    }
    for (int64_t i = 0; i < recv_bytes[peer]; ++i) {
      expected[recv_offsets[peer] + i] = Provenance(round, peer, me, i);
    }
  }
  const absl::Status status =
      comm.AllToAllV({send.data(), send_offsets, send_bytes, recv.data(),
                      recv_offsets, recv_bytes},
                     {.operation = "dispatch", .layer = 3, .step_id = 17});
  ASSERT_TRUE(status.ok()) << status;
  // The sender may write again as soon as its call has returned.
  std::fill(send.begin(), send.end(), 0);
  EXPECT_TRUE(recv == expected) << "bytes are not where they belong";
}

void AllGatherRound(Communicator& comm, int64_t bytes) {
  std::vector<uint8_t> send(bytes);
  for (int64_t i = 0; i < bytes; ++i) {
    send[i] = Provenance(bytes, comm.rank(), 0, i);
  }
  std::vector<uint8_t> recv(bytes * comm.size(), kUntouched);
  std::vector<uint8_t> expected = recv;
  for (int peer = 0; peer < comm.size(); ++peer) {
    for (int64_t i = 0; i < bytes; ++i) {
      expected[peer * bytes + i] = Provenance(bytes, peer, 0, i);
    }
  }
  const absl::Status status =
      comm.AllGather(send.data(), recv.data(), bytes, {.operation = "gather"});
  ASSERT_TRUE(status.ok()) << "rank " << comm.rank() << ": " << status;
  EXPECT_TRUE(recv == expected) << "rank " << comm.rank();
}

void BroadcastRound(Communicator& comm, int root, int64_t bytes) {
  std::vector<uint8_t> data(bytes, kUntouched);
  std::vector<uint8_t> expected(bytes);
  for (int64_t i = 0; i < bytes; ++i)
    expected[i] = Provenance(bytes, root, 1, i);
  if (comm.rank() == root) data = expected;
  const absl::Status status =
      comm.Broadcast(data.data(), bytes, root, {.operation = "plan"});
  ASSERT_TRUE(status.ok()) << "rank " << comm.rank() << ": " << status;
  EXPECT_TRUE(data == expected) << "rank " << comm.rank() << " root " << root;
}

void AllReduceRound(Communicator& comm, int64_t count, ReduceOp reduce) {
  const auto value = [](int rank, int64_t i) {
    return (rank + 1) * 1000003 - i * 77 * (rank % 2 == 0 ? 1 : -1);
  };
  std::vector<int64_t> values(count);
  std::vector<int64_t> expected(count);
  for (int64_t i = 0; i < count; ++i) {
    values[i] = value(comm.rank(), i);
    expected[i] = value(0, i);
    for (int rank = 1; rank < comm.size(); ++rank) {
      expected[i] = reduce == ReduceOp::kSum
                        ? expected[i] + value(rank, i)
                        : std::max<int64_t>(expected[i], value(rank, i));
    }
  }
  const absl::Status status =
      comm.AllReduceI64(absl::MakeSpan(values), reduce, {.operation = "count"});
  ASSERT_TRUE(status.ok()) << "rank " << comm.rank() << ": " << status;
  EXPECT_EQ(values, expected) << "rank " << comm.rank();
}

OpCounters CountersOf(const Communicator& comm, absl::string_view operation) {
  for (const OpCounters& counters : comm.counters()) {
    if (counters.operation == operation) return counters;
  }
  return {};
}

}  // namespace

void CheckAllToAllVProvenance(Communicator& comm, uint64_t seed) {
  std::mt19937_64 shared(seed);
  std::mt19937_64 own(seed * 1000 + comm.rank());
  for (int round = 0; round < 4 * static_cast<int>(Split::kNumSplits);
       ++round) {
    const int split = round % static_cast<int>(Split::kNumSplits);
    AllToAllVRound(comm, seed + round, static_cast<Split>(split), shared, own);
  }
}

void CheckLargeParts(Communicator& comm, int64_t part_bytes) {
  const int size = comm.size();
  std::vector<int64_t> bytes(size, part_bytes);
  std::vector<int64_t> offsets(size);
  for (int peer = 0; peer < size; ++peer) offsets[peer] = peer * part_bytes;
  std::vector<uint8_t> send(size * part_bytes);
  std::vector<uint8_t> recv(size * part_bytes, kUntouched);
  for (int peer = 0; peer < size; ++peer) {
    for (int64_t i = 0; i < part_bytes; ++i) {
      send[offsets[peer] + i] = Provenance(1, comm.rank(), peer, i);
    }
  }
  const absl::Status status =
      comm.AllToAllV({send.data(), offsets, bytes, recv.data(), offsets, bytes},
                     {.operation = "large"});
  ASSERT_TRUE(status.ok()) << "rank " << comm.rank() << ": " << status;
  int64_t wrong = 0;
  for (int peer = 0; peer < size; ++peer) {
    for (int64_t i = 0; i < part_bytes; ++i) {
      wrong += recv[offsets[peer] + i] != Provenance(1, peer, comm.rank(), i);
    }
  }
  EXPECT_EQ(wrong, 0) << "rank " << comm.rank();
}

void CheckAllGather(Communicator& comm) {
  for (int64_t bytes : {0, 1, 8, 1000, 20000, 300000}) {
    AllGatherRound(comm, bytes);
  }
}

void CheckAllReduce(Communicator& comm) {
  for (int64_t count : {0, 1, 5, 64, 5000}) {
    AllReduceRound(comm, count, ReduceOp::kSum);
    AllReduceRound(comm, count, ReduceOp::kMax);
  }
}

void CheckBroadcast(Communicator& comm) {
  for (int root = 0; root < comm.size(); ++root) {
    for (int64_t bytes : {0, 1, 300, 20000, 300000}) {
      BroadcastRound(comm, root, bytes);
    }
  }
}

void CheckBarrier(Communicator& comm) {
  // Every rank in turn is late; no rank may leave before the late one came, and
  // a clock shared by all ranks of a machine shows it.
  for (int late = 0; late < comm.size(); ++late) {
    if (comm.rank() == late) absl::SleepFor(absl::Milliseconds(5));
    int64_t entered = absl::GetCurrentTimeNanos();
    ASSERT_TRUE(comm.Barrier({.operation = "barrier"}).ok());
    int64_t left = -absl::GetCurrentTimeNanos();
    ASSERT_TRUE(comm.AllReduceI64(absl::MakeSpan(&entered, 1), ReduceOp::kMax,
                                  {.operation = "last in"})
                    .ok());
    ASSERT_TRUE(comm.AllReduceI64(absl::MakeSpan(&left, 1), ReduceOp::kMax,
                                  {.operation = "first out"})
                    .ok());
    EXPECT_LE(entered, -left) << "rank " << comm.rank();
  }
}

void CheckRandomSequence(Communicator& comm, uint64_t seed, int num_calls) {
  std::mt19937_64 shared(seed);
  std::mt19937_64 own(seed + 1 + comm.rank());
  for (int call = 0; call < num_calls; ++call) {
    const int64_t bytes = static_cast<int64_t>(shared() % 20000);
    const int root = static_cast<int>(shared() % comm.size());
    const auto split =
        static_cast<Split>(shared() % static_cast<uint64_t>(Split::kNumSplits));
    switch (shared() % 5) {
      case 0:
        AllToAllVRound(comm, seed + call, split, shared, own);
        break;
      case 1:
        AllGatherRound(comm, bytes);
        break;
      case 2:
        AllReduceRound(comm, bytes % 300,
                       root % 2 == 0 ? ReduceOp::kSum : ReduceOp::kMax);
        break;
      case 3:
        BroadcastRound(comm, root, bytes);
        break;
      case 4:
        ASSERT_TRUE(comm.Barrier({.operation = "barrier"}).ok());
        break;
    }
    if (::testing::Test::HasFatalFailure()) return;
  }
}

void CheckRanksBehind(Communicator& comm) {
  constexpr absl::Duration kPatience = absl::Seconds(30);  // not needed
  for (int asking = 0; asking < comm.size(); ++asking) {
    comm.SetProgress(comm.rank());
    ASSERT_TRUE(comm.Barrier({.operation = "progress is set"}).ok());
    std::vector<int> behind;
    for (int point = 0; comm.rank() == asking && point <= comm.size();
         ++point) {
      EXPECT_EQ(comm.RanksBehind(point, kPatience), behind) << point;
      behind.push_back(point);
    }
    ASSERT_TRUE(comm.Barrier({.operation = "asked"}).ok());
  }
}

void CheckCounters(Communicator& comm) {
  const int size = comm.size();
  const int64_t others = size - 1;
  std::vector<int64_t> bytes(size);
  std::vector<int64_t> recv_bytes(size);
  std::vector<int64_t> offsets(size);
  int64_t sent = 0;
  int64_t received = 0;
  for (int peer = 0; peer < size; ++peer) {
    offsets[peer] = peer * 100;
    bytes[peer] = comm.rank() + 2 * peer;
    recv_bytes[peer] = peer + 2 * comm.rank();
    sent += peer == comm.rank() ? 0 : bytes[peer];
    received += peer == comm.rank() ? 0 : recv_bytes[peer];
  }
  std::vector<uint8_t> send(size * 100);
  std::vector<uint8_t> recv(size * 100);
  for (int call = 0; call < 3; ++call) {
    ASSERT_TRUE(comm.AllToAllV({send.data(), offsets, bytes, recv.data(),
                                offsets, recv_bytes},
                               {.operation = "counted dispatch"})
                    .ok());
  }
  ASSERT_TRUE(comm.AllGather(send.data(), recv.data(), 100,
                             {.operation = "counted gather"})
                  .ok());
  ASSERT_TRUE(
      comm.Broadcast(send.data(), 77, 0, {.operation = "counted plan"}).ok());
  const OpCounters dispatch = CountersOf(comm, "counted dispatch");
  EXPECT_EQ(dispatch.calls, 3);
  EXPECT_EQ(dispatch.bytes_sent, 3 * sent) << "rank " << comm.rank();
  EXPECT_EQ(dispatch.bytes_received, 3 * received) << "rank " << comm.rank();
  EXPECT_GT(dispatch.waited, absl::ZeroDuration());
  const OpCounters gather = CountersOf(comm, "counted gather");
  EXPECT_EQ(gather.bytes_received, 100 * others);
  EXPECT_EQ(gather.bytes_sent, 100 * others);
  // A broadcast's route is the transport's own: each rank but the root receives
  // once, and what is received was sent.
  const OpCounters plan = CountersOf(comm, "counted plan");
  EXPECT_EQ(plan.bytes_received, comm.rank() == 0 ? 0 : 77);
  int64_t plan_sent = plan.bytes_sent;
  ASSERT_TRUE(comm.AllReduceI64(absl::MakeSpan(&plan_sent, 1), ReduceOp::kSum,
                                {.operation = "sum"})
                  .ok());
  EXPECT_EQ(plan_sent, 77 * others);
}

}  // namespace octet::test
