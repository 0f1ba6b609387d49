// The device language as device code sees it, for the emulator's own files:
// these see NVIDIA's cuda_runtime.h through the same overlay.
#ifndef CUDA_EMU_ENGINE_DEVICE_LANGUAGE_H_
#define CUDA_EMU_ENGINE_DEVICE_LANGUAGE_H_

#include <cuda_runtime.h>

#include "tests/cuda_emulation/include/cuda_emu/core.h"
#include "tests/cuda_emulation/include/cuda_emu/launch.h"

#endif  // CUDA_EMU_ENGINE_DEVICE_LANGUAGE_H_
