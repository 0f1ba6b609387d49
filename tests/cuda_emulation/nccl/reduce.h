// Sums and the like, in the order in which a ring makes them and rounding to
// the type at each step: the same on every rank.
#ifndef CUDA_EMU_NCCL_REDUCE_H_
#define CUDA_EMU_NCCL_REDUCE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cuda_emu {

bool CanReduce(int32_t type, int32_t reduction);

// `parts[r]` is rank r's buffer of `count` elements. Chunk c of the result
// starts with rank c + 1's part, as in a ring.
std::vector<char> ReduceInRingOrder(const std::vector<const char*>& parts,
                                    size_t count, int32_t type,
                                    int32_t reduction);

}  // namespace cuda_emu

#endif  // CUDA_EMU_NCCL_REDUCE_H_
