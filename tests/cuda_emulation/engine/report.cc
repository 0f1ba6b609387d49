#include "tests/cuda_emulation/engine/report.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include "tests/cuda_emulation/engine/options.h"
#include "tests/cuda_emulation/include/cuda_emu/control.h"

namespace cuda_emu {
namespace {

constexpr int kMaxPrinted = 50;

int g_reports = 0;
cudaError_t g_sticky = cudaSuccess;
cudaError_t g_last = cudaSuccess;
std::string g_message;

void Note(const char* format, va_list arguments) {
  char text[2000];
  std::vsnprintf(text, sizeof(text), format, arguments);
  g_message = text;
  ++g_reports;
  if (!GetOptions().quiet && g_reports <= kMaxPrinted) {
    std::fprintf(stderr, "cuda_emu: %s\n", text);
  }
  if (GetOptions().abort_on_error) std::abort();
}

}  // namespace

void Report(cudaError_t error, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  Note(format, arguments);
  va_end(arguments);
  if (g_sticky == cudaSuccess) g_sticky = error;
}

cudaError_t Refuse(cudaError_t error, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  Note(format, arguments);
  va_end(arguments);
  return Remember(error);
}

cudaError_t Remember(cudaError_t error) {
  if (error != cudaSuccess) g_last = error;
  return error;
}

cudaError_t StickyError() { return g_sticky; }

cudaError_t TakeLastError(bool clear) {
  if (g_sticky != cudaSuccess) return g_sticky;
  const cudaError_t error = g_last;
  if (clear) g_last = cudaSuccess;
  return error;
}

int ErrorCount() { return g_reports; }
std::string LastMessage() { return g_message; }
void Reset() {
  g_reports = 0;
  g_sticky = g_last = cudaSuccess;
  g_message.clear();
}

}  // namespace cuda_emu
