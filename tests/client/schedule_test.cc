#include "client/schedule.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace octet {
namespace {

using ::testing::HasSubstr;

// The rates of steps 0 to 11 with peak 1e-3 and 10 steps in all, from
// transformers' get_scheduler (4.57).
struct Golden {
  std::string name;
  int64_t warmup;
  std::vector<double> rates;
};
const Golden kGoldens[] = {
    {"linear",
     0,
     {0.001, 0.0009, 0.0008, 0.0007, 0.0006, 0.0005, 0.0004, 0.0003, 0.0002,
      0.0001, 0, 0}},
    {"linear",
     3,
     {0, 0.000333333333, 0.000666666667, 0.001, 0.000857142857, 0.000714285714,
      0.000571428571, 0.000428571429, 0.000285714286, 0.000142857143, 0, 0}},
    {"cosine",
     0,
     {0.001, 0.000975528258, 0.000904508497, 0.000793892626, 0.000654508497,
      0.0005, 0.000345491503, 0.000206107374, 9.54915028e-05, 2.44717419e-05, 0,
      2.44717419e-05}},
    {"cosine",
     3,
     {0, 0.000333333333, 0.000666666667, 0.001, 0.000950484434, 0.000811744901,
      0.000611260467, 0.000388739533, 0.000188255099, 4.9515566e-05, 0,
      4.9515566e-05}},
    {"cosine_with_restarts",
     0,
     {0.001, 0.000975528258, 0.000904508497, 0.000793892626, 0.000654508497,
      0.0005, 0.000345491503, 0.000206107374, 9.54915028e-05, 2.44717419e-05, 0,
      0}},
    {"cosine_with_restarts",
     3,
     {0, 0.000333333333, 0.000666666667, 0.001, 0.000950484434, 0.000811744901,
      0.000611260467, 0.000388739533, 0.000188255099, 4.9515566e-05, 0, 0}},
    {"polynomial",
     0,
     {0.001, 0.00090001, 0.00080002, 0.00070003, 0.00060004, 0.00050005,
      0.00040006, 0.00030007, 0.00020008, 0.00010009, 1e-07, 1e-07}},
    {"polynomial",
     3,
     {0, 0.000333333333, 0.000666666667, 0.001, 0.000857157143, 0.000714314286,
      0.000571471429, 0.000428628571, 0.000285785714, 0.000142942857, 1e-07,
      1e-07}},
    {"constant",
     0,
     {0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001,
      0.001, 0.001}},
    {"constant",
     3,
     {0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001,
      0.001, 0.001}},
    {"constant_with_warmup",
     0,
     {0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001, 0.001,
      0.001, 0.001}},
    {"constant_with_warmup",
     3,
     {0, 0.000333333333, 0.000666666667, 0.001, 0.001, 0.001, 0.001, 0.001,
      0.001, 0.001, 0.001, 0.001}},
    {"inverse_sqrt",
     0,
     {0.001, 0.000999950004, 0.000999900015, 0.000999850034, 0.00099980006,
      0.000999750094, 0.000999700135, 0.000999650184, 0.00099960024,
      0.000999550304, 0.000999500375, 0.000999450453}},
    {"inverse_sqrt",
     3,
     {0, 0.000333333333, 0.000666666667, 0.001, 0.000866025404, 0.000774596669,
      0.000707106781, 0.000654653671, 0.000612372436, 0.000577350269,
      0.000547722558, 0.000522232968}},
};

TEST(ScheduleTest, RatesAreThoseOfTransformers) {
  for (const Golden& golden : kGoldens) {
    Schedule schedule;
    schedule.kind = *ParseScheduleKind(golden.name);
    schedule.peak = 1e-3;
    schedule.warmup_steps = golden.warmup;
    schedule.total_steps = 10;
    for (size_t step = 0; step < golden.rates.size(); ++step) {
      EXPECT_NEAR(LearningRate(schedule, static_cast<int64_t>(step)),
                  golden.rates[step], 1e-11)
          << golden.name << ", warm-up " << golden.warmup << ", step " << step;
    }
  }
}

// Losses and the rates after each, from torch's ReduceLROnPlateau (2.15).
const std::vector<double> kLosses = {
    5, 4, 4.1, 3.9999, 3.9995, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4,
    4, 3, 3,   3,      3,      3, 3, 3, 3, 3, 3, 3, 3, 3, 2};
const std::vector<double> kRates = {
    0.001,  0.001,  0.001,  0.001,  0.001,  0.001,  0.001,  0.001,
    0.001,  0.001,  0.001,  0.001,  0.001,  0.001,  0.001,  0.0001,
    0.0001, 0.0001, 0.0001, 0.0001, 0.0001, 0.0001, 0.0001, 0.0001,
    0.0001, 0.0001, 0.0001, 0.0001, 1e-05,  1e-05,  1e-05};

TEST(ScheduleTest, PlateauIsThatOfTorchAlsoWhenResumed) {
  PlateauSchedule schedule(1e-3);
  for (size_t i = 0; i < kLosses.size(); ++i) {
    schedule.Observe(kLosses[i]);
    EXPECT_NEAR(schedule.rate(), kRates[i], 1e-15) << i;
    const auto resumed = PlateauSchedule::Parse(schedule.ToString());
    ASSERT_TRUE(resumed.ok()) << resumed.status();
    schedule = *resumed;
  }
  EXPECT_FALSE(PlateauSchedule::Parse("1 2").ok());
}

TEST(ScheduleTest, UnknownNamesAreRefusedWithTheKnownOnes) {
  EXPECT_THAT(std::string(ParseScheduleKind("cosin").status().message()),
              HasSubstr("'cosin', expected one of linear, cosine"));
  EXPECT_EQ(ScheduleNames().size(), 8u);
}

// The arithmetic of seeds and transformers: floor per epoch, ceil of the whole.
TEST(ScheduleTest, StepsAreCountedAsTheTrainerDoes) {
  const StepCounts counts = CountSteps(101, 4, 2.5, -1, 0, 0.05);
  EXPECT_EQ(counts.steps_per_epoch, 25);
  EXPECT_EQ(counts.total_steps, 63);
  EXPECT_EQ(counts.warmup_steps, 4);
  EXPECT_EQ(CountSteps(3, 8, 3, -1, 0, 0).total_steps, 3);
  EXPECT_EQ(CountSteps(3, 8, 3, 7, 2, 0.5).total_steps, 7);
  EXPECT_EQ(CountSteps(3, 8, 3, 7, 2, 0.5).warmup_steps, 2);
}

}  // namespace
}  // namespace octet
