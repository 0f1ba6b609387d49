#include "kernels/cuda/cuda_backend.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_plan.h"
#include "kernels/cuda/cuda_device.h"
#include "kernels/cuda/cuda_memory.h"
#include "kernels/cuda/cuda_objects.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/cuda_stream.h"
#include "kernels/cuda/cuda_training.h"
#include "kernels/cuda/dense_gemm.h"
#include "kernels/cuda/embedding.h"
#include "kernels/cuda/gemm.h"
#include "kernels/cuda/packed_matrix.h"
#include "kernels/cuda/permute.h"
#include "kernels/cuda/rms_norm.h"
#include "kernels/cuda/rope.h"
#include "kernels/cuda/rope_tables.h"
#include "kernels/cuda/router.h"
#include "kernels/cuda/sampling.h"

namespace octet {
namespace {

using cuda::CheckCache;
using cuda::CheckMatrices;
using cuda::CheckMatrix;
using cuda::CudaBuffer;
using cuda::CudaEvent;
using cuda::CudaPackedMatrix;
using cuda::CudaStatus;
using cuda::CudaStream;
using cuda::ToCuda;

constexpr int64_t kAttentionBlocksPerSm = 4;

bool IsBf16(ConstTensor tensor) { return tensor.dtype() == DType::kBF16; }

class CudaBackend : public Backend {
 public:
  CudaBackend(const CudaBackendOptions& options, cuda::CudaDevice device,
              cuda::GemmLauncher gemm,
              std::unique_ptr<cuda::DenseGemm> dense_gemm,
              std::unique_ptr<cuda::StagingBuffers> staging)
      : device_(std::move(device)),
        attention_blocks_(options.attention_blocks > 0
                              ? options.attention_blocks
                              : kAttentionBlocksPerSm *
                                    device_.multiprocessors),
        gemm_(gemm),
        dense_gemm_(std::move(dense_gemm)),
        staging_(std::move(staging)),
        training_(device_.index, gemm_, rope_tables_) {}

  TrainingBackend* training() override { return &training_; }

  std::string Description() const override {
    return absl::StrCat(
        "cuda (", device_.name, ", sm_", device_.compute_capability, ", ",
        device_.memory_bytes >> 30, " GiB), device ", device_.index);
  }

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t num_bytes) override {
    OCTET_RETURN_IF_ERROR(UseDevice());
    OCTET_ASSIGN_OR_RETURN(cuda::DeviceMemory memory,
                           cuda::DeviceMemory::Allocate(num_bytes));
    return std::make_unique<CudaBuffer>(std::move(memory));
  }
  absl::StatusOr<std::unique_ptr<Stream>> NewStream() override {
    OCTET_RETURN_IF_ERROR(UseDevice());
    return CudaStream::Create();
  }
  absl::StatusOr<std::unique_ptr<Event>> NewEvent() override {
    OCTET_RETURN_IF_ERROR(UseDevice());
    OCTET_ASSIGN_OR_RETURN(cuda::OwnedEvent event, cuda::NewEvent());
    return std::make_unique<CudaEvent>(std::move(event));
  }
  absl::Status Record(Event& event, Stream& stream) override {
    OCTET_ASSIGN_OR_RETURN(CudaStream * on, Enter(stream));
    OCTET_ASSIGN_OR_RETURN(CudaEvent * cuda_event, ToCuda(event));
    return CudaStatus(cudaEventRecord(cuda_event->get(), on->get()),
                      "cudaEventRecord");
  }
  absl::Status Wait(Event& event, Stream& stream) override {
    OCTET_ASSIGN_OR_RETURN(CudaStream * on, Enter(stream));
    OCTET_ASSIGN_OR_RETURN(CudaEvent * cuda_event, ToCuda(event));
    return CudaStatus(cudaStreamWaitEvent(on->get(), cuda_event->get(), 0),
                      "cudaStreamWaitEvent");
  }
  absl::Status Synchronize(Stream& stream) override {
    OCTET_ASSIGN_OR_RETURN(CudaStream * on, Enter(stream));
    return on->Synchronize();
  }
  absl::Status CopyToDevice(void* dst, const void* host_src, size_t num_bytes,
                            Stream& stream) override {
    OCTET_ASSIGN_OR_RETURN(CudaStream * on, Enter(stream));
    return on->Upload(dst, host_src, num_bytes);
  }
  absl::Status CopyToHost(void* host_dst, const void* src, size_t num_bytes,
                          Stream& stream) override {
    OCTET_ASSIGN_OR_RETURN(CudaStream * on, Enter(stream));
    return on->Download(host_dst, src, num_bytes);
  }
  absl::Status Zero(void* dst, size_t num_bytes, Stream& stream) override {
    OCTET_ASSIGN_OR_RETURN(CudaStream * on, Enter(stream));
    if (num_bytes == 0) return absl::OkStatus();
    return CudaStatus(cudaMemsetAsync(dst, 0, num_bytes, on->get()),
                      absl::StrCat("cudaMemsetAsync of ", num_bytes, " bytes"));
  }

  absl::StatusOr<std::unique_ptr<PackedMatrix>> NewPackedMatrix(
      DType dtype, int64_t n, int64_t k) override {
    OCTET_RETURN_IF_ERROR(UseDevice());
    return CudaPackedMatrix::Create(dtype, n, k, *staging_);
  }
  absl::Status PackRows(PackedMatrix& matrix, int64_t row_begin,
                        ConstTensor host_rows) override {
    OCTET_RETURN_IF_ERROR(UseDevice());
    OCTET_RETURN_IF_ERROR(CheckMatrix(matrix));
    return static_cast<CudaPackedMatrix&>(matrix).PackRows(row_begin, host_rows,
                                                           *staging_);
  }
  absl::Status UnpackRows(const PackedMatrix& matrix, int64_t row_begin,
                          Tensor host_rows) override {
    OCTET_RETURN_IF_ERROR(UseDevice());
    OCTET_RETURN_IF_ERROR(CheckMatrix(matrix));
    return static_cast<const CudaPackedMatrix&>(matrix).UnpackRows(
        row_begin, host_rows, *staging_);
  }

  absl::Status Embedding(ConstTensor table, ConstTensor ids, Tensor out,
                         Stream& stream) override;
  absl::Status RmsNorm(ConstTensor x, ConstTensor weight, float eps, Tensor out,
                       Stream& stream) override;
  absl::Status Gemm(ConstTensor x, const PackedMatrix& w, bool accumulate,
                    Tensor out, Stream& stream) override;
  absl::Status GroupedGemm(ConstTensor x,
                           absl::Span<const PackedMatrix* const> w,
                           absl::Span<const int64_t> row_offsets, Tensor out,
                           Stream& stream) override;
  absl::Status GroupedGemmSwiGlu(ConstTensor x,
                                 absl::Span<const PackedMatrix* const> w13,
                                 absl::Span<const int64_t> row_offsets,
                                 Tensor out, Stream& stream) override;
  absl::Status RopeAndCache(ConstTensor qkv, ConstTensor positions,
                            ConstTensor slots, const RopeParams& params,
                            const KvCacheView& cache, Tensor q_out,
                            Stream& stream) override;
  absl::Status PagedAttention(ConstTensor q, const KvCacheView& cache,
                              absl::Span<const AttentionSequence> sequences,
                              int sliding_window, Tensor out,
                              Stream& stream) override;
  absl::Status Router(ConstTensor logits, Tensor topk_ids, Tensor topk_weights,
                      Stream& stream) override;
  absl::Status GatherRows(ConstTensor src, ConstTensor row_ids, Tensor out,
                          Stream& stream) override;
  absl::Status CombineRows(ConstTensor rows, ConstTensor slot_rows,
                           ConstTensor weights, Tensor out,
                           Stream& stream) override;
  absl::Status Sample(ConstTensor logits, absl::Span<const SamplingRow> rows,
                      std::vector<SampledToken>* out, Stream& stream) override {
    OCTET_ASSIGN_OR_RETURN(CudaStream * on, Enter(stream));
    return cuda::Sample(logits, rows, out, *on);
  }
  absl::Status ScoreTokens(ConstTensor logits,
                           absl::Span<const int32_t> targets,
                           absl::Span<const int> num_logprobs,
                           std::vector<TokenLogprobs>* out,
                           Stream& stream) override {
    OCTET_ASSIGN_OR_RETURN(CudaStream * on, Enter(stream));
    return cuda::ScoreTokens(logits, targets, num_logprobs, out, *on);
  }

 private:
  // A thread that never used CUDA has device 0 as its current one.
  absl::Status UseDevice() { return cuda::SetDevice(device_.index); }
  absl::StatusOr<CudaStream*> Enter(Stream& stream) {
    return cuda::EnterStream(stream, device_.index);
  }

  const cuda::CudaDevice device_;
  const int64_t attention_blocks_;
  const cuda::GemmLauncher gemm_;
  const std::unique_ptr<cuda::DenseGemm> dense_gemm_;
  const std::unique_ptr<cuda::StagingBuffers> staging_;
  cuda::RopeTables rope_tables_;
  cuda::CudaTraining training_;
};

absl::Status CudaBackend::Embedding(ConstTensor table, ConstTensor ids,
                                    Tensor out, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, Enter(stream));
  return CudaStatus(
      cuda::LaunchEmbedding({table.data(), IsBf16(table), ids.as<int32_t>(),
                             out.as<float>(), out.dim(0), out.dim(1)},
                            on->get()),
      "launch of Embedding");
}

absl::Status CudaBackend::RmsNorm(ConstTensor x, ConstTensor weight, float eps,
                                  Tensor out, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, Enter(stream));
  return CudaStatus(
      cuda::LaunchRmsNorm({x.as<float>(), weight.as<float>(), eps, out.data(),
                           IsBf16(out), x.dim(0), x.dim(1)},
                          on->get()),
      "launch of RmsNorm");
}

absl::Status CudaBackend::Gemm(ConstTensor x, const PackedMatrix& w,
                               bool accumulate, Tensor out, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, Enter(stream));
  OCTET_RETURN_IF_ERROR(CheckMatrix(w));
  return dense_gemm_->Gemm(x, w, accumulate, out, on->get());
}

absl::Status CudaBackend::GroupedGemm(ConstTensor x,
                                      absl::Span<const PackedMatrix* const> w,
                                      absl::Span<const int64_t> row_offsets,
                                      Tensor out, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, Enter(stream));
  OCTET_RETURN_IF_ERROR(CheckMatrices(w));
  return gemm_.GroupedGemm(x, w, row_offsets, out, on->get());
}

absl::Status CudaBackend::GroupedGemmSwiGlu(
    ConstTensor x, absl::Span<const PackedMatrix* const> w13,
    absl::Span<const int64_t> row_offsets, Tensor out, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, Enter(stream));
  OCTET_RETURN_IF_ERROR(CheckMatrices(w13));
  return gemm_.GroupedGemmSwiGlu(x, w13, row_offsets, out, on->get());
}

absl::Status CudaBackend::RopeAndCache(ConstTensor qkv, ConstTensor positions,
                                       ConstTensor slots,
                                       const RopeParams& params,
                                       const KvCacheView& cache, Tensor q_out,
                                       Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, Enter(stream));
  OCTET_RETURN_IF_ERROR(CheckCache("RopeAndCache", cache));
  cuda::RopeArgs args;
  OCTET_ASSIGN_OR_RETURN(args.table, rope_tables_.For(params, *on));
  args.qkv = qkv.as<float>();
  args.positions = positions.as<int32_t>();
  args.slots = slots.as<int64_t>();
  args.q_out = q_out.as<float>();
  args.keys = cache.keys;
  args.values = cache.values;
  args.cache_is_bf16 = cache.dtype == DType::kBF16;
  args.num_rows = qkv.dim(0);
  args.num_heads = params.num_heads;
  args.num_kv_heads = params.num_kv_heads;
  args.head_dim = params.head_dim;
  args.block_tokens = cache.block_tokens;
  return CudaStatus(cuda::LaunchRopeAndCache(args, on->get()),
                    "launch of RopeAndCache");
}

absl::Status CudaBackend::PagedAttention(
    ConstTensor q, const KvCacheView& cache,
    absl::Span<const AttentionSequence> sequences, int sliding_window,
    Tensor out, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, Enter(stream));
  OCTET_RETURN_IF_ERROR(CheckCache("PagedAttention", cache));
  const int group =
      static_cast<int>(q.dim(1) / cache.head_dim) / cache.num_kv_heads;
  const cuda::AttentionPlan plan(
      sequences, {group, cache.num_kv_heads, cache.head_dim, sliding_window,
                  attention_blocks_});
  if (plan.num_pieces() == 0) return absl::OkStatus();
  OCTET_ASSIGN_OR_RETURN(const std::byte* base, on->UploadPlan(plan.Bytes()));
  const size_t state_bytes = plan.num_partials() * sizeof(float2);
  const size_t out_bytes = plan.num_partials() * cache.head_dim * sizeof(float);
  OCTET_ASSIGN_OR_RETURN(std::byte * scratch,
                         on->Scratch(state_bytes + out_bytes));
  cuda::AttentionArgs args;
  args.q = q.as<float>();
  args.out = out.data();
  args.out_is_bf16 = IsBf16(out);
  args.keys = cache.keys;
  args.values = cache.values;
  args.cache_is_bf16 = cache.dtype == DType::kBF16;
  args.vectorised = cuda::AttentionIsVectorised(cache);
  args.partial_state = reinterpret_cast<float2*>(scratch);
  args.partial_out = reinterpret_cast<float*>(scratch + state_bytes);
  args.group = group;
  args.num_kv_heads = cache.num_kv_heads;
  args.head_dim = cache.head_dim;
  args.block_tokens = cache.block_tokens;
  args.window = sliding_window;
  plan.PointTo(base, args);
  args.items = plan.small_items(base);
  OCTET_RETURN_IF_ERROR(
      CudaStatus(cuda::LaunchAttention(args, 1, plan.num_small(), on->get()),
                 "launch of PagedAttention"));
  args.items = plan.large_items(base);
  OCTET_RETURN_IF_ERROR(
      CudaStatus(cuda::LaunchAttention(args, cuda::kAttentionWarps,
                                       plan.num_large(), on->get()),
                 "launch of PagedAttention"));
  if (plan.num_partials() == 0) return absl::OkStatus();
  return CudaStatus(
      cuda::LaunchAttentionMerge(args, plan.num_pieces(), on->get()),
      "launch of the merge of PagedAttention");
}

absl::Status CudaBackend::Router(ConstTensor logits, Tensor topk_ids,
                                 Tensor topk_weights, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, Enter(stream));
  return CudaStatus(
      cuda::LaunchRouter({logits.as<float>(), logits.dim(0),
                          static_cast<int32_t>(logits.dim(1)),
                          static_cast<int32_t>(topk_ids.dim(1)),
                          topk_ids.as<int32_t>(), topk_weights.as<float>()},
                         on->get()),
      "launch of Router");
}

absl::Status CudaBackend::GatherRows(ConstTensor src, ConstTensor row_ids,
                                     Tensor out, Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, Enter(stream));
  return CudaStatus(
      cuda::LaunchGatherRows(
          {src.data(), row_ids.as<int32_t>(), out.data(), out.dim(0),
           out.dim(1) * static_cast<int64_t>(SizeOf(out.dtype()))},
          on->get()),
      "launch of GatherRows");
}

absl::Status CudaBackend::CombineRows(ConstTensor rows, ConstTensor slot_rows,
                                      ConstTensor weights, Tensor out,
                                      Stream& stream) {
  OCTET_ASSIGN_OR_RETURN(CudaStream * on, Enter(stream));
  return CudaStatus(cuda::LaunchCombineRows(
                        {rows.data(), IsBf16(rows), slot_rows.as<int32_t>(),
                         weights.as<float>(), out.as<float>(), out.dim(0),
                         static_cast<int32_t>(weights.dim(1)),
                         static_cast<int32_t>(out.dim(1))},
                        on->get()),
                    "launch of CombineRows");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> NewCudaBackend(
    const CudaBackendOptions& options) {
  OCTET_ASSIGN_OR_RETURN(cuda::CudaDevice device,
                         cuda::OpenCudaDevice(options.device));
  OCTET_RETURN_IF_ERROR(
      CudaStatus(cuda::ConfigureAttention(),
                 "cudaFuncSetAttribute of the shared memory for attention"));
  OCTET_ASSIGN_OR_RETURN(cuda::GemmLauncher gemm, cuda::GemmLauncher::Create());
  OCTET_ASSIGN_OR_RETURN(
      std::unique_ptr<cuda::DenseGemm> dense_gemm,
      cuda::DenseGemm::Create({.use_cublas = options.cublas}, gemm));
  OCTET_ASSIGN_OR_RETURN(std::unique_ptr<cuda::StagingBuffers> staging,
                         cuda::StagingBuffers::Create());
  return std::make_unique<CudaBackend>(options, std::move(device), gemm,
                                       std::move(dense_gemm),
                                       std::move(staging));
}

}  // namespace octet
