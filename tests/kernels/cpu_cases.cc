// The CPU backend with each instruction set that this processor has.
#include "kernels/cpu/cpu_backend.h"
#include "tests/kernels/backend_cases.h"

namespace octet::test {

std::vector<BackendCase> BackendCases() {
  std::vector<BackendCase> cases;
  for (const cpu::Isa isa : cpu::SupportedIsas()) {
    BackendCase& added = cases.emplace_back();
    added.name = std::string(cpu::Name(isa));
    added.make = [isa](int way) {
      return NewCpuBackend({.num_threads = way, .isa = isa});
    };
  }
  return cases;
}

}  // namespace octet::test
