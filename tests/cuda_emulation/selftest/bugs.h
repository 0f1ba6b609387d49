// Seeded bugs and sound controls, each a small CUDA program; and for each bug
// the builds that must find it and what they must say.
#ifndef CUDA_EMU_SELFTEST_BUGS_H_
#define CUDA_EMU_SELFTEST_BUGS_H_

#include <cstdio>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

namespace cuda_emu_selftest {

struct Bug {
  std::string name;
  // Runs in a process of its own. Prints "wrong data" when the result shows it.
  void (*run)();
  // Regular expressions of what is printed, by build; empty: need not be found.
  std::string plain;
  std::string asan;
  std::string checked;
  // Settings for its process, for example {"CUDA_EMU_ORDER", "random"}.
  std::vector<std::pair<std::string, std::string>> environment = {};
};

inline void PrintTo(const Bug& bug, std::ostream* out) { *out << bug.name; }

std::vector<Bug> SynchronizationBugs();
std::vector<Bug> MemoryBugs();
std::vector<Bug> AsyncCopyBugs();
std::vector<Bug> HostBugs();

// Sound programs: no build may print anything. `plain` and so on are empty.
std::vector<Bug> Controls();

inline void WrongDataUnless(bool right) {
  if (!right) std::printf("wrong data\n");
}

}  // namespace cuda_emu_selftest

#endif  // CUDA_EMU_SELFTEST_BUGS_H_
