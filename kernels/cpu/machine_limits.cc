#include "kernels/cpu/machine_limits.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <fstream>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cpu/aligned_memory.h"
#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/limit_kernels.h"

namespace octet::cpu {
namespace {

constexpr int kRepetitions = 5;
constexpr int64_t kPeakRounds = 2'000'000;  // about 5 ms

double Seconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

// The shortest time of body(thread) on every thread of the pool at once.
template <typename Body>
double BestSeconds(ThreadPool& pool, Body body) {
  const int num_threads = pool.num_threads();
  double best = 0;
  for (int repetition = 0; repetition < kRepetitions; ++repetition) {
    // Each item waits for the others, so that every thread gets one.
    std::atomic<int> arrived{0};
    std::vector<std::chrono::steady_clock::time_point> begin(num_threads);
    pool.ParallelFor(num_threads, [&](int64_t item, int) {
      ++arrived;
      while (arrived < num_threads) std::this_thread::yield();
      begin[item] = std::chrono::steady_clock::now();
      body(static_cast<int>(item));
    });
    const double seconds =
        Seconds(std::chrono::steady_clock::now() -
                *std::min_element(begin.begin(), begin.end()));
    best = repetition == 0 ? seconds : std::min(best, seconds);
  }
  return best;
}

PeakLoop PeakLoopFor(Isa isa, DType dtype) {
  if (isa == Isa::kAvx2) return &PeakF32Avx2;
  if (isa == Isa::kAvx512 || dtype == DType::kF32) return &PeakF32Avx512;
  return isa == Isa::kAmx ? &PeakBf16Amx : &PeakBf16Avx512;
}

}  // namespace

// Four independent tiles of sums, as many as the products use.
int64_t PeakBf16Amx(int64_t rounds) {
  HardwareTiles tiles;
  HardwareTiles::Configure();
  tiles.Zero<0>();
  tiles.Zero<1>();
  tiles.Zero<2>();
  tiles.Zero<3>();
  tiles.Zero<4>();
  tiles.Zero<5>();
  const int64_t dots = rounds / 16;
  for (int64_t i = 0; i < dots; ++i) {
    tiles.Dot<0, 4, 5>();
    tiles.Dot<1, 4, 5>();
    tiles.Dot<2, 4, 5>();
    tiles.Dot<3, 4, 5>();
  }
  HardwareTiles::Release();
  return dots * 4 * kTileRows * kTileRows * kTileRows * 4;
}

absl::StatusOr<double> MeasureReadBandwidth(Isa isa, ThreadPool& pool,
                                            size_t bytes_per_thread) {
  constexpr size_t kUnit = 1024;
  bytes_per_thread = std::max(kUnit, bytes_per_thread / kUnit * kUnit);
  std::vector<AlignedMemory> buffers(pool.num_threads());
  for (AlignedMemory& buffer : buffers) {
    OCTET_ASSIGN_OR_RETURN(buffer, AlignedMemory::Allocate(bytes_per_thread));
  }
  // Written once: pages that were only read are all the same zero page.
  pool.ParallelFor(pool.num_threads(), [&](int64_t i, int) {
    std::memset(buffers[i].data(), 0, bytes_per_thread);
  });
  const ReadLoop read = isa == Isa::kAvx2 ? &ReadAvx2 : &ReadAvx512;
  const double seconds = BestSeconds(pool, [&](int thread) {
    read(static_cast<const std::byte*>(buffers[thread].data()),
         bytes_per_thread);
  });
  return static_cast<double>(bytes_per_thread) * pool.num_threads() / seconds;
}

double MeasureMatrixPeak(Isa isa, DType dtype, ThreadPool& pool) {
  const PeakLoop loop = PeakLoopFor(isa, dtype);
  std::vector<int64_t> operations(pool.num_threads());
  const double seconds = BestSeconds(
      pool, [&](int thread) { operations[thread] = loop(kPeakRounds); });
  double sum = 0;
  for (int64_t count : operations) sum += static_cast<double>(count);
  return sum / seconds;
}

std::string DescribeMachine() {
  std::string model = "unknown processor";
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.rfind("model name", 0) == 0) {
      model = line.substr(line.find(": ") + 2);
      break;
    }
  }
  return absl::StrCat(model, ", ", std::thread::hardware_concurrency(),
                      " processors, ", Name(BestIsa()));
}

}  // namespace octet::cpu
