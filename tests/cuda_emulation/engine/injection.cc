#include "tests/cuda_emulation/engine/injection.h"

#include <mutex>
#include <string>

#include "tests/cuda_emulation/include/cuda_emu/control.h"

namespace cuda_emu {
namespace {

struct Injection {
  std::mutex mutex;
  int calls_left = 0;    // until the one that fails; 0: none fails
  std::string function;  // that counts; empty: all
  int error = 0;         // 0: the function's usual one
  std::string failed;
};

Injection& GetInjection() {
  static auto& injection = *new Injection();
  return injection;
}

}  // namespace

int InjectedError(const char* function, int usual) {
  Injection& i = GetInjection();
  const std::lock_guard<std::mutex> lock(i.mutex);
  if (i.calls_left == 0) return 0;
  if (!i.function.empty() && i.function != function) return 0;
  if (--i.calls_left > 0) return 0;
  i.failed = function;
  return i.error != 0 ? i.error : usual;
}

void FailCall(int number, const std::string& function, int error) {
  Injection& i = GetInjection();
  const std::lock_guard<std::mutex> lock(i.mutex);
  i.calls_left = number;
  i.function = function;
  i.error = error;
  i.failed.clear();
}

std::string FailedCall() {
  Injection& i = GetInjection();
  const std::lock_guard<std::mutex> lock(i.mutex);
  return i.failed;
}

}  // namespace cuda_emu
