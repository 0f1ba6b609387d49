// An adapter folded into its base model: W + s B A, s = alpha / rank, in the
// layout and dtype of the base checkpoint, file by file.
//
// B A is summed in f32 over rising rank, W + s B A rounded once. Onto which W:
//   exact  the checkpoint's own weights (what the adapter was trained on when
//          the model was loaded in 16 bits)
//   nf4    those weights after NF4 with double quantisation (what a QLoRA
//          adapter was trained on; worker/model/quantization.h)
// Modules that the adapter saves whole replace those of the base.
//
// Memory: the adapter's two matrices and one tensor of the base at a time, each
// in f32. Thread-safe.
#ifndef OCTET_WORKER_CHECKPOINT_MERGE_H_
#define OCTET_WORKER_CHECKPOINT_MERGE_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/quantization.h"

namespace octet {

struct MergeOptions {
  std::string base_dir;
  std::string adapter_dir;
  std::string output_dir;     // must not exist or be empty
  Quantization quantization;  // of the base, before the adapter is added
  int num_threads = 0;        // 0: as many as there are processors
  // Called after each tensor. Bytes of the base.
  std::function<void(int64_t bytes_done, int64_t bytes_total)> progress;
};

// Sums over all tensors of one kind of module ("q_proj", "w1", ...).
struct MergedModule {
  std::string name;
  int64_t tensors = 0;
  // Root mean squares, relative to that of the base's weights.
  double change = 0;     // s B A
  double rounding = 0;   // what the merged dtype loses
  double quantized = 0;  // NF4's difference to the base; 0 without it
};

struct MergeReport {
  std::vector<MergedModule> modules;  // adapted ones, by name
  int64_t copied = 0;                 // tensors as they were
  int64_t replaced = 0;               // modules saved whole
  int64_t num_bytes = 0;              // of tensors written
};

// INVALID_ARGUMENT: the adapter does not fit the base; one sentence. All or
// nothing: a directory beside `output_dir` is filled, synced and renamed.
absl::StatusOr<MergeReport> MergeAdapter(const MergeOptions& options);

}  // namespace octet

#endif  // OCTET_WORKER_CHECKPOINT_MERGE_H_
