// A call that a test has chosen to fail (cuda_emu/control.h): the functions of
// the API that can fail ask at their beginning.
#ifndef CUDA_EMU_ENGINE_INJECTION_H_
#define CUDA_EMU_ENGINE_INJECTION_H_

namespace cuda_emu {

// The error that this call of `function` is to return with nothing done, or 0;
// `usual` unless the test has named another. Any thread.
int InjectedError(const char* function, int usual);

template <auto kUsual>
auto Injected(const char* function) {
  return static_cast<decltype(kUsual)>(InjectedError(function, kUsual));
}

}  // namespace cuda_emu

#endif  // CUDA_EMU_ENGINE_INJECTION_H_
