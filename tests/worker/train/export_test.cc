// Adapters and whole models out of a run, and in again.
#include <sys/wait.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/data.h"
#include "tests/support/ranks.h"
#include "tests/worker/train/run_rank.h"
#include "worker/checkpoint/hf_checkpoint.h"
#include "worker/checkpoint/peft_adapter.h"
#include "worker/checkpoint/safetensors.h"
#include "worker/train/run.h"

namespace octet {
namespace {

namespace fs = std::filesystem;

constexpr char kGolden[] = "e8k2_old";

using Body = std::function<absl::Status(TrainingRun&)>;

void RunGroup(int num_ranks, const std::string& checkpoint,
              const v1::CreateRunRequest& request, const Body& body) {
  const auto results = test::RunRanks(
      num_ranks, [&](Communicator& communicator) -> absl::Status {
        test::RunRankOptions options;
        options.checkpoint = checkpoint;
        OCTET_ASSIGN_OR_RETURN(const auto rank,
                               test::RunRank::New(communicator, options));
        OCTET_ASSIGN_OR_RETURN(
            const auto run,
            TrainingRun::Create(rank->model(), rank->environment, request, 0));
        return body(*run);
      });
  for (const absl::Status& status : results) EXPECT_TRUE(status.ok()) << status;
}

absl::Status Step(TrainingRun& run) {
  OCTET_RETURN_IF_ERROR(
      run.ForwardBackward(test::GoldenSlots(kGolden), 1).status());
  return run.OptimStep(test::GoldenStep(), 1).status();
}

absl::StatusOr<double> Loss(TrainingRun& run) {
  v1::ForwardRequest request;
  *request.mutable_slots() = test::GoldenSlots(kGolden).slots();
  OCTET_ASSIGN_OR_RETURN(const v1::ForwardResponse response,
                         run.Forward(request, 1));
  return response.loss();
}

absl::StatusOr<v1::ExportWeightsResponse> Export(TrainingRun& run,
                                                 const std::string& path,
                                                 v1::ExportFormat format,
                                                 int64_t shard_bytes = 0) {
  v1::ExportWeightsRequest request;
  request.set_path(path);
  request.set_format(format);
  request.set_shard_bytes(shard_bytes);
  return run.ExportWeights(request, 1);
}

std::vector<float> ReadTensor(const SafetensorsFile& file,
                              const std::string& name) {
  const SafetensorsEntry* entry = file.Find(name);
  EXPECT_NE(entry, nullptr) << name;
  std::vector<float> out(entry->num_bytes() / sizeof(float));
  EXPECT_TRUE(file.Read(*entry, 0, entry->num_bytes(), out.data()).ok());
  return out;
}

TEST(ExportAdapterTest, WhatPeftWroteComesOutAgain) {
  const test::TempDir dir;
  for (const int num_ranks : {1, 3}) {
    const std::string path = absl::StrCat(dir.path(), "/", num_ranks);
    RunGroup(num_ranks, test::GoldenPath(kGolden), test::GoldenLoraRun(kGolden),
             [&](TrainingRun& run) {
               const auto exported =
                   Export(run, path, v1::EXPORT_FORMAT_UNSPECIFIED);
               EXPECT_THAT(exported->files(),
                           testing::ElementsAre("adapter_model.safetensors"));
               return exported.status();
             });
    const std::string golden = test::GoldenPath(kGolden) + "/adapter";
    const auto written =
        SafetensorsFile::Open(path + "/adapter_model.safetensors");
    const auto expected =
        SafetensorsFile::Open(golden + "/adapter_model.safetensors");
    ASSERT_TRUE(written.ok() && expected.ok()) << written.status();
    EXPECT_EQ((*written)->entries().size(), (*expected)->entries().size());
    for (const SafetensorsEntry& entry : (*expected)->entries()) {
      EXPECT_EQ(ReadTensor(**written, entry.name),
                ReadTensor(**expected, entry.name))
          << entry.name;
    }
    AdapterConfig config = (*PeftAdapter::Open(path))->config();
    EXPECT_EQ(config.base_model, test::GoldenPath(kGolden));
    config.base_model = "e8k2_old";
    EXPECT_EQ(config, (*PeftAdapter::Open(golden))->config());
  }
}

TEST(ExportAdapterTest, ContinuedElsewhereItIsTheSame) {
  const test::TempDir dir;
  v1::CreateRunRequest fresh = test::GoldenFullRun();
  fresh.set_method(v1::TRAINING_METHOD_LORA);
  fresh.mutable_lora()->set_rank(3);
  fresh.mutable_lora()->add_target_modules("all");
  fresh.mutable_lora()->add_modules_to_save("embed_tokens");
  fresh.mutable_lora()->add_modules_to_save("lm_head");
  const std::string path = dir.path() + "/adapter";
  std::atomic<double> expected = 0;
  RunGroup(3, test::GoldenPath(kGolden), fresh,
           [&](TrainingRun& run) -> absl::Status {
             OCTET_ASSIGN_OR_RETURN(const double before, Loss(run));
             OCTET_RETURN_IF_ERROR(Step(run));
             OCTET_RETURN_IF_ERROR(Step(run));
             OCTET_ASSIGN_OR_RETURN(const double loss, Loss(run));
             EXPECT_LT(loss, before);
             OCTET_RETURN_IF_ERROR(
                 Export(run, path, v1::EXPORT_FORMAT_ADAPTER).status());
             expected = loss;
             return absl::OkStatus();
           });
  v1::CreateRunRequest again = test::GoldenFullRun();
  again.set_method(v1::TRAINING_METHOD_LORA);
  again.mutable_lora()->set_init_from(path);
  RunGroup(2, test::GoldenPath(kGolden), again,
           [&](TrainingRun& run) -> absl::Status {
             OCTET_ASSIGN_OR_RETURN(const double loss, Loss(run));
             EXPECT_EQ(loss, expected);
             EXPECT_EQ(run.Describe().config().lora().rank(), 3);
             return absl::OkStatus();
           });
}

// The modules that every release of transformers builds as linear layers.
TEST(ExportAdapterTest, PeftLoadsItAndComputesTheSame) {
  const test::TempDir dir;
  const std::string path = dir.path() + "/adapter";
  v1::CreateRunRequest request = test::GoldenFullRun();
  request.set_method(v1::TRAINING_METHOD_LORA);
  request.mutable_lora()->set_rank(3);
  request.mutable_lora()->set_alpha(5);
  for (const char* module : {"q_proj", "v_proj", "o_proj"}) {
    request.mutable_lora()->add_target_modules(module);
  }
  request.mutable_lora()->add_modules_to_save("embed_tokens");
  request.mutable_lora()->add_modules_to_save("lm_head");
  std::atomic<double> expected = 0;
  RunGroup(2, test::GoldenPath(kGolden), request,
           [&](TrainingRun& run) -> absl::Status {
             for (int i = 0; i < 5; ++i) OCTET_RETURN_IF_ERROR(Step(run));
             OCTET_ASSIGN_OR_RETURN(expected, Loss(run));
             return Export(run, path, v1::EXPORT_FORMAT_ADAPTER).status();
           });
  const char* python = std::getenv("OCTET_PEFT_PYTHON");
  const std::string command = absl::StrFormat(
      "%s %s %s %s %.9f", python == nullptr ? "python3" : python,
      test::SourcePath("tests/worker/train/peft_check.py"),
      test::GoldenPath(kGolden), path, expected.load());
  const int status = std::system(command.c_str());
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) {
    GTEST_SKIP() << "peft or transformers is not installed for python3 or "
                    "$OCTET_PEFT_PYTHON";
  }
  EXPECT_EQ(WEXITSTATUS(status), 0) << command;
}

TEST(ExportModelTest, LoadsAtAnyWidthWithTheSameBits) {
  const test::TempDir dir;
  for (const int num_ranks : {1, 3, 8}) {
    const std::string path = absl::StrCat(dir.path(), "/", num_ranks);
    std::atomic<double> expected = 0;
    RunGroup(num_ranks, test::GoldenPath(kGolden), test::GoldenFullRun(),
             [&](TrainingRun& run) -> absl::Status {
               OCTET_RETURN_IF_ERROR(Step(run));
               OCTET_ASSIGN_OR_RETURN(const double loss, Loss(run));
               OCTET_ASSIGN_OR_RETURN(
                   const auto exported,
                   Export(run, path, v1::EXPORT_FORMAT_UNSPECIFIED, 20'000));
               EXPECT_GT(exported.files_size(), 8);
               EXPECT_EQ(exported.num_bytes(),
                         4 * run.Describe().total_parameters());
               expected = loss;
               return absl::OkStatus();
             });
    EXPECT_TRUE(fs::exists(path + "/generation_config.json"));
    RunGroup(2, path, test::GoldenFullRun(),
             [&](TrainingRun& run) -> absl::Status {
               OCTET_ASSIGN_OR_RETURN(const double loss, Loss(run));
               EXPECT_EQ(loss, expected);
               return absl::OkStatus();
             });
  }
}

TEST(ExportModelTest, AdaptersAreAddedToTheirWeights) {
  const test::TempDir dir;
  const std::string path = dir.path() + "/merged";
  std::atomic<double> expected = 0;
  RunGroup(2, test::GoldenPath(kGolden), test::GoldenLoraRun(kGolden),
           [&](TrainingRun& run) -> absl::Status {
             OCTET_ASSIGN_OR_RETURN(const double loss, Loss(run));
             expected = loss;
             return Export(run, path, v1::EXPORT_FORMAT_FULL).status();
           });
  RunGroup(1, path, test::GoldenFullRun(),
           [&](TrainingRun& run) -> absl::Status {
             OCTET_ASSIGN_OR_RETURN(const double loss, Loss(run));
             // The same function, rounded elsewhere.
             EXPECT_NEAR(loss, expected, 1e-5);
             return absl::OkStatus();
           });
  const auto merged = HfCheckpoint::Open(path);
  const auto base = HfCheckpoint::Open(test::GoldenPath(kGolden));
  const auto adapter =
      PeftAdapter::Open(test::GoldenPath(kGolden) + "/adapter");
  ASSERT_TRUE(merged.ok() && base.ok() && adapter.ok());
  for (const std::string module :
       {"model.layers.1.self_attn.v_proj",
        "model.layers.0.block_sparse_moe.experts.5.w3"}) {
    const auto found = (*merged)->Find(module + ".weight");
    const auto before = (*base)->Find(module + ".weight");
    ASSERT_TRUE(found.has_value() && before.has_value()) << module;
    const int64_t n = found->entry->shape[0], k = found->entry->shape[1];
    const std::vector<float> w = ReadTensor(*before->file, module + ".weight");
    const std::vector<float> got = ReadTensor(*found->file, module + ".weight");
    std::vector<float> a(4 * k), b(n * 4);
    ASSERT_TRUE(
        (*adapter)->Read(module + ".lora_A.weight", 0, absl::MakeSpan(a)).ok());
    ASSERT_TRUE(
        (*adapter)->Read(module + ".lora_B.weight", 0, absl::MakeSpan(b)).ok());
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < k; ++j) {
        double sum = 0;
        for (int64_t r = 0; r < 4; ++r)
          sum += 1.0 * b[i * 4 + r] * a[r * k + j];
        ASSERT_NEAR(got[i * k + j], w[i * k + j] + 3 * sum, 1e-6) << module;
      }
    }
  }
}

TEST(ExportModelTest, TokenizerGoesAlong) {
  const test::TempDir dir;
  fs::copy(test::GoldenPath(kGolden), dir.path() + "/base",
           fs::copy_options::recursive);
  std::ofstream(dir.path() + "/base/tokenizer.model") << "pieces";
  RunGroup(2, dir.path() + "/base", test::GoldenFullRun(),
           [&](TrainingRun& run) {
             return Export(run, dir.path() + "/out", v1::EXPORT_FORMAT_FULL)
                 .status();
           });
  EXPECT_EQ(fs::file_size(dir.path() + "/out/tokenizer.model"), 6u);
}

TEST(ExportTest, WhatCannotBeIsRefusedAndTheRunGoesOn) {
  const test::TempDir dir;
  RunGroup(
      3, test::GoldenPath(kGolden), test::GoldenFullRun(),
      [&](TrainingRun& run) -> absl::Status {
        const std::string path = dir.path() + "/x";
        EXPECT_EQ(Export(run, path, v1::EXPORT_FORMAT_ADAPTER).status(),
                  absl::InvalidArgumentError(
                      "format is ADAPTER, expected FULL of a run without "
                      "LoRA"));
        EXPECT_EQ(Export(run, path, v1::EXPORT_FORMAT_FULL, -1).status(),
                  absl::InvalidArgumentError(
                      "shard_bytes is -1, expected 0 (5 GB) or more"));
        EXPECT_EQ(
            Export(run, path, static_cast<v1::ExportFormat>(9)).status().code(),
            absl::StatusCode::kInvalidArgument);
        EXPECT_EQ(Export(run, test::GoldenPath(kGolden), v1::EXPORT_FORMAT_FULL)
                      .status()
                      .code(),
                  absl::StatusCode::kAlreadyExists);
        EXPECT_FALSE(fs::exists(path));
        return Step(run);
      });
}

}  // namespace
}  // namespace octet
