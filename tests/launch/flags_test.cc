#include "launch/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "tests/support/data.h"

namespace octet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// One flag of each kind, with its default.
struct Options {
  std::string model = "here";
  bool mpi = false;
  int workers = 2;
  int64_t bytes = 7;
  uint64_t seed = 1;
  float top_p = 1.0f;
  std::optional<float> temperature;
  absl::Duration timeout = absl::Seconds(30);
  std::vector<std::string> stop;
  std::vector<int> sizes = {1, 8};
  std::string dtype = "auto";
  std::string file;
};

absl::StatusOr<bool> ParseInto(Options* options,
                               std::vector<std::string> args) {
  Flags flags("octet test", "A test.");
  flags.Add("model", &options->model, "model directory");
  flags.Add("mpi", &options->mpi, "ranks are processes");
  flags.Add("workers", &options->workers, "ranks", {.min = 1, .max = 64});
  flags.Add("bytes", &options->bytes, "bytes", {.min = 0});
  flags.Add("seed", &options->seed, "seed");
  flags.Add("top-p", &options->top_p, "nucleus", {.min = 0, .max = 1});
  flags.Add("temperature", &options->temperature, "temperature", {.min = 0});
  flags.Add("timeout", &options->timeout, "timeout");
  flags.Add("stop", &options->stop, "stop string");
  flags.Add("sizes", &options->sizes, "sizes", {.min = 1, .max = 99});
  flags.AddChoice("dtype", &options->dtype, {"auto", "f32", "bf16"}, "dtype");
  flags.AddPositional("file", &options->file, "a file");
  return flags.Parse(std::move(args));
}

std::string WriteYaml(const test::TempDir& dir, const std::string& text) {
  const std::string path = dir.path() + "/options.yaml";
  std::ofstream(path) << text;
  return path;
}

TEST(FlagsTest, DefaultsStayWithoutArguments) {
  Options options;
  ASSERT_TRUE(ParseInto(&options, {}).value());
  EXPECT_EQ(options.model, "here");
  EXPECT_EQ(options.workers, 2);
  EXPECT_EQ(options.temperature, std::nullopt);
}

TEST(FlagsTest, EveryKindIsParsed) {
  Options options;
  ASSERT_TRUE(
      ParseInto(
          &options,
          {"--model",   "m dir",      "--mpi",         "--workers=12",
           "--bytes",   "5000000000", "--seed",        "18446744073709551615",
           "--top-p",   "0.5",        "--temperature", "0",
           "--timeout", "1.5s",       "--stop",        "a",
           "--stop",    "b c",        "--dtype",       "bf16",
           "input.txt"})
          .value());
  EXPECT_EQ(options.model, "m dir");
  EXPECT_TRUE(options.mpi);
  EXPECT_EQ(options.workers, 12);
  EXPECT_EQ(options.bytes, 5000000000);
  EXPECT_EQ(options.seed, 18446744073709551615u);
  EXPECT_EQ(options.top_p, 0.5f);
  EXPECT_EQ(options.temperature, 0.0f);
  EXPECT_EQ(options.timeout, absl::Milliseconds(1500));
  EXPECT_THAT(options.stop, ElementsAre("a", "b c"));
  EXPECT_EQ(options.dtype, "bf16");
  EXPECT_EQ(options.file, "input.txt");
}

TEST(FlagsTest, YamlMeansTheSameAndTheCommandLineWins) {
  test::TempDir dir;
  const std::string path =
      WriteYaml(dir,
                "model: from file\nmpi: true\nworkers: 5\ntop-p: 0.25\n"
                "stop: [x, y]\ntimeout: 2m\n");
  Options options;
  ASSERT_TRUE(
      ParseInto(&options, {"--workers", "6", "--config", path}).value());
  EXPECT_EQ(options.model, "from file");
  EXPECT_TRUE(options.mpi);
  EXPECT_EQ(options.workers, 6);
  EXPECT_EQ(options.top_p, 0.25f);
  EXPECT_EQ(options.timeout, absl::Minutes(2));
  EXPECT_THAT(options.stop, ElementsAre("x", "y"));
}

TEST(FlagsTest, YamlFalseTurnsASwitchOff) {
  test::TempDir dir;
  Options options;
  options.mpi = true;
  ASSERT_TRUE(
      ParseInto(&options, {"--config=" + WriteYaml(dir, "mpi: false\n")})
          .value());
  EXPECT_FALSE(options.mpi);
}

struct BadCase {
  std::vector<std::string> args;
  std::string message;
};

TEST(FlagsTest, BadValuesAreNamedWithWhatWasExpected) {
  const std::vector<BadCase> cases = {
      {{"--workers", "many"},
       "octet test: --workers is 'many', expected a whole number in [1, 64]"},
      {{"--workers", "0"},
       "octet test: --workers is '0', expected a whole number in [1, 64]"},
      {{"--workers", "2.5"},
       "octet test: --workers is '2.5', expected a whole number in [1, 64]"},
      {{"--bytes=-1"},
       "octet test: --bytes is '-1', expected a whole number of at least 0"},
      {{"--seed", "-1"},
       "octet test: --seed is '-1', expected a whole number of at least 0"},
      {{"--top-p", "nan"},
       "octet test: --top-p is 'nan', expected a number in [0, 1]"},
      {{"--temperature", "1e300"},
       "octet test: --temperature is '1e300', expected a number of at "
       "least 0, below 3.4e38"},
      {{"--timeout", "5"},
       "octet test: --timeout is '5', expected a time above zero such as 1.5s "
       "or 2m"},
      {{"--mpi=maybe"}, "octet test: --mpi is 'maybe', expected true or false"},
      {{"--dtype", "int3"},
       "octet test: --dtype is 'int3', expected one of auto, f32, bf16"},
  };
  for (const BadCase& c : cases) {
    Options options;
    const absl::StatusOr<bool> parsed = ParseInto(&options, c.args);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(parsed.status().message(), c.message);
  }
}

TEST(FlagsTest, UnknownFlagsAndMissingValuesAreNamed) {
  Options options;
  EXPECT_THAT(
      std::string(ParseInto(&options, {"--wrokers", "3"}).status().message()),
      HasSubstr("--wrokers"));
  EXPECT_THAT(
      std::string(ParseInto(&options, {"--workers"}).status().message()),
      HasSubstr("--workers"));
  EXPECT_THAT(std::string(ParseInto(&options, {"a", "b"}).status().message()),
              HasSubstr("b"));
}

TEST(FlagsTest, BadFilesAreNamed) {
  test::TempDir dir;
  Options options;
  const auto parse = [&](const std::string& yaml) {
    return std::string(ParseInto(&options, {"--config", WriteYaml(dir, yaml)})
                           .status()
                           .message());
  };
  EXPECT_THAT(
      parse("wrokers: 3\n"),
      HasSubstr("options.yaml: key 'wrokers' is not a flag of octet test"));
  EXPECT_THAT(parse("workers: {a: 1}\n"),
              HasSubstr("key 'workers' is a map, expected a value"));
  EXPECT_THAT(parse("workers: [1, 2]\n"),
              HasSubstr("key 'workers' is a list, expected one value"));
  EXPECT_THAT(parse("top_p: 0.5\nworkers: 2\ntop-p: 0.6\n"),
              HasSubstr("key 'top-p' is there twice, expected it once"));
  EXPECT_THAT(parse("model:\n"),
              HasSubstr("key 'model' is empty, expected a value"));
  EXPECT_THAT(parse("mpi: maybe\n"),
              HasSubstr("--mpi is 'maybe', expected true or false"));
  EXPECT_THAT(parse("- 1\n"), HasSubstr("expected a map of flags"));
  EXPECT_THAT(parse("a: [\n"), HasSubstr("options.yaml: "));
  EXPECT_THAT(
      parse("workers: none\n"),
      HasSubstr("--workers is 'none', expected a whole number in [1, 64]"));
  EXPECT_THAT(std::string(ParseInto(&options, {"--config", "/nowhere.yaml"})
                              .status()
                              .message()),
              HasSubstr("/nowhere.yaml"));
  EXPECT_THAT(
      std::string(
          ParseInto(&options, {"--config", dir.path()}).status().message()),
      HasSubstr("cannot read " + dir.path()));
}

TEST(FlagsTest, HelpIsNotAnError) {
  Options options;
  EXPECT_FALSE(ParseInto(&options, {"--help"}).value());
}

TEST(FlagsTest, WholeNumbersWithCommasBetween) {
  Options options;
  ASSERT_TRUE(ParseInto(&options, {}).value());
  EXPECT_THAT(options.sizes, ElementsAre(1, 8));
  ASSERT_TRUE(ParseInto(&options, {"--sizes", "3,99,3"}).value());
  EXPECT_THAT(options.sizes, ElementsAre(3, 99, 3));
  for (const char* wrong : {",", "1,", "1,,2", "0", "1,100", "1;2", "x"}) {
    const auto parsed = ParseInto(&options, {std::string("--sizes=") + wrong});
    ASSERT_FALSE(parsed.ok()) << wrong;
    EXPECT_EQ(parsed.status().message(),
              absl::StrCat("octet test: --sizes is '", wrong,
                           "', expected a whole number in [1, 99], or several "
                           "of them with commas between"));
    EXPECT_THAT(options.sizes, ElementsAre(3, 99, 3));
  }
}

}  // namespace
}  // namespace octet
