#include "launch/kernel_bench.h"

#include <algorithm>
#include <atomic>
#include <numeric>
#include <random>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "kernels/ops.h"
#include "launch/random_weights.h"

namespace octet {
namespace {

constexpr int kBlockTokens = 16;
constexpr int64_t kPatternElements = int64_t{1} << 18;
constexpr int kBatches = 5;
constexpr int64_t kMostCallsPerBatch = 10000;

}  // namespace

absl::StatusOr<std::unique_ptr<KernelBench>> KernelBench::Create(
    Backend* backend, const ModelConfig& config, DType dtype) {
  ModelConfig one_layer = config;
  one_layer.num_layers = 1;
  std::unique_ptr<KernelBench> bench(
      new KernelBench(backend, one_layer, dtype));
  OCTET_ASSIGN_OR_RETURN(bench->stream_, backend->NewStream());
  std::vector<int> experts(config.num_experts);
  std::iota(experts.begin(), experts.end(), 0);
  std::atomic<int64_t> bytes_done{0};
  OCTET_ASSIGN_OR_RETURN(bench->weights_,
                         MakeRandomWeights(*backend, *bench->stream_, one_layer,
                                           dtype, experts, bytes_done));
  for (const ExpertWeights& expert : bench->weights_.layers[0].experts) {
    bench->w13_.push_back(expert.w13.get());
    bench->w2_.push_back(expert.w2.get());
  }
  return bench;
}

absl::StatusOr<OwnedTensor> KernelBench::New(DType dtype, int64_t rows,
                                             int64_t columns) {
  OwnedTensor tensor;
  OCTET_ASSIGN_OR_RETURN(tensor.buffer,
                         backend_->Allocate(rows * columns * SizeOf(dtype)));
  tensor.view = Tensor(tensor.buffer->data(), dtype, {rows, columns});
  return tensor;
}

absl::StatusOr<OwnedTensor> KernelBench::Random(DType dtype, int64_t rows,
                                                int64_t columns) {
  OCTET_ASSIGN_OR_RETURN(OwnedTensor tensor, New(dtype, rows, columns));
  std::minstd_rand random(1);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<float> values(std::min(kPatternElements, rows * columns));
  for (float& value : values) value = uniform(random);
  std::vector<BF16> rounded(values.size());
  std::transform(values.begin(), values.end(), rounded.begin(), ToBF16);
  const bool is_f32 = dtype == DType::kF32;
  const void* pattern = is_f32 ? static_cast<const void*>(values.data())
                               : static_cast<const void*>(rounded.data());
  const size_t pattern_bytes = values.size() * SizeOf(dtype);
  const size_t total = tensor.view.num_bytes();
  for (size_t done = 0; done < total; done += pattern_bytes) {
    OCTET_RETURN_IF_ERROR(backend_->CopyToDevice(
        static_cast<char*>(tensor.view.data()) + done, pattern,
        std::min(pattern_bytes, total - done), *stream_));
  }
  OCTET_RETURN_IF_ERROR(backend_->Synchronize(*stream_));
  return tensor;
}

absl::StatusOr<OwnedTensor> KernelBench::Indices(DType dtype, const void* host,
                                                 int64_t rows,
                                                 int64_t columns) {
  OCTET_ASSIGN_OR_RETURN(OwnedTensor tensor, New(dtype, rows, columns));
  if (columns == 1) tensor.view = Tensor(tensor.view.data(), dtype, {rows});
  OCTET_RETURN_IF_ERROR(backend_->CopyToDevice(
      tensor.view.data(), host, tensor.view.num_bytes(), *stream_));
  OCTET_RETURN_IF_ERROR(backend_->Synchronize(*stream_));
  return tensor;
}

absl::Status KernelBench::Prepare(const KernelWorkload& workload) {
  step_ = {};  // first, so that two steps never lie in memory
  training_ = {};
  OCTET_RETURN_IF_ERROR(PrepareActivations(workload));
  OCTET_RETURN_IF_ERROR(PrepareSequences(workload));
  OCTET_RETURN_IF_ERROR(PrepareRouting(workload));
  OCTET_RETURN_IF_ERROR(PrepareHead(workload));
  return workload.training ? PrepareTraining(workload) : absl::OkStatus();
}

absl::Status KernelBench::PrepareActivations(const KernelWorkload& workload) {
  const int64_t t = workload.tokens, h = config_.hidden_dim;
  const int64_t q = config_.q_dim(), kv = config_.kv_dim();
  OCTET_ASSIGN_OR_RETURN(step_.x, Random(DType::kF32, t, h));
  OCTET_ASSIGN_OR_RETURN(step_.residual, Random(DType::kF32, t, h));
  OCTET_ASSIGN_OR_RETURN(step_.normed, Random(dtype_, t, h));
  OCTET_ASSIGN_OR_RETURN(step_.qkv, Random(DType::kF32, t, q + 2 * kv));
  OCTET_ASSIGN_OR_RETURN(step_.q, Random(DType::kF32, t, q));
  OCTET_ASSIGN_OR_RETURN(step_.attention, Random(dtype_, t, q));
  std::vector<int32_t> ids(t);
  std::minstd_rand random(1);
  for (int32_t& id : ids) {
    id = static_cast<int32_t>(random() % config_.vocab_size);
  }
  OCTET_ASSIGN_OR_RETURN(step_.ids, Indices(DType::kI32, ids.data(), t, 1));
  return absl::OkStatus();
}

// Every sequence has blocks of its own, one after the other.
absl::Status KernelBench::PrepareSequences(const KernelWorkload& workload) {
  host_ = {};
  std::vector<int32_t> positions;
  std::vector<int64_t> slots;
  int64_t next_block = 0;
  for (const AttentionRange& range : workload.sequences()) {
    const int64_t length = range.first_position + range.num_rows;
    std::vector<int32_t> table((length + kBlockTokens - 1) / kBlockTokens);
    std::iota(table.begin(), table.end(), static_cast<int32_t>(next_block));
    AttentionSequence sequence;
    sequence.row_begin = static_cast<int64_t>(positions.size());
    sequence.num_rows = range.num_rows;
    sequence.first_position = range.first_position;
    host_.sequences.push_back(sequence);
    for (int64_t p = range.first_position; p < length; ++p) {
      positions.push_back(static_cast<int32_t>(p));
      slots.push_back(next_block * kBlockTokens + p);
    }
    next_block += static_cast<int64_t>(table.size());
    host_.block_tables.push_back(std::move(table));
  }
  for (size_t i = 0; i < host_.sequences.size(); ++i) {
    host_.sequences[i].block_table = host_.block_tables[i];
  }
  const int64_t t = workload.tokens;
  OCTET_ASSIGN_OR_RETURN(step_.positions,
                         Indices(DType::kI32, positions.data(), t, 1));
  OCTET_ASSIGN_OR_RETURN(step_.slots, Indices(DType::kI64, slots.data(), t, 1));
  const int64_t rows = next_block * kBlockTokens;
  OCTET_ASSIGN_OR_RETURN(step_.keys, Random(dtype_, rows, config_.kv_dim()));
  OCTET_ASSIGN_OR_RETURN(step_.values, Random(dtype_, rows, config_.kv_dim()));
  cache_ = {.keys = step_.keys.view.data(),
            .values = step_.values.view.data(),
            .dtype = dtype_,
            .num_blocks = next_block,
            .num_kv_heads = config_.num_kv_heads,
            .block_tokens = kBlockTokens,
            .head_dim = config_.head_dim};
  return absl::OkStatus();
}

absl::Status KernelBench::PrepareRouting(const KernelWorkload& workload) {
  const int64_t t = workload.tokens, k = config_.top_k;
  const BalancedRouting routing(t, config_.num_experts, config_.top_k);
  row_offsets_ = routing.row_offsets;
  OCTET_ASSIGN_OR_RETURN(step_.gate_logits,
                         Random(DType::kF32, t, config_.num_experts));
  OCTET_ASSIGN_OR_RETURN(step_.topk_ids, New(DType::kI32, t, k));
  OCTET_ASSIGN_OR_RETURN(step_.topk_weights, Random(DType::kF32, t, k));
  OCTET_ASSIGN_OR_RETURN(
      step_.row_tokens,
      Indices(DType::kI32, routing.row_tokens.data(), t * k, 1));
  OCTET_ASSIGN_OR_RETURN(step_.slot_rows, New(DType::kI32, t, k));
  OCTET_RETURN_IF_ERROR(backend_->CopyToDevice(
      step_.slot_rows.view.data(), routing.slot_rows.data(),
      step_.slot_rows.view.num_bytes(), *stream_));
  OCTET_RETURN_IF_ERROR(backend_->Synchronize(*stream_));
  OCTET_ASSIGN_OR_RETURN(step_.gathered,
                         Random(dtype_, t * k, config_.hidden_dim));
  OCTET_ASSIGN_OR_RETURN(step_.hidden, Random(dtype_, t * k, config_.ffn_dim));
  OCTET_ASSIGN_OR_RETURN(step_.expert_rows,
                         Random(dtype_, t * k, config_.hidden_dim));
  return absl::OkStatus();
}

absl::Status KernelBench::PrepareHead(const KernelWorkload& workload) {
  const int64_t n = workload.head_rows();
  OCTET_ASSIGN_OR_RETURN(step_.head_x, Random(dtype_, n, config_.hidden_dim));
  OCTET_ASSIGN_OR_RETURN(step_.logits,
                         Random(DType::kF32, n, config_.vocab_size));
  for (int64_t row = 0; row < n; ++row) {
    SamplingRow sampling;
    sampling.seed = static_cast<uint64_t>(row);
    host_.sampling.push_back(sampling);
  }
  host_.targets.assign(n, 0);
  host_.num_logprobs.assign(n, 0);
  return absl::OkStatus();
}

absl::StatusOr<double> KernelBench::TimeBatch(KernelOp op, int64_t calls) {
  const absl::Time start = absl::Now();
  for (int64_t i = 0; i < calls; ++i) OCTET_RETURN_IF_ERROR(Call(op));
  OCTET_RETURN_IF_ERROR(backend_->Synchronize(*stream_));
  return absl::ToDoubleSeconds(absl::Now() - start) / calls;
}

absl::StatusOr<double> KernelBench::Time(KernelOp op, double seconds) {
  OCTET_RETURN_IF_ERROR(TimeBatch(op, 1).status());
  OCTET_ASSIGN_OR_RETURN(const double one, TimeBatch(op, 1));
  if (one > seconds) return one;
  const int64_t calls = std::clamp<int64_t>(
      static_cast<int64_t>(seconds / kBatches / one), 1, kMostCallsPerBatch);
  std::vector<double> batches(kBatches);
  for (double& batch : batches) {
    OCTET_ASSIGN_OR_RETURN(batch, TimeBatch(op, calls));
  }
  std::nth_element(batches.begin(), batches.begin() + kBatches / 2,
                   batches.end());
  return batches[kBatches / 2];
}

absl::Status KernelBench::Call(KernelOp op) {
  if (op > KernelOp::kScoreTokens) return CallTraining(op);
  Stream& s = *stream_;
  switch (op) {
    case KernelOp::kEmbedding:
      return ops::Embedding(*backend_, weights_.embedding.view, step_.ids.view,
                            step_.x.view, s);
    case KernelOp::kRmsNorm:
      return ops::RmsNorm(*backend_, step_.x.view,
                          weights_.layers[0].input_norm.view,
                          config_.rms_norm_eps, step_.normed.view, s);
    case KernelOp::kQkvGemm:
    case KernelOp::kRopeAndCache:
    case KernelOp::kPagedAttention:
    case KernelOp::kOutputGemm:
      return CallAttention(op);
    case KernelOp::kHeadGemm:
      return ops::Gemm(*backend_, step_.head_x.view, *weights_.lm_head, false,
                       step_.logits.view, s);
    case KernelOp::kSample:
      return ops::Sample(*backend_, step_.logits.view, host_.sampling,
                         &sampled_, s);
    case KernelOp::kScoreTokens:
      return ops::ScoreTokens(*backend_, step_.logits.view, host_.targets,
                              host_.num_logprobs, &scored_, s);
    default:
      return CallExperts(op);
  }
}

absl::Status KernelBench::CallAttention(KernelOp op) {
  Stream& s = *stream_;
  const LayerWeights& layer = weights_.layers[0];
  switch (op) {
    case KernelOp::kQkvGemm:
      return ops::Gemm(*backend_, step_.normed.view, *layer.qkv, false,
                       step_.qkv.view, s);
    case KernelOp::kRopeAndCache: {
      const RopeParams rope = {.theta = config_.rope_theta,
                               .num_heads = config_.num_heads,
                               .num_kv_heads = config_.num_kv_heads,
                               .head_dim = config_.head_dim};
      return ops::RopeAndCache(*backend_, step_.qkv.view, step_.positions.view,
                               step_.slots.view, rope, cache_, step_.q.view, s);
    }
    case KernelOp::kPagedAttention:
      return ops::PagedAttention(*backend_, step_.q.view, cache_,
                                 host_.sequences, config_.sliding_window,
                                 step_.attention.view, s);
    default:
      return ops::Gemm(*backend_, step_.attention.view, *layer.o, true,
                       step_.residual.view, s);
  }
}

absl::Status KernelBench::CallExperts(KernelOp op) {
  Stream& s = *stream_;
  switch (op) {
    case KernelOp::kGateGemm:
      return ops::Gemm(*backend_, step_.normed.view, *weights_.layers[0].gate,
                       false, step_.gate_logits.view, s);
    case KernelOp::kRouter:
      return ops::Router(*backend_, step_.gate_logits.view, step_.topk_ids.view,
                         step_.topk_weights.view, s);
    case KernelOp::kGatherRows:
      return ops::GatherRows(*backend_, step_.normed.view,
                             step_.row_tokens.view, step_.gathered.view, s);
    case KernelOp::kGroupedGemmSwiGlu:
      return ops::GroupedGemmSwiGlu(*backend_, step_.gathered.view, w13_,
                                    row_offsets_, step_.hidden.view, s);
    case KernelOp::kGroupedGemm:
      return ops::GroupedGemm(*backend_, step_.hidden.view, w2_, row_offsets_,
                              step_.expert_rows.view, s);
    default:
      return ops::CombineRows(*backend_, step_.expert_rows.view,
                              step_.slot_rows.view, step_.topk_weights.view,
                              step_.residual.view, s);
  }
}

}  // namespace octet
