// Speed of the expert products of one MoE layer against the limits of this
// machine, measured in the same run.
//
//   kernels_bench [threads] [layers] [isa] [seconds per line]
//
// Workload: H 4096, F 14336, 8 experts, bf16 weights, `layers` layers that are
// gone through in turn so that weights come from memory. A line is the time of
// SwiGLU (W1, W3) and down (W2) products.
//   decode   T tokens, each to 2 of the 8 experts in turn. Bytes are the
//            weights of the experts that got a row.
//   prefill  T rows through one expert after the other.
// `bound` is the smaller of read bandwidth and matrix peak for that line.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "base/logging.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/machine_limits.h"
#include "kernels/cpu/packed_matrix.h"

namespace octet {
namespace {

using cpu::CpuPackedMatrix;

constexpr int64_t kHidden = 4096;
constexpr int64_t kFfn = 14336;
constexpr int kExperts = 8;
constexpr int kTopK = 2;

struct Experts {
  std::vector<std::unique_ptr<CpuPackedMatrix>> owned;
  std::vector<const PackedMatrix*> w13;
  std::vector<const PackedMatrix*> w2;
};

struct Limits {
  double bytes_per_second;
  double flop_per_second;
};

// Weights of about 1/64 in size; panels are filled as they lie in memory.
const PackedMatrix* AddMatrix(DType dtype, int64_t n, int64_t k,
                              cpu::ThreadPool& pool, Experts* experts) {
  auto matrix = CpuPackedMatrix::Create(dtype, n, k);
  OCTET_CHECK(matrix.ok()) << matrix.status();
  CpuPackedMatrix& w = **matrix;
  pool.ParallelFor(w.num_panels(), [&](int64_t panel, int) {
    uint32_t state = static_cast<uint32_t>(panel) * 2654435761u + 1;
    auto* words = reinterpret_cast<uint32_t*>(w.mutable_panel(panel));
    for (size_t i = 0; i < w.panel_bytes() / 4; ++i) {
      state = state * 1664525u + 1013904223u;
      words[i] = 0x3c003c00u | (state & 0x80ff80ffu);
    }
  });
  experts->owned.push_back(*std::move(matrix));
  return experts->owned.back().get();
}

Experts MakeExperts(DType dtype, int count, cpu::ThreadPool& pool) {
  Experts experts;
  for (int e = 0; e < count; ++e) {
    experts.w13.push_back(AddMatrix(dtype, 2 * kFfn, kHidden, pool, &experts));
    experts.w2.push_back(AddMatrix(dtype, kHidden, kFfn, pool, &experts));
  }
  return experts;
}

class Bench {
 public:
  Bench(DType dtype, const Experts& experts, const Limits& limits,
        double seconds, cpu::GemmWorkspace& workspace)
      : dtype_(dtype),
        experts_(experts),
        limits_(limits),
        seconds_(seconds),
        workspace_(workspace) {}

  void Decode(int64_t tokens) {
    std::vector<int64_t> rows(kExperts, 0);
    for (int64_t i = 0; i < tokens * kTopK; ++i) ++rows[i % kExperts];
    Line("decode", tokens, rows, kExperts);
  }
  void Prefill(int64_t tokens) { Line("prefill", tokens, {tokens}, 1); }

 private:
  // Each repetition uses the next `stride` experts.
  void Line(const char* kind, int64_t tokens, const std::vector<int64_t>& rows,
            size_t stride) {
    std::vector<int64_t> offsets = {0};
    size_t active = 0;
    for (int64_t count : rows) {
      offsets.push_back(offsets.back() + count);
      active += count > 0;
    }
    const int64_t total = offsets.back();
    const size_t size = SizeOf(dtype_);
    std::vector<std::byte> x(total * kHidden * size, std::byte{0x3c});
    std::vector<std::byte> h(total * kFfn * size);
    std::vector<float> y(total * kHidden);
    std::vector<double> times;
    double sum = 0;
    size_t first = 0;
    while (times.size() < 3 || sum < seconds_) {
      const auto begin = std::chrono::steady_clock::now();
      const auto w13 = absl::MakeSpan(experts_.w13).subspan(first, stride);
      const auto w2 = absl::MakeSpan(experts_.w2).subspan(first, stride);
      OCTET_CHECK(
          GroupedGemmSwiGlu(ConstTensor(x.data(), dtype_, {total, kHidden}),
                            w13, offsets,
                            Tensor(h.data(), dtype_, {total, kFfn}), workspace_)
              .ok());
      OCTET_CHECK(GroupedGemm(ConstTensor(h.data(), dtype_, {total, kFfn}), w2,
                              offsets, false,
                              Tensor(y.data(), DType::kF32, {total, kHidden}),
                              workspace_)
                      .ok());
      times.push_back(std::chrono::duration<double>(
                          std::chrono::steady_clock::now() - begin)
                          .count());
      sum += times.back();
      first = (first + stride) % experts_.w13.size();
    }
    const double parameters = 3.0 * kHidden * kFfn;
    Print(kind, tokens, active * parameters * size, 2 * parameters * total,
          times);
  }

  void Print(const char* kind, int64_t tokens, double bytes, double flop,
             std::vector<double> times) const {
    std::sort(times.begin(), times.end());
    const double median = times[times.size() / 2];
    const double bound = std::max(bytes / limits_.bytes_per_second,
                                  flop / limits_.flop_per_second);
    std::printf(
        "%-7s %-4s T %4lld  %8.2f ms (best %8.2f)  %6.1f GB/s %3.0f %%  "
        "%7.1f GFLOP/s %3.0f %%  of bound %3.0f %% (best %3.0f %%)\n",
        kind, std::string(Name(dtype_)).c_str(), static_cast<long long>(tokens),
        median * 1e3, times[0] * 1e3, bytes / median / 1e9,
        100 * bytes / median / limits_.bytes_per_second, flop / median / 1e9,
        100 * flop / median / limits_.flop_per_second, 100 * bound / median,
        100 * bound / times[0]);
    std::fflush(stdout);
  }

  const DType dtype_;
  const Experts& experts_;
  const Limits limits_;
  const double seconds_;
  cpu::GemmWorkspace& workspace_;
};

int Main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 2;
  const int layers = argc > 2 ? std::atoi(argv[2]) : 2;
  const auto isa = argc > 3 ? cpu::ParseIsa(argv[3])
                            : absl::StatusOr<cpu::Isa>(cpu::BestIsa());
  const double seconds = argc > 4 ? std::atof(argv[4]) : 1.0;
  if (threads < 1 || layers < 1 || !isa.ok()) {
    std::fprintf(stderr,
                 "usage: kernels_bench [threads] [layers] [isa] [seconds]\n");
    return 2;
  }
  cpu::ThreadPool pool(threads);
  cpu::GemmWorkspace workspace(*isa, &pool);
  const auto bandwidth =
      cpu::MeasureReadBandwidth(*isa, pool, size_t{512} << 20);
  OCTET_CHECK(bandwidth.ok()) << bandwidth.status();
  std::printf("machine: %s; threads %d; isa %s\n",
              cpu::DescribeMachine().c_str(), threads,
              std::string(cpu::Name(*isa)).c_str());
  std::printf("workload: H %lld F %lld experts %d top-%d layers %d\n",
              static_cast<long long>(kHidden), static_cast<long long>(kFfn),
              kExperts, kTopK, layers);
  for (DType dtype : {DType::kBF16, DType::kF32}) {
    const Limits limits = {*bandwidth,
                           cpu::MeasureMatrixPeak(*isa, dtype, pool)};
    std::printf("limits: read %.1f GB/s, %s %.0f GFLOP/s\n",
                limits.bytes_per_second / 1e9, std::string(Name(dtype)).c_str(),
                limits.flop_per_second / 1e9);
    const bool bf16 = dtype == DType::kBF16;
    const Experts experts =
        MakeExperts(dtype, bf16 ? layers * kExperts : 2, pool);
    Bench bench(dtype, experts, limits, seconds, workspace);
    if (bf16) {
      for (int64_t tokens : {1, 2, 4, 8, 16}) bench.Decode(tokens);
    }
    for (int64_t tokens : {16, 64, 128, 512}) bench.Prefill(tokens);
  }
  return 0;
}

}  // namespace
}  // namespace octet

int main(int argc, char** argv) { return octet::Main(argc, argv); }
