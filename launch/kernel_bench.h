// Times single operations of a backend on the shapes of kernel_cases.h, through
// the Backend seam: the host's clock around calls that are put on a stream one
// after the other and waited for together.
//
// Weights and inputs are random, the same for every call: an operation whose
// data fit a cache finds them there. Memory: one layer's weights, embedding and
// head, and the activations and cache of the step that was last asked for.
#ifndef OCTET_LAUNCH_KERNEL_BENCH_H_
#define OCTET_LAUNCH_KERNEL_BENCH_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "launch/kernel_cases.h"
#include "worker/model/config.h"
#include "worker/model/weights.h"

namespace octet {

// One thread at a time; the backend must outlive it.
class KernelBench {
 public:
  // Makes the weights. RESOURCE_EXHAUSTED when they do not fit.
  static absl::StatusOr<std::unique_ptr<KernelBench>> Create(
      Backend* backend, const ModelConfig& config, DType dtype);

  // Makes the inputs of a step, in place of the last one's.
  absl::Status Prepare(const KernelWorkload& workload);

  // Seconds of one call of the prepared step's operation: after one call that
  // is not counted, the median of five batches that together take about
  // `seconds`; one call where that is longer.
  absl::StatusOr<double> Time(KernelOp op, double seconds);

 private:
  // Inputs and outputs of a step, in device memory.
  struct Step {
    OwnedTensor ids, positions, slots;          // [T] i32, i32, i64
    OwnedTensor x, residual;                    // [T, H] f32
    OwnedTensor normed;                         // [T, H]
    OwnedTensor qkv;                            // [T, (N_q + 2 N_kv) D] f32
    OwnedTensor q;                              // [T, N_q D] f32
    OwnedTensor attention;                      // [T, N_q D]
    OwnedTensor keys, values;                   // all slots of the cache
    OwnedTensor gate_logits;                    // [T, E] f32
    OwnedTensor topk_ids, topk_weights;         // [T, K] i32, f32
    OwnedTensor row_tokens, slot_rows;          // [T K], [T, K] i32
    OwnedTensor gathered, hidden, expert_rows;  // [T K, H], [.., F], [.., H]
    OwnedTensor head_x, logits;                 // [N, H], [N, V] f32
  };
  // What a training step has beside it.
  struct TrainingStep {
    OwnedTensor dq, dk, dv;           // [T, N_q D], [T, N_kv D] f32
    OwnedTensor dqkv;                 // [T, (N_q + 2 N_kv) D]
    OwnedTensor gate_up;              // [T K, 2F] f32
    OwnedTensor probabilities, coef;  // [T, E], [E] f32
    OwnedTensor dots;                 // [T, K] f32
    OwnedTensor targets;              // [T] i32
    OwnedTensor losses, scales;       // [T K] f32
    OwnedTensor dlogits;              // [T, V]
    OwnedTensor gradient;             // [max(V, F, N_q D, ..), H] f32
    OwnedTensor master, m, v;         // [H, N_q D] f32
  };
  // What operations take from the host.
  struct HostArguments {
    std::vector<std::vector<int32_t>> block_tables;
    std::vector<AttentionSequence> sequences;
    std::vector<SamplingRow> sampling;
    std::vector<int32_t> targets;
    std::vector<int> num_logprobs;
  };

  KernelBench(Backend* backend, const ModelConfig& config, DType dtype)
      : backend_(backend), config_(config), dtype_(dtype) {}

  absl::StatusOr<OwnedTensor> New(DType dtype, int64_t rows, int64_t columns);
  // Values in [-1, 1), a pattern that repeats.
  absl::StatusOr<OwnedTensor> Random(DType dtype, int64_t rows,
                                     int64_t columns);
  absl::StatusOr<OwnedTensor> Indices(DType dtype, const void* host,
                                      int64_t rows, int64_t columns);
  absl::Status PrepareActivations(const KernelWorkload& workload);
  absl::Status PrepareSequences(const KernelWorkload& workload);
  absl::Status PrepareRouting(const KernelWorkload& workload);
  absl::Status PrepareHead(const KernelWorkload& workload);
  // kernel_bench_training.cc, and the calls below that end with Training.
  absl::Status PrepareTraining(const KernelWorkload& workload);

  absl::Status Call(KernelOp op);
  absl::Status CallAttention(KernelOp op);
  absl::Status CallExperts(KernelOp op);
  absl::Status CallTraining(KernelOp op);
  absl::Status CallAttentionTraining(KernelOp op);
  absl::Status CallExpertsTraining(KernelOp op);
  absl::Status CallRouterTraining(KernelOp op);
  absl::Status CallUpdateTraining(KernelOp op);
  absl::StatusOr<double> TimeBatch(KernelOp op, int64_t calls);

  Backend* const backend_;
  const ModelConfig config_;
  const DType dtype_;
  std::unique_ptr<Stream> stream_;
  ModelWeights weights_;
  std::vector<const PackedMatrix*> w13_, w2_;
  Step step_;
  TrainingStep training_;
  HostArguments host_;
  KvCacheView cache_;
  std::vector<int64_t> row_offsets_;  // [E + 1]
  std::vector<SampledToken> sampled_;
  std::vector<TokenLogprobs> scored_;
  std::vector<double> squares_;
};

}  // namespace octet

#endif  // OCTET_LAUNCH_KERNEL_BENCH_H_
