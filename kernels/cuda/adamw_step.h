// What every element of an AdamW step shares.
#ifndef OCTET_KERNELS_CUDA_ADAMW_STEP_H_
#define OCTET_KERNELS_CUDA_ADAMW_STEP_H_

#include "kernels/cuda/optimizer.h"
#include "kernels/training_backend.h"

namespace octet::cuda {

AdamWStep MakeAdamWStep(const AdamWParams& params);

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_ADAMW_STEP_H_
