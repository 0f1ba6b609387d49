#include "launch/random_weights.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "base/status_macros.h"

namespace octet {
namespace {

constexpr int64_t kPatternRows =
    256;  // random rows, repeated: time does not depend on the values

// Makes matrices and vectors of a rank's weights.
class WeightMaker {
 public:
  WeightMaker(Backend& backend, Stream& stream, DType dtype,
              std::atomic<int64_t>& bytes_done)
      : backend_(backend),
        stream_(stream),
        dtype_(dtype),
        bytes_done_(bytes_done) {}

  absl::StatusOr<std::unique_ptr<PackedMatrix>> Matrix(int64_t n, int64_t k) {
    OCTET_ASSIGN_OR_RETURN(std::unique_ptr<PackedMatrix> matrix,
                           backend_.NewPackedMatrix(dtype_, n, k));
    std::vector<float> pattern = Pattern(std::min(n, kPatternRows), k);
    for (int64_t row = 0; row < n; row += kPatternRows) {
      const int64_t rows = std::min(kPatternRows, n - row);
      OCTET_RETURN_IF_ERROR(backend_.PackRows(
          *matrix, row, ConstTensor(pattern.data(), DType::kF32, {rows, k})));
    }
    bytes_done_ += n * k * static_cast<int64_t>(SizeOf(dtype_));
    return matrix;
  }

  absl::StatusOr<OwnedTensor> Ones(int64_t size) {
    const std::vector<float> ones(size, 1.0f);
    return Upload(ones.data(), DType::kF32, {size});
  }

  absl::StatusOr<OwnedTensor> Embedding(int64_t vocab, int64_t hidden) {
    const std::vector<float> pattern = Pattern(kPatternRows, hidden);
    if (dtype_ == DType::kF32) {
      std::vector<float> table(vocab * hidden);
      for (size_t i = 0; i < table.size(); ++i)
        table[i] = pattern[i % pattern.size()];
      return Upload(table.data(), dtype_, {vocab, hidden});
    }
    std::vector<BF16> table(vocab * hidden);
    for (size_t i = 0; i < table.size(); ++i)
      table[i] = ToBF16(pattern[i % pattern.size()]);
    return Upload(table.data(), dtype_, {vocab, hidden});
  }

 private:
  std::vector<float> Pattern(int64_t rows, int64_t columns) {
    std::vector<float> values(rows * columns);
    std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
    const float scale = 1.7f / std::sqrt(static_cast<float>(columns));
    for (float& value : values) value = scale * uniform(random_);
    return values;
  }

  absl::StatusOr<OwnedTensor> Upload(const void* host, DType dtype,
                                     std::initializer_list<int64_t> dims) {
    OwnedTensor tensor;
    const size_t bytes = ConstTensor(host, dtype, dims).num_bytes();
    OCTET_ASSIGN_OR_RETURN(tensor.buffer, backend_.Allocate(bytes));
    tensor.view = Tensor(tensor.buffer->data(), dtype, dims);
    OCTET_RETURN_IF_ERROR(
        backend_.CopyToDevice(tensor.buffer->data(), host, bytes, stream_));
    OCTET_RETURN_IF_ERROR(backend_.Synchronize(stream_));
    return tensor;
  }

  Backend& backend_;
  Stream& stream_;
  const DType dtype_;
  std::atomic<int64_t>& bytes_done_;
  std::minstd_rand random_{1};
};

absl::StatusOr<LayerWeights> MakeLayer(WeightMaker& make,
                                       const ModelConfig& config,
                                       absl::Span<const int> experts) {
  LayerWeights layer;
  OCTET_ASSIGN_OR_RETURN(layer.input_norm, make.Ones(config.hidden_dim));
  OCTET_ASSIGN_OR_RETURN(
      layer.qkv,
      make.Matrix(config.q_dim() + 2 * config.kv_dim(), config.hidden_dim));
  OCTET_ASSIGN_OR_RETURN(layer.o,
                         make.Matrix(config.hidden_dim, config.q_dim()));
  OCTET_ASSIGN_OR_RETURN(layer.post_attention_norm,
                         make.Ones(config.hidden_dim));
  OCTET_ASSIGN_OR_RETURN(layer.gate,
                         make.Matrix(config.num_experts, config.hidden_dim));
  for (int expert_id : experts) {
    ExpertWeights expert;
    expert.expert_id = expert_id;
    OCTET_ASSIGN_OR_RETURN(expert.w13,
                           make.Matrix(2 * config.ffn_dim, config.hidden_dim));
    OCTET_ASSIGN_OR_RETURN(expert.w2,
                           make.Matrix(config.hidden_dim, config.ffn_dim));
    layer.experts.push_back(std::move(expert));
  }
  return layer;
}

}  // namespace

absl::StatusOr<ModelWeights> MakeRandomWeights(
    Backend& backend, Stream& stream, const ModelConfig& config, DType dtype,
    absl::Span<const int> experts, std::atomic<int64_t>& bytes_done) {
  WeightMaker make(backend, stream, dtype, bytes_done);
  ModelWeights weights;
  weights.dtype = dtype;
  OCTET_ASSIGN_OR_RETURN(weights.embedding,
                         make.Embedding(config.vocab_size, config.hidden_dim));
  for (int layer = 0; layer < config.num_layers; ++layer) {
    OCTET_ASSIGN_OR_RETURN(LayerWeights made, MakeLayer(make, config, experts));
    weights.layers.push_back(std::move(made));
  }
  OCTET_ASSIGN_OR_RETURN(weights.final_norm, make.Ones(config.hidden_dim));
  OCTET_ASSIGN_OR_RETURN(weights.lm_head,
                         make.Matrix(config.vocab_size, config.hidden_dim));
  return weights;
}

}  // namespace octet
