#include "worker/checkpoint/hf_loader.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "worker/checkpoint/mixtral_tensors.h"

namespace octet {
namespace {

// Pieces end on multiples of this many rows, so that a backend that packs rows
// in tiles writes each tile once.
constexpr int64_t kPieceRows = 64;

// Elements of `src` as `dst`'s dtype (f32 or bf16); both hold `count`.
void ConvertElements(const char* src, DType src_dtype, int64_t count, char* dst,
                     DType dst_dtype) {
  if (src_dtype == dst_dtype) {
    std::memcpy(dst, src, static_cast<size_t>(count) * SizeOf(src_dtype));
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    float value = 0;
    if (src_dtype == DType::kF32) {
      std::memcpy(&value, src + 4 * i, 4);
    } else {
      uint16_t bits = 0;
      std::memcpy(&bits, src + 2 * i, 2);
      value =
          src_dtype == DType::kBF16 ? ToFloat(BF16{bits}) : HalfToFloat(bits);
    }
    if (dst_dtype == DType::kF32) {
      std::memcpy(dst + 4 * i, &value, 4);
    } else {
      const BF16 rounded = ToBF16(value);
      std::memcpy(dst + 2 * i, &rounded.bits, 2);
    }
  }
}

absl::Status CheckOptions(const LoadOptions& options,
                          const ModelConfig& config) {
  if (options.dtype.has_value() && *options.dtype != DType::kF32 &&
      *options.dtype != DType::kBF16) {
    return absl::InvalidArgumentError(absl::StrCat(
        "compute dtype is ", Name(*options.dtype), ", expected f32 or bf16"));
  }
  int previous = -1;
  for (int id : options.expert_ids) {
    if (id <= previous || id >= config.num_experts) {
      return absl::InvalidArgumentError(
          absl::StrCat("expert ids to load hold ", id, " after ", previous,
                       ", expected rising ids below ", config.num_experts));
    }
    previous = id;
  }
  return absl::OkStatus();
}

int64_t BytesToRead(const MixtralSource& source, const LoadOptions& options) {
  int64_t total = source.embedding.num_bytes() + source.final_norm.num_bytes();
  if (source.lm_head.has_value()) total += source.lm_head->num_bytes();
  for (const LayerSource& layer : source.layers) {
    total += layer.input_norm.num_bytes() + layer.qkv.num_bytes() +
             layer.o.num_bytes() + layer.post_attention_norm.num_bytes() +
             layer.gate.num_bytes();
    for (int id : options.expert_ids) {
      total +=
          layer.experts[id].w13.num_bytes() + layer.experts[id].w2.num_bytes();
    }
  }
  return total;
}

class Loader {
 public:
  Loader(Backend& backend, std::unique_ptr<Stream> stream, DType dtype,
         const LoadOptions& options, int64_t bytes_total)
      : backend_(backend),
        stream_(std::move(stream)),
        dtype_(dtype),
        options_(options),
        bytes_total_(bytes_total) {}

  absl::StatusOr<ModelWeights> Load(const MixtralSource& source) {
    ModelWeights weights;
    weights.dtype = dtype_;
    weights.quantization = options_.quantization;
    OCTET_RETURN_IF_ERROR(LoadEnds(source, &weights));
    for (const LayerSource& layer : source.layers) {
      OCTET_ASSIGN_OR_RETURN(LayerWeights loaded, LoadLayer(layer));
      weights.layers.push_back(std::move(loaded));
    }
    return weights;
  }

 private:
  // Reads `range` piece by piece and calls use(first row of the piece, piece).
  // The piece [rows, cols] is host memory that the next one overwrites.
  template <typename Use>
  absl::Status ForEachPiece(const RowRange& range, const Use& use) {
    const int64_t row_bytes =
        range.cols * static_cast<int64_t>(SizeOf(range.dtype));
    int64_t piece_rows =
        std::max<int64_t>(1, options_.staging_bytes / row_bytes);
    if (piece_rows > kPieceRows) piece_rows -= piece_rows % kPieceRows;
    piece_rows = std::min(piece_rows, range.rows);
    staging_.resize(
        std::max(staging_.size(), static_cast<size_t>(piece_rows * row_bytes)));
    for (int64_t row = 0; row < range.rows; row += piece_rows) {
      const int64_t rows = std::min(piece_rows, range.rows - row);
      const int64_t offset = (range.first_row + row) * row_bytes;
      OCTET_RETURN_IF_ERROR(range.file->Read(
          *range.entry, offset, rows * row_bytes, staging_.data()));
      // While this piece is packed the disk fetches the next.
      const int64_t next_rows = std::min(piece_rows, range.rows - row - rows);
      if (next_rows > 0) {
        range.file->Prefetch(*range.entry, offset + rows * row_bytes,
                             next_rows * row_bytes);
      }
      OCTET_RETURN_IF_ERROR(use(
          row, ConstTensor(staging_.data(), range.dtype, {rows, range.cols})));
      bytes_done_ += rows * row_bytes;
      if (options_.progress) options_.progress(bytes_done_, bytes_total_);
      if (options_.cancelled && options_.cancelled()) {
        return absl::CancelledError("loading was cancelled");
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<PackedMatrix>> NewMatrix(
      const MatrixSource& source, bool quantized) {
    if (!quantized) {
      return backend_.NewPackedMatrix(dtype_, source.rows(), source.cols());
    }
    std::vector<int64_t> part_rows;
    for (const RowRange& part : source.parts) part_rows.push_back(part.rows);
    auto matrix = backend_.NewNf4Matrix(dtype_, part_rows, source.cols());
    if (matrix.status().code() == absl::StatusCode::kInvalidArgument) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor '", source.parts.front().entry->name,
                       "': ", matrix.status().message()));
    }
    return matrix;
  }

  absl::StatusOr<std::unique_ptr<PackedMatrix>> LoadMatrix(
      const MatrixSource& source, bool quantized = false) {
    OCTET_ASSIGN_OR_RETURN(std::unique_ptr<PackedMatrix> matrix,
                           NewMatrix(source, quantized));
    int64_t row_begin = 0;
    for (const RowRange& part : source.parts) {
      OCTET_RETURN_IF_ERROR(
          ForEachPiece(part, [&](int64_t row, ConstTensor piece) {
            return backend_.PackRows(*matrix, row_begin + row, piece);
          }));
      row_begin += part.rows;
    }
    return matrix;
  }

  // Copies a piece to rows [row, ...) of `out`, converted to its dtype.
  absl::Status CopyPiece(int64_t row, ConstTensor piece, const Tensor& out) {
    converted_.resize(std::max(
        converted_.size(),
        static_cast<size_t>(piece.num_elements()) * SizeOf(out.dtype())));
    ConvertElements(static_cast<const char*>(piece.data()), piece.dtype(),
                    piece.num_elements(), converted_.data(), out.dtype());
    const Tensor rows = out.Rows(row, piece.rows());
    OCTET_RETURN_IF_ERROR(backend_.CopyToDevice(rows.data(), converted_.data(),
                                                rows.num_bytes(), *stream_));
    return backend_.Synchronize(*stream_);  // the buffer is used again
  }

  absl::StatusOr<OwnedTensor> LoadNorm(const RowRange& source) {
    OwnedTensor tensor;
    OCTET_ASSIGN_OR_RETURN(
        tensor.buffer, backend_.Allocate(source.cols * SizeOf(DType::kF32)));
    tensor.view = Tensor(tensor.buffer->data(), DType::kF32, {source.cols});
    const Tensor row(tensor.buffer->data(), DType::kF32, {1, source.cols});
    OCTET_RETURN_IF_ERROR(
        ForEachPiece(source, [&](int64_t first, ConstTensor piece) {
          return CopyPiece(first, piece, row);
        }));
    return tensor;
  }

  // Embedding, final norm and head.
  absl::Status LoadEnds(const MixtralSource& source, ModelWeights* weights) {
    const int64_t vocab = source.embedding.rows;
    const int64_t hidden = source.embedding.cols;
    const bool tied = !source.lm_head.has_value();
    OCTET_ASSIGN_OR_RETURN(
        weights->embedding.buffer,
        backend_.Allocate(static_cast<size_t>(vocab * hidden) *
                          SizeOf(dtype_)));
    weights->embedding.view =
        Tensor(weights->embedding.buffer->data(), dtype_, {vocab, hidden});
    if (tied) {
      OCTET_ASSIGN_OR_RETURN(weights->lm_head,
                             backend_.NewPackedMatrix(dtype_, vocab, hidden));
    }
    OCTET_RETURN_IF_ERROR(ForEachPiece(
        source.embedding, [&](int64_t row, ConstTensor piece) -> absl::Status {
          if (tied) {
            OCTET_RETURN_IF_ERROR(
                backend_.PackRows(*weights->lm_head, row, piece));
          }
          return CopyPiece(row, piece, weights->embedding.view);
        }));
    if (!tied) {
      OCTET_ASSIGN_OR_RETURN(weights->lm_head, LoadMatrix({{*source.lm_head}}));
    }
    OCTET_ASSIGN_OR_RETURN(weights->final_norm, LoadNorm(source.final_norm));
    return absl::OkStatus();
  }

  absl::StatusOr<LayerWeights> LoadLayer(const LayerSource& source) {
    const bool nf4 = options_.quantization.nf4;
    LayerWeights layer;
    OCTET_ASSIGN_OR_RETURN(layer.input_norm, LoadNorm(source.input_norm));
    OCTET_ASSIGN_OR_RETURN(layer.qkv, LoadMatrix(source.qkv, nf4));
    OCTET_ASSIGN_OR_RETURN(layer.o, LoadMatrix(source.o, nf4));
    OCTET_ASSIGN_OR_RETURN(layer.post_attention_norm,
                           LoadNorm(source.post_attention_norm));
    OCTET_ASSIGN_OR_RETURN(
        layer.gate, LoadMatrix(source.gate, nf4 && options_.quantization.gate));
    for (int id : options_.expert_ids) {
      ExpertWeights expert;
      expert.expert_id = id;
      OCTET_ASSIGN_OR_RETURN(expert.w13,
                             LoadMatrix(source.experts[id].w13, nf4));
      OCTET_ASSIGN_OR_RETURN(expert.w2, LoadMatrix(source.experts[id].w2, nf4));
      layer.experts.push_back(std::move(expert));
    }
    return layer;
  }

  Backend& backend_;
  const std::unique_ptr<Stream> stream_;
  const DType dtype_;
  const LoadOptions& options_;
  const int64_t bytes_total_;
  int64_t bytes_done_ = 0;
  std::vector<char> staging_;    // one piece, as in the file
  std::vector<char> converted_;  // the same in a tensor's dtype
};

}  // namespace

absl::StatusOr<ModelWeights> LoadMixtral(const HfCheckpoint& checkpoint,
                                         const ModelConfig& config,
                                         Backend& backend,
                                         const LoadOptions& options) {
  OCTET_RETURN_IF_ERROR(CheckOptions(options, config));
  OCTET_ASSIGN_OR_RETURN(const MixtralSource source,
                         MapMixtral(checkpoint, config));
  const DType exact = ExactComputeDType(source);
  const DType dtype = options.dtype.value_or(exact);
  if (!options.dtype.has_value() && exact == DType::kF32 &&
      source.embedding.dtype == DType::kF16) {
    OCTET_LOG(INFO) << checkpoint.listing_path()
                    << ": holds f16, computing in f32: bf16 would lose bits";
  }
  OCTET_ASSIGN_OR_RETURN(std::unique_ptr<Stream> stream, backend.NewStream());
  Loader loader(backend, std::move(stream), dtype, options,
                BytesToRead(source, options));
  return loader.Load(source);
}

int64_t WeightBytes(const ModelConfig& config, int num_local_experts,
                    DType dtype) {
  const int64_t hidden = config.hidden_dim;
  const int64_t attention = hidden * (2 * config.q_dim() + 2 * config.kv_dim());
  const int64_t gate = config.num_experts * hidden;
  const int64_t experts =
      int64_t{3} * num_local_experts * config.ffn_dim * hidden;
  const int64_t matrices = config.num_layers * (attention + gate + experts) +
                           2 * config.vocab_size * hidden;
  const int64_t norms = (2 * int64_t{config.num_layers} + 1) * hidden;
  return matrices * static_cast<int64_t>(SizeOf(dtype)) +
         norms * static_cast<int64_t>(SizeOf(DType::kF32));
}

}  // namespace octet
