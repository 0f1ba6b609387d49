// Every seeded bug is found by the builds that must find it, in the words that
// the table says, and the controls bring no word, in every order and stream
// mode.
//
// Each program runs in a process of its own, as many end it.

#include "tests/cuda_emulation/selftest/bugs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>

#include "tests/cuda_emulation/include/cuda_emu/control.h"

namespace cuda_emu_selftest {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kAsan = true;
#else
constexpr bool kAsan = false;
#endif

// What it must say in this build; empty when this build need not find it.
const std::string& Expected(const Bug& bug) {
  return kAsan ? bug.asan : cuda_emu::Checking() ? bug.checked : bug.plain;
}

// Everything that the program prints.
std::string Output(const Bug& bug) {
  int ends[2];
  if (pipe(ends) != 0) return "no pipe";
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDOUT_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
    for (const auto& [name, value] : bug.environment) {
      setenv(name.c_str(), value.c_str(), 1);
    }
    bug.run();
    std::fflush(stdout);
    _exit(0);
  }
  close(ends[1]);
  std::string text;
  char part[4096];
  for (ssize_t n; (n = read(ends[0], part, sizeof(part))) > 0;) {
    text.append(part, static_cast<size_t>(n));
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  return text;
}

class BugTest : public testing::TestWithParam<Bug> {};

TEST_P(BugTest, IsFound) {
  const std::string& expected = Expected(GetParam());
  if (expected.empty()) return;
  EXPECT_THAT(Output(GetParam()), testing::ContainsRegex(expected));
}

class ControlTest : public testing::TestWithParam<Bug> {};

TEST_P(ControlTest, IsSilent) {
  for (const char* order : {"seq", "reverse", "random"}) {
    for (const char* streams : {"lazy", "eager", "random"}) {
      Bug control = GetParam();
      control.environment = {{"CUDA_EMU_ORDER", order},
                             {"CUDA_EMU_STREAMS", streams}};
      EXPECT_EQ(Output(control), "") << order << " " << streams;
    }
  }
}

std::string NameOf(const testing::TestParamInfo<Bug>& info) {
  return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(Synchronization, BugTest,
                         testing::ValuesIn(SynchronizationBugs()), NameOf);
INSTANTIATE_TEST_SUITE_P(Memory, BugTest, testing::ValuesIn(MemoryBugs()),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(AsyncCopy, BugTest, testing::ValuesIn(AsyncCopyBugs()),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(Host, BugTest, testing::ValuesIn(HostBugs()), NameOf);
INSTANTIATE_TEST_SUITE_P(Sound, ControlTest, testing::ValuesIn(Controls()),
                         NameOf);

}  // namespace
}  // namespace cuda_emu_selftest
