#include "worker/checkpoint/merge.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/quant/nf4.h"
#include "worker/checkpoint/float_reader.h"
#include "worker/checkpoint/hf_checkpoint.h"
#include "worker/checkpoint/peft_adapter.h"
#include "worker/checkpoint/safetensors_writer.h"
#include "worker/checkpoint/staged_directory.h"

namespace octet {
namespace {

namespace fs = std::filesystem;

constexpr char kWeight[] = ".weight";
// Files beside the tensors that go with a model.
constexpr const char* kSideFiles[] = {"config.json",
                                      "generation_config.json",
                                      "tokenizer.model",
                                      "tokenizer.json",
                                      "tokenizer_config.json",
                                      "special_tokens_map.json",
                                      "model.safetensors.index.json"};

// The last part of a module's name: "q_proj".
absl::string_view KindOf(absl::string_view module) {
  return module.substr(module.rfind('.') + 1);
}

bool IsQuantized(absl::string_view kind, const Quantization& quantization) {
  if (!quantization.nf4) return false;
  if (kind == "gate") return quantization.gate;
  for (const char* name :
       {"q_proj", "k_proj", "v_proj", "o_proj", "w1", "w2", "w3"}) {
    if (kind == name) return true;
  }
  return false;
}

// A matrix after NF4 and back, in place.
void RoundTripNf4(std::vector<float>& weights, cpu::ThreadPool& pool) {
  const int64_t num_blocks = static_cast<int64_t>(weights.size()) / kNf4Block;
  std::vector<uint8_t> codes(weights.size());
  std::vector<float> absmax(num_blocks);
  pool.ParallelFor(num_blocks, [&](int64_t block, int) {
    absmax[block] = QuantizeNf4Block(weights.data() + block * kNf4Block,
                                     codes.data() + block * kNf4Block);
  });
  const Nf4Scales scales = QuantizeNf4Scales(absmax);
  pool.ParallelFor(num_blocks, [&](int64_t block, int) {
    const float scale = scales.Absmax(block);
    for (int64_t i = block * kNf4Block; i < (block + 1) * kNf4Block; ++i) {
      weights[i] = kNf4Levels[codes[i]] * scale;
    }
  });
}

double SumOfSquares(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += double{value} * value;
  return sum;
}

// The low-rank change of one module.
struct LowRank {
  int64_t rows = 0, cols = 0, rank = 0;
  float scale = 1;
  std::vector<float> a;  // [rank, cols]
  std::vector<float> b;  // [rows, rank]

  // s B A of one row, into `out` [cols].
  void Row(int64_t row, float* out) const {
    std::fill(out, out + cols, 0.0f);
    for (int64_t r = 0; r < rank; ++r) {
      const float factor = b[row * rank + r];
      const float* from = a.data() + r * cols;
      for (int64_t c = 0; c < cols; ++c) out[c] += factor * from[c];
    }
    for (int64_t c = 0; c < cols; ++c) out[c] *= scale;
  }
};

struct Sums {
  int64_t tensors = 0;
  double base = 0, change = 0, rounding = 0, quantized = 0;
};

class Merger {
 public:
  Merger(const MergeOptions& options, const HfCheckpoint& base,
         const PeftAdapter& adapter, const SafetensorsFile& tensors)
      : options_(options),
        base_(base),
        adapter_(adapter),
        tensors_(tensors),
        pool_(options.num_threads > 0
                  ? options.num_threads
                  : std::max(1u, std::thread::hardware_concurrency())) {}

  // Every tensor of the adapter has its place in the base.
  absl::Status Check() const {
    for (const SafetensorsEntry& entry : tensors_.entries()) {
      absl::string_view name = entry.name;
      const bool lora = absl::StrContains(name, ".lora_");
      const bool known = absl::ConsumePrefix(&name, "base_model.model.");
      const std::string target =
          lora ? absl::StrCat(name.substr(0, name.find(".lora_")), kWeight)
               : std::string(name);
      if (known && base_.Find(target).has_value()) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(tensors_.path(), ": tensor '", entry.name, "' has no '",
                       target, "' in ", base_.listing_path(),
                       ", expected a base with one tensor for each module"));
    }
    for (const std::string& name : base_.names()) {
      const TensorRef ref = *base_.Find(name);
      const absl::StatusOr<std::unique_ptr<LowRank>> change =
          ReadLowRank(name, *ref.entry, /*data=*/false);
      OCTET_RETURN_IF_ERROR(change.status());
    }
    return absl::OkStatus();
  }

  absl::StatusOr<MergeReport> Run(const std::string& dir) {
    for (const auto& file : base_.files()) {
      total_ += static_cast<int64_t>(FileBytes(*file));
    }
    for (const auto& file : base_.files()) {
      OCTET_RETURN_IF_ERROR(WriteFile(*file, dir));
    }
    for (const auto& [kind, sums] : sums_) {
      const double base = std::sqrt(std::max(sums.base, 1e-300));
      report_.modules.push_back(
          {kind, sums.tensors, std::sqrt(sums.change) / base,
           std::sqrt(sums.rounding) / base, std::sqrt(sums.quantized) / base});
    }
    return report_;
  }

 private:
  static uint64_t FileBytes(const SafetensorsFile& file) {
    uint64_t bytes = 0;
    for (const SafetensorsEntry& entry : file.entries()) {
      bytes += entry.num_bytes();
    }
    return bytes;
  }

  // nullptr: the tensor is not adapted.
  absl::StatusOr<std::unique_ptr<LowRank>> ReadLowRank(
      const std::string& name, const SafetensorsEntry& entry, bool data) const {
    absl::string_view module = name;
    if (!absl::ConsumeSuffix(&module, kWeight)) {
      return std::unique_ptr<LowRank>();
    }
    const std::string a_name = absl::StrCat(module, ".lora_A.weight");
    const std::string b_name = absl::StrCat(module, ".lora_B.weight");
    const SafetensorsEntry* a = tensors_.Find(PeftTensorName(a_name));
    const SafetensorsEntry* b = tensors_.Find(PeftTensorName(b_name));
    if (a == nullptr && b == nullptr) return std::unique_ptr<LowRank>();
    if (a == nullptr || b == nullptr || entry.shape.size() != 2 ||
        a->shape.size() != 2 || b->shape.size() != 2 ||
        a->shape[1] != entry.shape[1] || b->shape[0] != entry.shape[0] ||
        a->shape[0] != b->shape[1]) {
      return absl::InvalidArgumentError(absl::StrCat(
          tensors_.path(), ": lora_A and lora_B of '", module, "' are ",
          a == nullptr ? "missing" : ShapeToString(a->shape), " and ",
          b == nullptr ? "missing" : ShapeToString(b->shape),
          ", expected [r, k] and [n, r] for the base's [n, k] = ",
          ShapeToString(entry.shape)));
    }
    auto change = std::make_unique<LowRank>();
    change->rows = entry.shape[0];
    change->cols = entry.shape[1];
    change->rank = a->shape[0];
    change->scale = adapter_.config().alpha /
                    static_cast<float>(adapter_.config().lora_rank);
    if (!data) return change;
    change->a.resize(change->rank * change->cols);
    change->b.resize(change->rows * change->rank);
    OCTET_RETURN_IF_ERROR(adapter_.Read(a_name, 0, absl::MakeSpan(change->a)));
    OCTET_RETURN_IF_ERROR(adapter_.Read(b_name, 0, absl::MakeSpan(change->b)));
    return change;
  }

  absl::Status WriteFile(const SafetensorsFile& file, const std::string& dir) {
    std::vector<TensorSpec> specs;
    for (const SafetensorsEntry& entry : file.entries()) {
      const std::optional<DType> dtype = SafetensorsDType(entry.dtype);
      if (!dtype.has_value()) {
        return absl::InvalidArgumentError(
            absl::StrCat(file.path(), ": tensor '", entry.name, "' is ",
                         entry.dtype, ", expected F32, BF16 or F16"));
      }
      specs.push_back({entry.name, *dtype, entry.shape});
    }
    const std::string path =
        absl::StrCat(dir, "/", fs::path(file.path()).filename().string());
    OCTET_ASSIGN_OR_RETURN(
        const std::unique_ptr<SafetensorsWriter> writer,
        SafetensorsWriter::Create(path, specs, {{"format", "pt"}}));
    for (size_t i = 0; i < specs.size(); ++i) {
      const SafetensorsEntry& entry = file.entries()[i];
      OCTET_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes,
                             MergedBytes(file, entry, specs[i].dtype));
      OCTET_RETURN_IF_ERROR(writer->Write(i, 0, bytes.data(),
                                          static_cast<uint64_t>(bytes.size())));
      report_.num_bytes += static_cast<int64_t>(bytes.size());
      if (options_.progress) options_.progress(report_.num_bytes, total_);
    }
    return writer->Finish();
  }

  absl::StatusOr<std::vector<std::byte>> MergedBytes(
      const SafetensorsFile& file, const SafetensorsEntry& entry, DType dtype) {
    std::vector<std::byte> bytes(entry.num_bytes());
    OCTET_ASSIGN_OR_RETURN(const std::unique_ptr<LowRank> change,
                           ReadLowRank(entry.name, entry, /*data=*/true));
    const SafetensorsEntry* whole = tensors_.Find(PeftTensorName(entry.name));
    const std::string kind(KindOf(absl::StripSuffix(entry.name, kWeight)));
    const bool quantized = IsQuantized(kind, options_.quantization);
    if (change == nullptr && whole == nullptr && !quantized) {
      ++report_.copied;
      OCTET_RETURN_IF_ERROR(
          file.Read(entry, 0, entry.num_bytes(), bytes.data()));
      return bytes;
    }
    std::vector<float> values(entry.num_bytes() / SizeOf(dtype));
    if (whole != nullptr) {
      if (whole->shape != entry.shape) {
        return absl::InvalidArgumentError(
            absl::StrCat(tensors_.path(), ": tensor '", whole->name, "' is ",
                         ShapeToString(whole->shape), ", expected the base's ",
                         ShapeToString(entry.shape)));
      }
      ++report_.replaced;
      OCTET_RETURN_IF_ERROR(
          ReadFloats(tensors_, *whole, 0, absl::MakeSpan(values)));
      Store(values, dtype, bytes.data());
      return bytes;
    }
    OCTET_RETURN_IF_ERROR(ReadFloats(file, entry, 0, absl::MakeSpan(values)));
    Sums& sums = sums_[kind];
    ++sums.tensors;
    sums.base += SumOfSquares(values);
    if (quantized) OCTET_RETURN_IF_ERROR(Quantize(file, entry, values, sums));
    if (change != nullptr) AddChange(*change, values, sums);
    sums.rounding += Store(values, dtype, bytes.data());
    return bytes;
  }

  absl::Status Quantize(const SafetensorsFile& file,
                        const SafetensorsEntry& entry,
                        std::vector<float>& values, Sums& sums) {
    if (entry.shape.size() != 2 || entry.shape[1] % kNf4Block != 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          file.path(), ": tensor '", entry.name, "' is ",
          ShapeToString(entry.shape), ", expected rows of a multiple of ",
          kNf4Block, " for NF4"));
    }
    const std::vector<float> before = values;
    RoundTripNf4(values, pool_);
    for (size_t i = 0; i < values.size(); ++i) {
      const double difference = double{values[i]} - before[i];
      sums.quantized += difference * difference;
    }
    return absl::OkStatus();
  }

  void AddChange(const LowRank& change, std::vector<float>& values,
                 Sums& sums) {
    std::vector<double> squares(change.rows);
    pool_.ParallelFor(change.rows, [&](int64_t row, int) {
      std::vector<float> delta(change.cols);
      change.Row(row, delta.data());
      float* out = values.data() + row * change.cols;
      for (int64_t c = 0; c < change.cols; ++c) {
        out[c] += delta[c];
        squares[row] += double{delta[c]} * delta[c];
      }
    });
    for (const double square : squares) sums.change += square;
  }

  // Writes the values in `dtype`; returns the sum of squares of what that
  // loses.
  static double Store(const std::vector<float>& values, DType dtype,
                      std::byte* out) {
    if (dtype == DType::kF32) {
      std::memcpy(out, values.data(), values.size() * sizeof(float));
      return 0;
    }
    double lost = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      float kept = 0;
      if (dtype == DType::kBF16) {
        const BF16 rounded = ToBF16(values[i]);
        std::memcpy(out + i * sizeof(rounded), &rounded, sizeof(rounded));
        kept = ToFloat(rounded);
      } else {
        const uint16_t rounded = FloatToHalf(values[i]);
        std::memcpy(out + i * sizeof(rounded), &rounded, sizeof(rounded));
        kept = HalfToFloat(rounded);
      }
      lost += (double{kept} - values[i]) * (double{kept} - values[i]);
    }
    return lost;
  }

  const MergeOptions& options_;
  const HfCheckpoint& base_;
  const PeftAdapter& adapter_;
  const SafetensorsFile& tensors_;
  cpu::ThreadPool pool_;
  int64_t total_ = 0;
  MergeReport report_;
  std::map<std::string, Sums> sums_;
};

absl::Status CopySideFiles(const std::string& from, const std::string& to) {
  for (const char* name : kSideFiles) {
    std::error_code error;
    const fs::path source = fs::path(from) / name;
    if (!fs::exists(source, error)) continue;
    fs::copy_file(source, fs::path(to) / name, error);
    if (error) {
      return absl::UnavailableError(absl::StrCat(
          source.string(), ": cannot be copied: ", error.message()));
    }
  }
  return SyncDirectory(to);
}

}  // namespace

absl::StatusOr<MergeReport> MergeAdapter(const MergeOptions& options) {
  OCTET_ASSIGN_OR_RETURN(const std::unique_ptr<HfCheckpoint> base,
                         HfCheckpoint::Open(options.base_dir));
  OCTET_ASSIGN_OR_RETURN(const std::unique_ptr<PeftAdapter> adapter,
                         PeftAdapter::Open(options.adapter_dir));
  OCTET_ASSIGN_OR_RETURN(
      const std::unique_ptr<SafetensorsFile> tensors,
      SafetensorsFile::Open(
          absl::StrCat(options.adapter_dir, "/", PeftAdapter::kTensorsFile)));
  Merger merger(options, *base, *adapter, *tensors);
  OCTET_RETURN_IF_ERROR(merger.Check());
  const StagedDirectory staged(options.output_dir);
  OCTET_RETURN_IF_ERROR(staged.Begin());
  absl::StatusOr<MergeReport> report = merger.Run(staged.staging_path());
  absl::Status status = report.status();
  if (status.ok()) {
    status = CopySideFiles(options.base_dir, staged.staging_path());
  }
  if (status.ok()) status = staged.Commit();
  if (!status.ok()) {
    staged.Abandon();
    return status;
  }
  return report;
}

}  // namespace octet
