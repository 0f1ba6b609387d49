// Tokens per second of one thread, encoding and decoding the texts of
// ../shared/data line by line; skips what is absent. Each text must come back
// from its tokens before it is timed.
//   build/bin/tokenizer_bench [--benchmark_filter=mixtral]
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "text/tokenizer.h"

namespace octet {
namespace {

constexpr size_t kTextBytes = 1 << 20;  // of the beginning of each file

struct Workload {
  std::unique_ptr<Tokenizer> tokenizer;
  std::vector<std::string> lines;
  std::vector<std::vector<int32_t>> ids;
  int64_t num_bytes = 0;
  int64_t num_tokens = 0;
};

// False, and the benchmark is skipped with the reason, when a file is absent.
bool Prepare(const std::string& model, const std::string& text,
             benchmark::State& state, Workload& workload) {
  auto tokenizer = Tokenizer::Load(model);
  if (!tokenizer.ok()) {
    state.SkipWithError(std::string(tokenizer.status().message()).c_str());
    return false;
  }
  workload.tokenizer = *std::move(tokenizer);
  std::ifstream file(text, std::ios::binary);
  std::string bytes(std::istreambuf_iterator<char>(file), {});
  bytes.resize(std::min(bytes.size(), kTextBytes));
  bytes.erase(bytes.rfind('\n') + 1);
  workload.lines = absl::StrSplit(bytes, '\n', absl::SkipEmpty());
  if (workload.lines.empty()) {
    state.SkipWithError(absl::StrCat(text, ": no text").c_str());
    return false;
  }
  for (const std::string& line : workload.lines) {
    workload.ids.push_back(workload.tokenizer->Encode(line));
    workload.num_bytes += static_cast<int64_t>(line.size());
    workload.num_tokens += static_cast<int64_t>(workload.ids.back().size());
    if (workload.tokenizer->Decode(workload.ids.back()).value() != line) {
      state.SkipWithError(absl::StrCat(text, ": did not come back").c_str());
      return false;
    }
  }
  return true;
}

void SetRates(const Workload& workload, benchmark::State& state) {
  state.SetBytesProcessed(state.iterations() * workload.num_bytes);
  state.counters["tokens/s"] = benchmark::Counter(
      static_cast<double>(state.iterations() * workload.num_tokens),
      benchmark::Counter::kIsRate);
  state.counters["bytes/token"] = static_cast<double>(workload.num_bytes) /
                                  static_cast<double>(workload.num_tokens);
}

void Encode(benchmark::State& state, const std::string& model,
            const std::string& text) {
  Workload workload;
  if (!Prepare(model, text, state, workload)) return;
  for (auto _ : state) {
    for (const std::string& line : workload.lines) {
      benchmark::DoNotOptimize(workload.tokenizer->Encode(line));
    }
  }
  SetRates(workload, state);
}

void Decode(benchmark::State& state, const std::string& model,
            const std::string& text) {
  Workload workload;
  if (!Prepare(model, text, state, workload)) return;
  for (auto _ : state) {
    for (const std::vector<int32_t>& ids : workload.ids) {
      benchmark::DoNotOptimize(workload.tokenizer->Decode(ids));
    }
  }
  SetRates(workload, state);
}

void Load(benchmark::State& state, const std::string& model) {
  for (auto _ : state) {
    const auto tokenizer = Tokenizer::Load(model);
    if (!tokenizer.ok()) {
      state.SkipWithError(std::string(tokenizer.status().message()).c_str());
      return;
    }
  }
}

void RegisterAll(const std::string& source_dir) {
  const std::string data = absl::StrCat(source_dir, "/../shared/data");
  const std::pair<std::string, std::string> models[] = {
      {"mixtral", absl::StrCat(data, "/tokenizer/tokenizer.model")},
      {"quickstart",
       absl::StrCat(source_dir, "/launch/quickstart_model/tokenizer.model")}};
  for (const auto& [name, model] : models) {
    benchmark::RegisterBenchmark(absl::StrCat("load/", name).c_str(), Load,
                                 model)
        ->Unit(benchmark::kMillisecond);
    for (const char* file : {"en_brown", "zh_tang_poems"}) {
      const std::string text = absl::StrCat(data, "/text/", file, ".txt");
      const std::string suffix = absl::StrCat("/", name, "/", file);
      benchmark::RegisterBenchmark(absl::StrCat("encode", suffix).c_str(),
                                   Encode, model, text)
          ->Unit(benchmark::kMillisecond);
      benchmark::RegisterBenchmark(absl::StrCat("decode", suffix).c_str(),
                                   Decode, model, text)
          ->Unit(benchmark::kMillisecond);
    }
  }
}

}  // namespace
}  // namespace octet

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  octet::RegisterAll(OCTET_SOURCE_DIR);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
