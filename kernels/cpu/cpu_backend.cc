#include "kernels/cpu/cpu_backend.h"

#include <cstring>
#include <system_error>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/cpu/aligned_memory.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/context.h"
#include "kernels/cpu/cpu_objects.h"
#include "kernels/cpu/cpu_training.h"
#include "kernels/cpu/embedding.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/nf4_matrix.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/permute.h"
#include "kernels/cpu/rms_norm.h"
#include "kernels/cpu/rope.h"
#include "kernels/cpu/router.h"
#include "kernels/cpu/sampling.h"
#include "kernels/cpu/thread_pool.h"

namespace octet {
namespace {

using cpu::CheckMatrices;
using cpu::CheckMatrix;
using cpu::CheckOwned;
using cpu::CheckStream;
using cpu::CpuMatrix;
using cpu::CpuPackedMatrix;
using cpu::CpuStream;

// Nothing to remember, as of a stream.
class CpuEvent : public Event {};

class CpuBuffer : public Buffer {
 public:
  explicit CpuBuffer(cpu::AlignedMemory memory) : memory_(std::move(memory)) {}
  void* data() const override { return memory_.data(); }
  size_t size_bytes() const override { return memory_.size_bytes(); }

 private:
  const cpu::AlignedMemory memory_;
};

absl::Status CheckEvent(Event& event) {
  return dynamic_cast<CpuEvent*>(&event)
             ? absl::OkStatus()
             : absl::InvalidArgumentError(
                   "CpuBackend: the event is another backend's, expected one "
                   "from NewEvent");
}

class CpuBackend : public Backend {
 public:
  explicit CpuBackend(const CpuBackendOptions& options)
      : isa_(options.isa),
        pool_(options.num_threads),
        context_(options.isa, pool_),
        gemm_(options.isa, &pool_),
        training_(context_, gemm_, rope_table_) {}

  TrainingBackend* training() override { return &training_; }

  std::string Description() const override {
    return absl::StrCat("cpu (", cpu::Name(isa_), "), ", pool_.num_threads(),
                        pool_.num_threads() == 1 ? " thread" : " threads");
  }

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t num_bytes) override {
    OCTET_ASSIGN_OR_RETURN(cpu::AlignedMemory memory,
                           cpu::AlignedMemory::Allocate(num_bytes));
    return std::make_unique<CpuBuffer>(std::move(memory));
  }
  absl::StatusOr<std::unique_ptr<Stream>> NewStream() override {
    return std::make_unique<CpuStream>();
  }
  absl::StatusOr<std::unique_ptr<Event>> NewEvent() override {
    return std::make_unique<CpuEvent>();
  }
  absl::Status Record(Event& event, Stream& stream) override {
    OCTET_RETURN_IF_ERROR(CheckEvent(event));
    return CheckStream(stream);
  }
  absl::Status Wait(Event& event, Stream& stream) override {
    OCTET_RETURN_IF_ERROR(CheckEvent(event));
    return CheckStream(stream);
  }
  absl::Status Synchronize(Stream& stream) override {
    return CheckStream(stream);
  }
  absl::Status CopyToDevice(void* dst, const void* host_src, size_t num_bytes,
                            Stream& stream) override {
    return Copy(dst, host_src, num_bytes, stream);
  }
  absl::Status CopyToHost(void* host_dst, const void* src, size_t num_bytes,
                          Stream& stream) override {
    return Copy(host_dst, src, num_bytes, stream);
  }
  absl::Status Zero(void* dst, size_t num_bytes, Stream& stream) override {
    OCTET_RETURN_IF_ERROR(CheckStream(stream));
    if (num_bytes > 0) std::memset(dst, 0, num_bytes);
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<PackedMatrix>> NewPackedMatrix(
      DType dtype, int64_t n, int64_t k) override {
    return CpuPackedMatrix::Create(dtype, n, k);
  }
  absl::StatusOr<std::unique_ptr<PackedMatrix>> NewNf4Matrix(
      DType dtype, absl::Span<const int64_t> part_rows, int64_t k) override {
    return cpu::CpuNf4Matrix::Create(dtype, part_rows, k);
  }
  absl::Status PackRows(PackedMatrix& matrix, int64_t row_begin,
                        ConstTensor host_rows) override {
    OCTET_RETURN_IF_ERROR(CheckOwned(matrix));
    return static_cast<CpuMatrix&>(matrix).PackRows(row_begin, host_rows);
  }
  absl::Status UnpackRows(const PackedMatrix& matrix, int64_t row_begin,
                          Tensor host_rows) override {
    OCTET_RETURN_IF_ERROR(CheckOwned(matrix));
    return static_cast<const CpuMatrix&>(matrix).UnpackRows(row_begin,
                                                            host_rows);
  }

  absl::Status Embedding(ConstTensor table, ConstTensor ids, Tensor out,
                         Stream& stream) override {
    OCTET_RETURN_IF_ERROR(CheckStream(stream));
    return cpu::Embedding(context_, table, ids, out);
  }
  absl::Status RmsNorm(ConstTensor x, ConstTensor weight, float eps, Tensor out,
                       Stream& stream) override {
    OCTET_RETURN_IF_ERROR(CheckStream(stream));
    cpu::RmsNorm(context_, x, weight, eps, out);
    return absl::OkStatus();
  }
  absl::Status Gemm(ConstTensor x, const PackedMatrix& w, bool accumulate,
                    Tensor out, Stream& stream) override {
    OCTET_RETURN_IF_ERROR(CheckStream(stream));
    OCTET_RETURN_IF_ERROR(CheckMatrix(w));
    return cpu::Gemm(x, w, accumulate, out, gemm_);
  }
  absl::Status GroupedGemm(ConstTensor x,
                           absl::Span<const PackedMatrix* const> w,
                           absl::Span<const int64_t> row_offsets, Tensor out,
                           Stream& stream) override {
    OCTET_RETURN_IF_ERROR(CheckStream(stream));
    OCTET_RETURN_IF_ERROR(CheckMatrices(w));
    return cpu::GroupedGemm(x, w, row_offsets, /*accumulate=*/false, out,
                            gemm_);
  }
  absl::Status GroupedGemmSwiGlu(ConstTensor x,
                                 absl::Span<const PackedMatrix* const> w13,
                                 absl::Span<const int64_t> row_offsets,
                                 Tensor out, Stream& stream) override {
    OCTET_RETURN_IF_ERROR(CheckStream(stream));
    OCTET_RETURN_IF_ERROR(CheckMatrices(w13));
    return cpu::GroupedGemmSwiGlu(x, w13, row_offsets, out, gemm_);
  }
  absl::Status RopeAndCache(ConstTensor qkv, ConstTensor positions,
                            ConstTensor slots, const RopeParams& params,
                            const KvCacheView& cache, Tensor q_out,
                            Stream& stream) override {
    OCTET_RETURN_IF_ERROR(CheckStream(stream));
    return cpu::RopeAndCache(context_, rope_table_, qkv, positions, slots,
                             params, cache, q_out);
  }
  absl::Status PagedAttention(ConstTensor q, const KvCacheView& cache,
                              absl::Span<const AttentionSequence> sequences,
                              int sliding_window, Tensor out,
                              Stream& stream) override {
    OCTET_RETURN_IF_ERROR(CheckStream(stream));
    return cpu::PagedAttention(context_, q, cache, sequences, sliding_window,
                               out);
  }
  absl::Status Router(ConstTensor logits, Tensor topk_ids, Tensor topk_weights,
                      Stream& stream) override {
    OCTET_RETURN_IF_ERROR(CheckStream(stream));
    cpu::Router(context_, logits, topk_ids, topk_weights);
    return absl::OkStatus();
  }
  absl::Status GatherRows(ConstTensor src, ConstTensor row_ids, Tensor out,
                          Stream& stream) override {
    OCTET_RETURN_IF_ERROR(CheckStream(stream));
    return cpu::GatherRows(context_, src, row_ids, out);
  }
  absl::Status CombineRows(ConstTensor rows, ConstTensor slot_rows,
                           ConstTensor weights, Tensor out,
                           Stream& stream) override {
    OCTET_RETURN_IF_ERROR(CheckStream(stream));
    return cpu::CombineRows(context_, rows, slot_rows, weights, out);
  }
  absl::Status Sample(ConstTensor logits, absl::Span<const SamplingRow> rows,
                      std::vector<SampledToken>* out, Stream& stream) override {
    OCTET_RETURN_IF_ERROR(CheckStream(stream));
    return cpu::Sample(context_, logits, rows, out);
  }
  absl::Status ScoreTokens(ConstTensor logits,
                           absl::Span<const int32_t> targets,
                           absl::Span<const int> num_logprobs,
                           std::vector<TokenLogprobs>* out,
                           Stream& stream) override {
    OCTET_RETURN_IF_ERROR(CheckStream(stream));
    return cpu::ScoreTokens(context_, logits, targets, num_logprobs, out);
  }

 private:
  absl::Status Copy(void* dst, const void* src, size_t num_bytes,
                    Stream& stream) {
    OCTET_RETURN_IF_ERROR(CheckStream(stream));
    if (num_bytes > 0) std::memmove(dst, src, num_bytes);
    return absl::OkStatus();
  }

  const cpu::Isa isa_;
  cpu::ThreadPool pool_;
  cpu::CpuContext context_;
  cpu::GemmWorkspace gemm_;
  cpu::RopeTable rope_table_;
  cpu::CpuTraining training_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> NewCpuBackend(
    const CpuBackendOptions& options) {
  if (options.num_threads < 1 || options.num_threads > kMaxCpuThreads) {
    return absl::InvalidArgumentError(
        absl::StrCat("CpuBackend: num_threads is ", options.num_threads,
                     ", expected 1 to ", kMaxCpuThreads));
  }
  if (!absl::c_linear_search(cpu::SupportedIsas(), options.isa)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "CpuBackend: the processor lacks ", cpu::Name(options.isa)));
  }
  try {
    return std::make_unique<CpuBackend>(options);
  } catch (const std::system_error& e) {
    return absl::ResourceExhaustedError(
        absl::StrCat("CpuBackend: cannot start ", options.num_threads,
                     " threads: ", e.what()));
  }
}

}  // namespace octet
