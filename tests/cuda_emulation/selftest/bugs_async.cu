// Asynchronous copies and matrix loads.

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"
#include "tests/cuda_emulation/selftest/bugs.h"
#include "tests/cuda_emulation/selftest/device_buffer.h"

namespace cuda_emu_selftest {
namespace {

using octet::cuda::CpAsync16;
using octet::cuda::CpAsyncCommit;
using octet::cuda::CpAsyncWait;

constexpr int kThreads = 32;

struct alignas(16) Row {
  float v[4];
};

enum class Fault {
  kNone,
  kNoWait,
  kOneGroupTooFew,
  kNoBarrier,
  kNeverWaited,
  kMisalignedTarget,
  kToGlobal,
  kOverwritesWhileRead
};

// out = in twice over: two rounds through one buffer per parity.
template <Fault kFault>
__global__ void Pipeline(const Row* in, Row* out) {
  __shared__ Row stages[2][kThreads];
  const int t = threadIdx.x;
  const int other = kThreads - 1 - t;
  for (int round = 0; round < 2; ++round) {
    char* target = reinterpret_cast<char*>(&stages[round][t]);
    if (kFault == Fault::kMisalignedTarget && t < kThreads - 1) target += 4;
    CpAsync16(kFault == Fault::kToGlobal ? static_cast<void*>(out + t) : target,
              in + round * kThreads + t);
    CpAsyncCommit();
  }
  if (kFault == Fault::kNeverWaited) return;
  if (kFault == Fault::kOneGroupTooFew) {
    CpAsyncWait<1>();
  } else if (kFault != Fault::kNoWait) {
    CpAsyncWait<0>();
  }
  if (kFault != Fault::kNoBarrier) __syncthreads();
  out[t] = stages[0][other];
  out[kThreads + t] = stages[1][other];
  if (kFault == Fault::kOverwritesWhileRead) {
    CpAsync16(&stages[0][t], in + t);
    CpAsyncCommit();
  }
  CpAsyncWait<0>();
}

template <Fault kFault>
void Run() {
  std::vector<Row> rows(2 * kThreads);
  for (size_t i = 0; i < rows.size(); ++i) {
    for (float& v : rows[i].v) v = static_cast<float>(i);
  }
  const DeviceBuffer<Row> in(rows);
  const DeviceBuffer<Row> out(rows);
  (void)OCTET_LAUNCH((Pipeline<kFault>), 1, kThreads, 0, nullptr, in.data(),
                     out.data());
  (void)cudaDeviceSynchronize();
  std::vector<Row> got(rows.size());
  (void)cudaMemcpy(got.data(), out.data(), got.size() * sizeof(Row),
                   cudaMemcpyDeviceToHost);
  WrongDataUnless(got[0].v[0] == rows[kThreads - 1].v[0] &&
                  got[kThreads].v[0] == rows[2 * kThreads - 1].v[0]);
}

__global__ void LdMatrixMisaligned(float* x) {
  __shared__ Row rows[9];
  for (int i = threadIdx.x; i < 9; i += kThreads) rows[i] = Row{};
  __syncwarp();
  uint32_t r[1];
  octet::cuda::LdMatrixX1(r, &rows[threadIdx.x % 8].v[2]);
  x[threadIdx.x] = static_cast<float>(r[0]);
}

__global__ void LdMatrixFromGlobal(float* x) {
  uint32_t r[1];
  octet::cuda::LdMatrixX1(r, x + 4 * (threadIdx.x % 8));
  x[threadIdx.x] = static_cast<float>(r[0]);
}

void RunLdMatrix(void (*kernel)(float*)) {
  const DeviceBuffer<float> x(std::vector<float>(64, 0.0f));
  (void)OCTET_LAUNCH(kernel, 1, kThreads, 0, nullptr, x.data());
  (void)cudaDeviceSynchronize();
}

}  // namespace

std::vector<Bug> AsyncCopyBugs() {
  return {
      {"CpAsyncNotWaitedFor", Run<Fault::kNoWait>, "wrong data", "wrong data",
       "asynchronous copy .cp.async by thread .* was not waited for"},
      {"CpAsyncWaitsForOneGroupTooFew", Run<Fault::kOneGroupTooFew>,
       "wrong data", "wrong data", "was not waited for"},
      {"CpAsyncWithoutBarrier", Run<Fault::kNoBarrier>, "wrong data", "",
       "race .* on shared memory|was not waited for|uninitialised"},
      {"CpAsyncNeverWaitedFor", Run<Fault::kNeverWaited>,
       "ends with asynchronous copies", "", ""},
      {"CpAsyncMisaligned", Run<Fault::kMisalignedTarget>,
       "cp.async to a misaligned shared address", "", ""},
      {"CpAsyncToGlobal", Run<Fault::kToGlobal>, "cp.async to global memory",
       "", ""},
      {"CpAsyncOverwritesWhileRead", Run<Fault::kOverwritesWhileRead>, "", "",
       "race .write after read. on shared memory"},
      {"LdMatrixMisaligned", [] { RunLdMatrix(LdMatrixMisaligned); },
       "ldmatrix from a misaligned row", "", ""},
      {"LdMatrixFromGlobal", [] { RunLdMatrix(LdMatrixFromGlobal); },
       "ldmatrix from global memory", "", ""},
  };
}

}  // namespace cuda_emu_selftest
