// Adapters folded into checkpoints, against the formula in double precision.
#include "worker/checkpoint/merge.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/quant/nf4.h"
#include "tests/support/data.h"
#include "tests/worker/checkpoint/checkpoint_files.h"
#include "worker/checkpoint/float_reader.h"
#include "worker/checkpoint/hf_checkpoint.h"
#include "worker/checkpoint/peft_adapter.h"

namespace octet::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::vector<float> Floats(const SafetensorsFile& file,
                          const std::string& name) {
  const SafetensorsEntry* entry = file.Find(name);
  EXPECT_NE(entry, nullptr) << name;
  if (entry == nullptr) return {};
  int64_t count = 1;
  for (const int64_t dim : entry->shape) count *= dim;
  std::vector<float> values(count);
  EXPECT_TRUE(ReadFloats(file, *entry, 0, absl::MakeSpan(values)).ok());
  return values;
}

std::vector<float> Floats(const HfCheckpoint& checkpoint,
                          const std::string& name) {
  return Floats(*checkpoint.Find(name)->file, name);
}

MergeOptions Golden(const TempDir& dir) {
  MergeOptions options;
  options.base_dir = SourcePath("tests/golden/e8k2_old");
  options.adapter_dir = SourcePath("tests/golden/e8k2_old/adapter");
  options.output_dir = dir.path() + "/merged";
  options.num_threads = 2;
  return options;
}

// PEFT's adapter of the golden checkpoint: r 4, alpha 12, every linear module.
TEST(MergeTest, EveryModuleIsTheBasePlusItsLowRankChange) {
  TempDir dir;
  const MergeOptions options = Golden(dir);
  const auto report = MergeAdapter(options);
  ASSERT_TRUE(report.ok()) << report.status();
  const auto base = HfCheckpoint::Open(options.base_dir);
  const auto merged = HfCheckpoint::Open(options.output_dir);
  ASSERT_TRUE(merged.ok()) << merged.status();
  const auto adapter = SafetensorsFile::Open(options.adapter_dir + "/" +
                                             PeftAdapter::kTensorsFile);
  EXPECT_EQ((*merged)->names(), (*base)->names());
  int adapted = 0;
  for (const std::string& name : (*base)->names()) {
    const std::vector<float> before = Floats(**base, name);
    const std::vector<float> after = Floats(**merged, name);
    const std::string module = name.substr(0, name.rfind(".weight"));
    const std::string a_name = PeftTensorName(module + ".lora_A.weight");
    if ((*adapter)->Find(a_name) == nullptr) {
      EXPECT_EQ(after, before) << name;
      continue;
    }
    ++adapted;
    const std::vector<float> a = Floats(**adapter, a_name);
    const std::vector<float> b =
        Floats(**adapter, PeftTensorName(module + ".lora_B.weight"));
    const size_t rank = 4, cols = a.size() / rank;
    double worst = 0;
    for (size_t i = 0; i < before.size(); ++i) {
      double sum = 0;
      for (size_t r = 0; r < rank; ++r) {
        sum += double{b[i / cols * rank + r]} * a[r * cols + i % cols];
      }
      worst = std::max(worst, std::abs(before[i] + 3.0 * sum - after[i]));
    }
    EXPECT_LT(worst, 1e-6) << name;  // f32 sums of 5 terms near 1
  }
  EXPECT_EQ(adapted, 2 * (4 + 1 + 3 * 8));
  EXPECT_EQ(report->modules.size(), 8u);
  for (const MergedModule& module : report->modules) {
    EXPECT_GT(module.change, 0.01) << module.name;
    EXPECT_EQ(module.rounding, 0) << module.name;  // an f32 base
    EXPECT_EQ(module.quantized, 0) << module.name;
  }
  EXPECT_TRUE(fs::exists(options.output_dir + "/config.json"));
}

// Onto NF4: what is not adapted is quantised too, as the model was.
TEST(MergeTest, OntoNf4TheBaseIsQuantisedFirst) {
  TempDir dir;
  TensorSpec spec{
      "model.layers.0.self_attn.q_proj.weight", DType::kF32, {4, 128}};
  TensorMap base;
  std::vector<float> weights(4 * 128);
  for (size_t i = 0; i < weights.size(); ++i) {
    weights[i] = std::sin(static_cast<float>(i * i));
  }
  base[spec.name] = {spec, std::string(reinterpret_cast<char*>(weights.data()),
                                       weights.size() * sizeof(float))};
  fs::create_directory(dir.path() + "/base");
  WriteTensors(dir.path() + "/base/model.safetensors", base);
  TensorMap lora;
  const std::vector<float> a(128, 0.5f), b = {1, 2, 3, 4};
  const TensorSpec a_spec{
      "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
      DType::kF32,
      {1, 128}};
  const TensorSpec b_spec{
      "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight",
      DType::kF32,
      {4, 1}};
  lora[a_spec.name] = {
      a_spec, std::string(reinterpret_cast<const char*>(a.data()), 512)};
  lora[b_spec.name] = {
      b_spec, std::string(reinterpret_cast<const char*>(b.data()), 16)};
  fs::create_directory(dir.path() + "/adapter");
  WriteTensors(dir.path() + "/adapter/adapter_model.safetensors", lora);
  AdapterConfig config;
  config.lora_rank = 1;
  config.alpha = 2;
  config.target_modules = {"q_proj"};
  WriteText(dir.path() + "/adapter/adapter_config.json",
            AdapterConfigToJson(config));
  MergeOptions options;
  options.base_dir = dir.path() + "/base";
  options.adapter_dir = dir.path() + "/adapter";
  options.output_dir = dir.path() + "/merged";
  options.quantization.nf4 = true;
  const auto report = MergeAdapter(options);
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_EQ(report->modules.size(), 1u);
  EXPECT_GT(report->modules[0].quantized, 0.01);
  EXPECT_LT(report->modules[0].quantized, 0.2);
  const auto merged = HfCheckpoint::Open(options.output_dir);
  const std::vector<float> after = Floats(**merged, spec.name);
  std::vector<float> absmax;
  std::vector<uint8_t> codes(weights.size());
  for (size_t block = 0; block < weights.size() / 64; ++block) {
    absmax.push_back(
        QuantizeNf4Block(&weights[64 * block], &codes[64 * block]));
  }
  const Nf4Scales scales = QuantizeNf4Scales(absmax);
  for (size_t i = 0; i < weights.size(); ++i) {
    const float quantised =
        kNf4Levels[codes[i]] * scales.Absmax(static_cast<int64_t>(i / 64));
    EXPECT_FLOAT_EQ(after[i], quantised + 2 * b[i / 128] * 0.5f) << i;
  }
}

TEST(MergeTest, AnAdapterOfAnotherModelIsRefusedAndNothingIsMade) {
  TempDir dir;
  MergeOptions options = Golden(dir);
  options.adapter_dir = SourcePath("tests/golden/e16k3_old_sharded/adapter");
  const auto report = MergeAdapter(options);
  EXPECT_EQ(report.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(report.status().message()),
              HasSubstr("adapter_model.safetensors"));
  EXPECT_TRUE(fs::is_empty(dir.path()));
  options = Golden(dir);
  options.adapter_dir = "/nowhere";
  EXPECT_FALSE(MergeAdapter(options).ok());
  options = Golden(dir);
  ASSERT_TRUE(MergeAdapter(options).ok());
  EXPECT_EQ(MergeAdapter(options).status().code(),
            absl::StatusCode::kAlreadyExists);
}

// All halves there are, and what lies between them.
TEST(HalfTest, RoundsToNearestEven) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const uint16_t half = static_cast<uint16_t>(bits);
    const float value = HalfToFloat(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(value))));
      continue;
    }
    ASSERT_EQ(FloatToHalf(value), half) << value;
    if ((bits & 0x7fff) >= 0x7bff) continue;  // the largest, and infinity
    const float next = HalfToFloat(static_cast<uint16_t>(bits + 1));
    const float middle = value + (next - value) / 2;  // exact in f32
    ASSERT_EQ(FloatToHalf(middle), bits % 2 == 0 ? half : half + 1) << middle;
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, value)), half);
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, next)), half + 1);
  }
  EXPECT_EQ(FloatToHalf(65519.0f), 0x7bff);
  EXPECT_EQ(FloatToHalf(65520.0f), 0x7c00);
  EXPECT_EQ(FloatToHalf(-1e30f), 0xfc00);
}

}  // namespace
}  // namespace octet::test
