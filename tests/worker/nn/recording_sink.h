// A gradient sink that keeps every slot's gradient of every weight on the host.
#ifndef OCTET_TESTS_WORKER_NN_RECORDING_SINK_H_
#define OCTET_TESTS_WORKER_NN_RECORDING_SINK_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "kernels/backend.h"
#include "worker/nn/gradient_sink.h"
#include "worker/nn/scratch.h"

namespace octet::test {

// By a printable name of the weight ("kind 7, layer 1, expert 3, part 0") and
// slot.
using SlotGradients =
    std::map<std::pair<std::string, int64_t>, std::vector<float>>;

std::string NameOf(const WeightId& id);

class RecordingSink : public GradientSink {
 public:
  RecordingSink(Backend* backend, std::vector<int64_t> embedding_shape,
                std::function<bool(const WeightId&)> wants)
      : backend_(backend),
        embedding_shape_(std::move(embedding_shape)),
        wants_(std::move(wants)),
        gradient_(backend) {}

  bool Wants(const WeightId& id) const override { return wants_(id); }
  absl::Status AddProduct(const WeightId& id, ConstTensor x, ConstTensor dy,
                          float scale, absl::Span<const SlotRows> slots,
                          Stream& stream) override;
  absl::Status AddNorm(const WeightId& id, ConstTensor x, float eps,
                       ConstTensor dy, absl::Span<const SlotRows> slots,
                       Stream& stream) override;
  absl::Status AddEmbedding(ConstTensor dx, ConstTensor ids,
                            absl::Span<const SlotRows> slots,
                            Stream& stream) override;

  const SlotGradients& gradients() const { return gradients_; }

 private:
  // Adds the gradient that `compute` writes into a [rows, cols] tensor.
  absl::Status Add(const WeightId& id, int64_t slot, int64_t rows, int64_t cols,
                   const std::function<absl::Status(Tensor)>& compute,
                   Stream& stream);

  Backend* backend_;
  const std::vector<int64_t> embedding_shape_;  // V, H
  const std::function<bool(const WeightId&)> wants_;
  Scratch gradient_;
  SlotGradients gradients_;
};

// Sum over slots, in double; empty when no slot has any.
std::vector<double> TotalOf(const SlotGradients& gradients, const WeightId& id);

}  // namespace octet::test

#endif  // OCTET_TESTS_WORKER_NN_RECORDING_SINK_H_
