// Linked into every checked executable, so that work on streams is checked
// there even when the test has no device code of its own.

#include "tests/cuda_emulation/check/shadow.h"

namespace {

[[maybe_unused]] const bool kEnabled = [] {
  cuda_emu::EnableChecking();
  return true;
}();

}  // namespace
