// The files of a training run: log, state, results, pictures.
#include <cmath>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "client/train/charts.h"
#include "client/train/smoothing.h"
#include "client/train/trainer_log.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/support/data.h"

// Fontconfig, which cairo asks for fonts, keeps memory to the end.
extern "C" const char* __lsan_default_suppressions() {
  return "leak:libfontconfig\n";
}

namespace octet::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

LogEntry Entry(int64_t step, double loss) {
  LogEntry entry;
  entry.step = step;
  entry.epoch = static_cast<double>(step) / 4;
  entry.loss = loss;
  entry.learning_rate = 1e-4;
  return entry;
}

// The seed's rule, written out: numbers from its own function in Python.
TEST(SmoothingTest, FollowsTheSeedsFormula) {
  EXPECT_TRUE(Smooth({}).empty());
  EXPECT_THAT(Smooth({3.0}), ElementsAre(3.0));
  const std::vector<double> smooth = Smooth({4, 2, 3, 1});
  const double w = 1.8 * (1 / (1 + std::exp(-0.05 * 4)) - 0.5);
  EXPECT_DOUBLE_EQ(smooth[0], 4);
  EXPECT_DOUBLE_EQ(smooth[1], w * 4 + (1 - w) * 2);
  EXPECT_DOUBLE_EQ(smooth[2], w * smooth[1] + (1 - w) * 3);
  EXPECT_NEAR(smooth[1], 2.1794024, 1e-7);
  const std::vector<double> gap = Smooth({4, std::nan(""), 2});
  EXPECT_TRUE(std::isnan(gap[1]));
  EXPECT_TRUE(std::isfinite(gap[2]));
}

TEST(TrainerLogTest, HoursAreRoundedDown) {
  EXPECT_EQ(FormatHours(absl::Seconds(59.9)), "0:00:59");
  EXPECT_EQ(FormatHours(absl::Seconds(3661)), "1:01:01");
  EXPECT_EQ(FormatHours(absl::Hours(100)), "100:00:00");
  EXPECT_EQ(FormatHours(-absl::Seconds(5)), "0:00:00");
}

TEST(TrainerLogTest, ALineHoldsTheSeedsFields) {
  TempDir dir;
  auto log = TrainerLog::Open(dir.path(), 10, {});
  ASSERT_TRUE(log.ok()) << log.status();
  ASSERT_TRUE(log->Add(Entry(2, 3.5), absl::Seconds(20), 0).ok());
  const auto line =
      nlohmann::json::parse(ReadAll(dir.path() + "/trainer_log.jsonl"));
  EXPECT_EQ(line["current_steps"], 2);
  EXPECT_EQ(line["total_steps"], 10);
  EXPECT_EQ(line["loss"], 3.5);
  EXPECT_TRUE(line["eval_loss"].is_null());
  EXPECT_EQ(line["percentage"], 20.0);
  EXPECT_EQ(line["elapsed_time"], "0:00:20");
  EXPECT_EQ(line["remaining_time"], "0:01:20");
}

TEST(TrainerLogTest, AResumedLogHoldsWhatTheStateKnew) {
  TempDir dir;
  auto first = TrainerLog::Open(dir.path(), 10, {});
  for (int64_t step = 1; step <= 5; ++step) {
    ASSERT_TRUE(
        first->Add(Entry(step, 6.0 - step), absl::Seconds(step), 0).ok());
  }
  LogEntry odd = Entry(3, std::nan(""));
  odd.grad_norm = 2.5;
  const std::vector<LogEntry> saved = {Entry(1, 5), Entry(2, 4), odd};
  const auto history = HistoryFromJson(HistoryToJson(saved));
  ASSERT_TRUE(history.ok()) << history.status();
  ASSERT_EQ(history->size(), 3u);
  EXPECT_EQ((*history)[1].loss, 4);
  EXPECT_TRUE(std::isnan(*(*history)[2].loss));
  EXPECT_EQ((*history)[2].grad_norm, 2.5);
  EXPECT_FALSE((*history)[2].eval_loss.has_value());
  auto resumed = TrainerLog::Open(dir.path(), 10, *history);
  ASSERT_TRUE(resumed.ok());
  const std::string text = ReadAll(dir.path() + "/trainer_log.jsonl");
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3);
  ASSERT_TRUE(resumed->WriteState(3).ok());
  const auto state =
      nlohmann::json::parse(ReadAll(dir.path() + "/trainer_state.json"));
  EXPECT_EQ(state["global_step"], 3);
  EXPECT_EQ(state["log_history"].size(), 3u);
  for (const char* bad : {"", "{}", "[1]", "[{\"step\": 1}]"}) {
    EXPECT_THAT(std::string(HistoryFromJson(bad).status().message()),
                HasSubstr("log history"))
        << bad;
  }
}

TEST(TrainerLogTest, ResultsJoinTheCommonFile) {
  TempDir dir;
  auto log = TrainerLog::Open(dir.path(), 1, {});
  ASSERT_TRUE(log->WriteResults("train", {{"train_loss", 2.5}}).ok());
  ASSERT_TRUE(log->WriteResults("eval", {{"eval_loss", 3.5}}).ok());
  const auto all =
      nlohmann::json::parse(ReadAll(dir.path() + "/all_results.json"));
  EXPECT_EQ(all["train_loss"], 2.5);
  EXPECT_EQ(all["eval_loss"], 3.5);
  const auto own =
      nlohmann::json::parse(ReadAll(dir.path() + "/eval_results.json"));
  EXPECT_EQ(own.size(), 1u);
}

TEST(TrainerLogTest, AnUnwritableFolderIsNamed) {
  const auto log = TrainerLog::Open("/nowhere/at/all", 1, {});
  EXPECT_THAT(std::string(log.status().message()),
              HasSubstr("/nowhere/at/all/trainer_log.jsonl: cannot be written: "
                        "No such file"));
}

constexpr char kPngSignature[] = "\x89PNG\r\n\x1a\n";

TEST(ChartsTest, ACurveIsAnSvgAndAPng) {
  TempDir dir;
  CurveChart chart;
  chart.title = "training loss";
  chart.y_label = "loss";
  chart.curves.push_back({"loss", {1, 2, 3, 4}, {4, 3, std::nan(""), 2}});
  const std::string stem = dir.path() + "/training_loss";
  const absl::Status status = WriteCurveChart(chart, stem);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(ReadAll(stem + ".svg"), HasSubstr("<svg"));
  EXPECT_EQ(ReadAll(stem + ".png").substr(0, 8), std::string(kPngSignature, 8));
}

TEST(ChartsTest, EmptyAndFlatCurvesAreDrawn) {
  TempDir dir;
  CurveChart chart;
  chart.curves = {{"none", {}, {}}, {"flat", {1, 2}, {0, 0}}};
  EXPECT_TRUE(WriteCurveChart(chart, dir.path() + "/a").ok());
  chart.curves = {{"bad", {1, 2}, {0}}};
  EXPECT_THAT(std::string(WriteCurveChart(chart, dir.path() + "/b").message()),
              HasSubstr("curve 'bad' has 1 values, expected 2"));
}

TEST(ChartsTest, AnExpertMapHasAllItsCells) {
  TempDir dir;
  ExpertMap map;
  map.title = "experts";
  map.num_experts = 4;
  map.tokens = {10, 10, 10, 10, 0, 0, 40, 0};
  const std::string stem = dir.path() + "/experts";
  ASSERT_TRUE(WriteExpertMap(map, stem).ok());
  EXPECT_EQ(ReadAll(stem + ".png").substr(0, 8), std::string(kPngSignature, 8));
  map.tokens.pop_back();
  EXPECT_THAT(std::string(WriteExpertMap(map, stem).message()),
              HasSubstr("7 counts of 4 experts"));
}

TEST(ChartsTest, AFolderThatIsNotThereIsNamed) {
  EXPECT_THAT(std::string(WriteCurveChart({}, "/nowhere/loss").message()),
              HasSubstr("/nowhere/loss.svg"));
}

}  // namespace
}  // namespace octet::test
