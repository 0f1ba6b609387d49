// What every CPU operation works with: the vector loops, the threads and their
// scratch memory. One per backend; used by one operation at a time.
#ifndef OCTET_KERNELS_CPU_CONTEXT_H_
#define OCTET_KERNELS_CPU_CONTEXT_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "kernels/cpu/aligned_memory.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/training_kernels.h"
#include "kernels/cpu/vector_kernels.h"
#include "kernels/tensor.h"

namespace octet::cpu {

class CpuContext {
 public:
  // `isa` must be supported; `pool` must outlive the context.
  CpuContext(Isa isa, ThreadPool& pool)
      : kernels_(VectorKernelsFor(isa)),
        training_kernels_(TrainingKernelsFor(isa)),
        pool_(pool),
        scratch_(pool.num_threads()) {}

  const VectorKernels& kernels() const { return kernels_; }
  const TrainingKernels& training_kernels() const { return training_kernels_; }
  ThreadPool& pool() { return pool_; }

  // Grows the scratch of every thread to `num_bytes`; contents are lost.
  // RESOURCE_EXHAUSTED names the size asked for.
  absl::Status ReserveScratch(size_t num_bytes);
  // What was reserved, for a thread of the pool; 64-byte aligned.
  void* scratch(int thread) { return scratch_[thread].data(); }

  // Calls body(begin, end) for pieces of [0, num_rows), on the pool where
  // num_rows * row_bytes is worth waking it.
  void ForRows(int64_t num_rows, int64_t row_bytes,
               absl::FunctionRef<void(int64_t, int64_t)> body);

 private:
  const VectorKernels& kernels_;
  const TrainingKernels& training_kernels_;
  ThreadPool& pool_;
  std::vector<AlignedMemory> scratch_;
};

// INVALID_ARGUMENT unless every index is in [0, limit): "GatherRows: row_ids[3]
// is 12, expected 0 to 7". indices i32 or i64.
absl::Status CheckIndices(absl::string_view operation, absl::string_view name,
                          ConstTensor indices, int64_t limit);

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_CONTEXT_H_
