// The trained parameters in the live model: where each lies in a rank's
// ModelWeights, reading it there and writing it there in the form that the
// model computes with. Local to the rank; writing is in stream order.
//
// Threads: one at a time.
#ifndef OCTET_WORKER_TRAIN_LIVE_WEIGHTS_H_
#define OCTET_WORKER_TRAIN_LIVE_WEIGHTS_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/backend.h"
#include "kernels/training_backend.h"
#include "worker/model/config.h"
#include "worker/model/weights.h"
#include "worker/nn/scratch.h"
#include "worker/train/parameters.h"

namespace octet {

class LiveWeights {
 public:
  // All of it outlives the object.
  LiveWeights(Backend* backend, const ModelConfig& config,
              const ParameterSet* parameters, ModelWeights* weights);

  // Zero adapters for the targets that this rank holds, in their order.
  using Adapters = std::vector<std::unique_ptr<LoraWeights>>;
  absl::StatusOr<Adapters> MakeAdapters(float scale, float dropout) const;
  // Puts them in place of whatever adapters the model had.
  void Attach(Adapters adapters);

  // Elements [begin, end) of a parameter of the model itself (part kBase), as
  // f32 on the host; it need not be trained. The rank must hold it.
  absl::Status Read(const Parameter& parameter, int64_t begin, int64_t end,
                    float* out, Stream& stream) const;

  // Writes rows [row, row + values.rows()) of a parameter, f32 values [rows,
  // cols]; of a vector all. The rank must hold it. A tied head follows the
  // embedding.
  absl::Status Write(const Parameter& parameter, int64_t row,
                     ConstTensor values, Stream& stream);

 private:
  absl::Status WriteLoraB(const Parameter& parameter, int64_t row,
                          ConstTensor values, Stream& stream);

  Backend* backend_;
  TrainingBackend* training_;
  const ModelConfig config_;
  const ParameterSet* parameters_;
  ModelWeights* weights_;
  Scratch scaled_, wide_;  // rows of s B
};

// Where a weight lies; nullptr: this rank does not hold it.
PackedMatrix* FindMatrix(ModelWeights& weights, const WeightId& id);
std::unique_ptr<LoraWeights>* FindLora(ModelWeights& weights,
                                       const WeightId& id);

}  // namespace octet

#endif  // OCTET_WORKER_TRAIN_LIVE_WEIGHTS_H_
