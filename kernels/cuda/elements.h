// An array in device memory whose dtype, f32 or bf16, is known at run time.
#ifndef OCTET_KERNELS_CUDA_ELEMENTS_H_
#define OCTET_KERNELS_CUDA_ELEMENTS_H_

namespace octet::cuda {

struct ConstElements {
  const void* data = nullptr;
  bool is_bf16 = false;  // else f32
};

struct Elements {
  void* data = nullptr;
  bool is_bf16 = false;  // else f32
};

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_ELEMENTS_H_
