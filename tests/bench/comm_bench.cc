// All-to-all latency and bandwidth of the transports, beside what the host's
// memcpy does in the same run. Run by hand:
//   comm_bench               ranks as threads, 2 and 4
//   mpirun -n 2 comm_bench   ranks as processes
// Per line: bytes to each peer, time per call (median of repetitions), bytes
// that all ranks together received from others per second, and that as a share
// of one thread's memcpy.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "base/logging.h"
#include "worker/comm/local/local_group.h"
#ifdef OCTET_BENCH_MPI
#include "worker/comm/mpi/mpi_environment.h"
#endif

namespace octet {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kPartBytes[] = {512,      4 << 10, 16 << 10,
                                  64 << 10, 1 << 20, 16 << 20};

double Seconds(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2,
                   values.end());
  return values[values.size() / 2];
}

// Bytes per second of a 64 MiB copy by one thread.
double MemcpyBandwidth() {
  const size_t bytes = size_t{64} << 20;
  std::vector<char> from(bytes, 'a');
  std::vector<char> to(bytes, 'b');
  std::vector<double> seconds;
  for (int i = 0; i < 7; ++i) {
    const auto start = Clock::now();
    std::memcpy(to.data(), from.data(), bytes);
    seconds.push_back(Seconds(start));
    OCTET_CHECK(to[i] == 'a');
  }
  return bytes / Median(seconds);
}

// Seconds per AllToAllV with parts of `bytes`, own part empty.
double TimeAllToAll(Communicator& comm, int64_t bytes) {
  const int size = comm.size();
  std::vector<int64_t> sizes(size, bytes);
  std::vector<int64_t> offsets(size);
  for (int peer = 0; peer < size; ++peer) offsets[peer] = peer * bytes;
  sizes[comm.rank()] = 0;
  std::vector<char> send(size * bytes, 'x');
  std::vector<char> recv(size * bytes, 'y');
  const int calls = bytes <= (64 << 10) ? 50 : 2;
  std::vector<double> seconds;
  for (int repetition = 0; repetition < 15; ++repetition) {
    OCTET_CHECK(comm.Barrier({.operation = "start"}).ok());
    const auto start = Clock::now();
    for (int call = 0; call < calls; ++call) {
      const absl::Status status = comm.AllToAllV(
          {send.data(), offsets, sizes, recv.data(), offsets, sizes},
          {.operation = "bench"});
      OCTET_CHECK(status.ok()) << status;
    }
    seconds.push_back(Seconds(start) / calls);
  }
  OCTET_CHECK(size == 1 || recv[(comm.rank() == 0 ? 1 : 0) * bytes] == 'x');
  return Median(seconds);
}

void RunRank(Communicator& comm, double memcpy_bandwidth) {
  for (int64_t bytes : kPartBytes) {
    const double seconds = TimeAllToAll(comm, bytes);
    if (comm.rank() != 0) continue;
    const double bandwidth =
        static_cast<double>(bytes) * comm.size() * (comm.size() - 1) / seconds;
    std::printf("%s R=%d %9lld B to each peer: %10.1f us %7.2f GB/s %4.0f%%\n",
                comm.transport() == "mpi" ? "mpi  " : "local", comm.size(),
                static_cast<long long>(bytes), seconds * 1e6, bandwidth / 1e9,
                100 * bandwidth / memcpy_bandwidth);
    std::fflush(stdout);
  }
}

void RunThreads(int size, double memcpy_bandwidth) {
  auto group = NewLocalGroup(size);
  std::vector<std::thread> threads;
  for (auto& comm : group) {
    threads.emplace_back(
        [&comm, memcpy_bandwidth] { RunRank(*comm, memcpy_bandwidth); });
  }
  for (std::thread& thread : threads) thread.join();
}

void PrintMemcpy(double bandwidth) {
  std::printf("memcpy by one thread: %.2f GB/s; %u cores\n", bandwidth / 1e9,
              std::thread::hardware_concurrency());
}

int Main([[maybe_unused]] int argc, [[maybe_unused]] char** argv) {
#ifdef OCTET_BENCH_MPI
  auto environment = MpiEnvironment::Init(&argc, &argv);
  OCTET_CHECK(environment.ok()) << environment.status();
  if ((*environment)->size() > 1) {
    auto comm = NewMpiCommunicator(**environment);
    OCTET_CHECK(comm.ok()) << comm.status();
    double bandwidth = 0;
    if ((*comm)->rank() == 0) {
      bandwidth = MemcpyBandwidth();
      PrintMemcpy(bandwidth);
    }
    RunRank(**comm, bandwidth);
    return 0;
  }
#endif
  const double bandwidth = MemcpyBandwidth();
  PrintMemcpy(bandwidth);
  for (int size : {2, 4}) RunThreads(size, bandwidth);
  return 0;
}

}  // namespace
}  // namespace octet

int main(int argc, char** argv) { return octet::Main(argc, argv); }
