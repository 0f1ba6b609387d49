#include "tests/cuda_emulation/engine/options.h"

#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <string>
#include <utility>

namespace cuda_emu {
namespace {

std::string Get(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : otherwise;
}

uint64_t Number(const char* name, const char* otherwise) {
  const std::string text = Get(name, otherwise);
  char* end = nullptr;
  const uint64_t value = std::strtoull(text.c_str(), &end, 0);
  if (end == text.c_str() || *end != '\0') {
    std::fprintf(stderr, "cuda_emu: %s is '%s', expected a number\n", name,
                 text.c_str());
    std::exit(2);
  }
  return value;
}

template <class T>
T Choice(const char* name,
         std::initializer_list<std::pair<const char*, T>> choices) {
  const std::string text = Get(name, choices.begin()->first);
  std::string all;
  for (const auto& [word, value] : choices) {
    if (text == word) return value;
    all += std::string(all.empty() ? "" : ", ") + word;
  }
  std::fprintf(stderr, "cuda_emu: %s is '%s', expected one of %s\n", name,
               text.c_str(), all.c_str());
  std::exit(2);
}

Options Read() {
  Options o{};
  o.order = Choice<Order>("CUDA_EMU_ORDER", {{"seq", Order::kSequential},
                                             {"reverse", Order::kReverse},
                                             {"random", Order::kRandom}});
  o.streams =
      Choice<StreamMode>("CUDA_EMU_STREAMS", {{"lazy", StreamMode::kLazy},
                                              {"eager", StreamMode::kEager},
                                              {"random", StreamMode::kRandom}});
  o.seed = Number("CUDA_EMU_SEED", "1");
  o.preempt = static_cast<uint32_t>(Number("CUDA_EMU_PREEMPT", "0"));
  o.protect = Number("CUDA_EMU_PROTECT", "1") != 0;
  o.quiet = Number("CUDA_EMU_QUIET", "0") != 0;
  o.abort_on_error = Number("CUDA_EMU_ABORT", "0") != 0;
  o.arena_bytes = Number("CUDA_EMU_ARENA_GIB", "16") << 30;
  o.memory_bytes = Number("CUDA_EMU_MEMORY", "0");
  if (o.memory_bytes == 0) o.memory_bytes = o.arena_bytes;
  o.kernel_seconds = static_cast<int>(Number("CUDA_EMU_KERNEL_SECONDS", "120"));
  o.nccl_seconds = static_cast<double>(Number("CUDA_EMU_NCCL_TIMEOUT", "30"));
  o.nccl_async_errors =
      Choice<bool>("CUDA_EMU_NCCL_ERRORS", {{"abort", false}, {"async", true}});
  o.nccl_fault =
      Choice<NcclFault>("CUDA_EMU_NCCL_FAULT", {{"none", NcclFault::kNone},
                                                {"count", NcclFault::kCount},
                                                {"stop", NcclFault::kStop},
                                                {"kill", NcclFault::kKill}});
  o.nccl_fault_rank = static_cast<int>(Number("CUDA_EMU_NCCL_FAULT_RANK", "0"));
  o.nccl_fault_group =
      static_cast<int>(Number("CUDA_EMU_NCCL_FAULT_GROUP", "1"));
  o.vary_gemm = static_cast<int>(Number("CUDA_EMU_VARY_GEMM", "1"));
  return o;
}

}  // namespace

const Options& GetOptions() {
  static const Options options = Read();
  return options;
}

// xorshift64 (Marsaglia 2003): reproducible from the seed, good enough for
// orders.
uint64_t Random() {
  static uint64_t state = GetOptions().seed * 0x9E3779B97F4A7C15ull + 1;
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

}  // namespace cuda_emu
