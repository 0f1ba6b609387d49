#include "tests/worker/checkpoint/memory_backend.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/status_macros.h"

namespace octet::test {
namespace {

class MemoryBuffer : public Buffer {
 public:
  MemoryBuffer(size_t num_bytes, MemoryBackendStats* stats)
      : bytes_(num_bytes), stats_(stats) {
    stats_->live_bytes += static_cast<int64_t>(num_bytes);
  }
  ~MemoryBuffer() override {
    stats_->live_bytes -= static_cast<int64_t>(bytes_.size());
  }
  void* data() const override { return const_cast<char*>(bytes_.data()); }
  size_t size_bytes() const override { return bytes_.size(); }

 private:
  std::vector<char> bytes_;
  MemoryBackendStats* const stats_;
};

class MemoryMatrix : public PackedMatrix {
 public:
  MemoryMatrix(DType dtype, int64_t n, int64_t k, MemoryBackendStats* stats)
      : dtype_(dtype),
        n_(n),
        k_(k),
        buffer_(static_cast<size_t>(n * k) * SizeOf(dtype), stats),
        written_(n, false) {}
  int64_t n() const override { return n_; }
  int64_t k() const override { return k_; }
  DType dtype() const override { return dtype_; }
  size_t size_bytes() const override { return buffer_.size_bytes(); }

  Tensor view() const { return Tensor(buffer_.data(), dtype_, {n_, k_}); }
  // True when the row was written before.
  bool MarkWritten(int64_t row) {
    const bool before = written_[row];
    written_[row] = true;
    return before;
  }

 private:
  const DType dtype_;
  const int64_t n_, k_;
  const MemoryBuffer buffer_;
  std::vector<bool> written_;
};

float Element(ConstTensor tensor, int64_t i) {
  switch (tensor.dtype()) {
    case DType::kF32:
      return tensor.as<float>()[i];
    case DType::kBF16:
      return ToFloat(tensor.as<BF16>()[i]);
    default:
      return HalfToFloat(tensor.as<uint16_t>()[i]);
  }
}

class MemoryBackend : public Backend {
 public:
  explicit MemoryBackend(MemoryBackendStats* stats) : stats_(stats) {}

  std::string Description() const override { return "memory"; }

  absl::StatusOr<std::unique_ptr<Buffer>> Allocate(size_t num_bytes) override {
    OCTET_RETURN_IF_ERROR(CheckRoom(num_bytes));
    return std::make_unique<MemoryBuffer>(num_bytes, stats_);
  }
  absl::StatusOr<std::unique_ptr<Stream>> NewStream() override {
    return std::make_unique<Stream>();
  }
  absl::StatusOr<std::unique_ptr<Event>> NewEvent() override {
    return std::make_unique<Event>();
  }
  absl::Status Record(Event&, Stream&) override { return absl::OkStatus(); }
  absl::Status Wait(Event&, Stream&) override { return absl::OkStatus(); }
  absl::Status Synchronize(Stream&) override { return absl::OkStatus(); }
  absl::Status CopyToDevice(void* dst, const void* src, size_t num_bytes,
                            Stream&) override {
    std::memcpy(dst, src, num_bytes);
    return absl::OkStatus();
  }
  absl::Status CopyToHost(void* dst, const void* src, size_t num_bytes,
                          Stream&) override {
    std::memcpy(dst, src, num_bytes);
    return absl::OkStatus();
  }
  absl::Status Zero(void* dst, size_t num_bytes, Stream&) override {
    std::memset(dst, 0, num_bytes);
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<PackedMatrix>> NewPackedMatrix(
      DType dtype, int64_t n, int64_t k) override {
    OCTET_RETURN_IF_ERROR(
        CheckRoom(static_cast<size_t>(n * k) * SizeOf(dtype)));
    return std::make_unique<MemoryMatrix>(dtype, n, k, stats_);
  }
  absl::Status PackRows(PackedMatrix& matrix, int64_t row_begin,
                        ConstTensor rows) override {
    auto& out = static_cast<MemoryMatrix&>(matrix);
    OCTET_CHECK(rows.cols() == out.k());
    OCTET_CHECK(
        reinterpret_cast<uintptr_t>(rows.data()) % SizeOf(rows.dtype()) == 0)
        << "unaligned rows";
    const Tensor target = out.view().Rows(row_begin, rows.rows());
    for (int64_t i = 0; i < rows.num_elements(); ++i) {
      const float value = Element(rows, i);
      if (out.dtype() == DType::kF32) {
        target.as<float>()[i] = value;
      } else {
        target.as<BF16>()[i] = ToBF16(value);
      }
    }
    for (int64_t row = 0; row < rows.rows(); ++row) {
      stats_->rows_written_twice += out.MarkWritten(row_begin + row);
    }
    return absl::OkStatus();
  }
  absl::Status UnpackRows(const PackedMatrix& matrix, int64_t row_begin,
                          Tensor rows) override {
    const Tensor source = static_cast<const MemoryMatrix&>(matrix).view().Rows(
        row_begin, rows.rows());
    std::memcpy(rows.data(), source.data(), source.num_bytes());
    return absl::OkStatus();
  }

  absl::Status Embedding(ConstTensor, ConstTensor, Tensor, Stream&) override {
    return NoKernels();
  }
  absl::Status RmsNorm(ConstTensor, ConstTensor, float, Tensor,
                       Stream&) override {
    return NoKernels();
  }
  absl::Status Gemm(ConstTensor, const PackedMatrix&, bool, Tensor,
                    Stream&) override {
    return NoKernels();
  }
  absl::Status GroupedGemm(ConstTensor, absl::Span<const PackedMatrix* const>,
                           absl::Span<const int64_t>, Tensor,
                           Stream&) override {
    return NoKernels();
  }
  absl::Status GroupedGemmSwiGlu(ConstTensor,
                                 absl::Span<const PackedMatrix* const>,
                                 absl::Span<const int64_t>, Tensor,
                                 Stream&) override {
    return NoKernels();
  }
  absl::Status RopeAndCache(ConstTensor, ConstTensor, ConstTensor,
                            const RopeParams&, const KvCacheView&, Tensor,
                            Stream&) override {
    return NoKernels();
  }
  absl::Status PagedAttention(ConstTensor, const KvCacheView&,
                              absl::Span<const AttentionSequence>, int, Tensor,
                              Stream&) override {
    return NoKernels();
  }
  absl::Status Router(ConstTensor, Tensor, Tensor, Stream&) override {
    return NoKernels();
  }
  absl::Status GatherRows(ConstTensor, ConstTensor, Tensor, Stream&) override {
    return NoKernels();
  }
  absl::Status CombineRows(ConstTensor, ConstTensor, ConstTensor, Tensor,
                           Stream&) override {
    return NoKernels();
  }
  absl::Status Sample(ConstTensor, absl::Span<const SamplingRow>,
                      std::vector<SampledToken>*, Stream&) override {
    return NoKernels();
  }
  absl::Status ScoreTokens(ConstTensor, absl::Span<const int32_t>,
                           absl::Span<const int>, std::vector<TokenLogprobs>*,
                           Stream&) override {
    return NoKernels();
  }

 private:
  absl::Status CheckRoom(size_t num_bytes) const {
    if (stats_->fail_after_bytes >= 0 &&
        stats_->live_bytes + static_cast<int64_t>(num_bytes) >
            stats_->fail_after_bytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat("cannot allocate ", num_bytes, " bytes"));
    }
    return absl::OkStatus();
  }
  static absl::Status NoKernels() {
    return absl::FailedPreconditionError("this backend only keeps weights");
  }

  MemoryBackendStats* const stats_;
};

}  // namespace

std::unique_ptr<Backend> NewMemoryBackend(MemoryBackendStats* stats) {
  return std::make_unique<MemoryBackend>(stats);
}

}  // namespace octet::test
