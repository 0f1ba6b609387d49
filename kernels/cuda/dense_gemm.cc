#include "kernels/cuda/dense_gemm.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "kernels/cuda/cuda_memory.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/packed_matrix.h"
#include "kernels/philox.h"

namespace octet::cuda {
namespace {

constexpr int64_t kVectorBytes = 16;
// Around the tile sizes that libraries use.
constexpr int64_t kBatchSizes[] = {1,  2,  3,  7,   8,   16,
                                   17, 33, 64, 128, 257, 512};

bool IsAligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % kVectorBytes == 0;
}

bool IsForCublas(const DenseShape& shape) {
  return shape.n > 0 && shape.k > 0 &&
         shape.n * SizeOf(DType::kF32) % kVectorBytes == 0 &&
         shape.k * SizeOf(shape.dtype) % kVectorBytes == 0;
}

// Numbers in (-1, 1) whose products need rounding, as bytes of `dtype`.
std::vector<std::byte> RandomElements(DType dtype, int64_t count) {
  std::vector<std::byte> bytes(count * SizeOf(dtype));
  for (int64_t i = 0; i < count; ++i) {
    const float value = static_cast<float>(2.0 * UniformAt(1, i) - 1.0);
    if (dtype == DType::kF32) {
      std::memcpy(&bytes[i * sizeof(value)], &value, sizeof(value));
    } else {
      const BF16 rounded = ToBF16(value);
      std::memcpy(&bytes[i * sizeof(rounded)], &rounded, sizeof(rounded));
    }
  }
  return bytes;
}

// Rows of one x, multiplied in batches of any size.
class BatchRunner {
 public:
  static absl::StatusOr<BatchRunner> Create(const DenseShape& shape,
                                            int64_t max_rows) {
    BatchRunner runner(shape, max_rows);
    OCTET_ASSIGN_OR_RETURN(runner.stream_, NewStream());
    const std::vector<std::byte> x =
        RandomElements(shape.dtype, max_rows * shape.k);
    OCTET_ASSIGN_OR_RETURN(runner.x_, DeviceMemory::Allocate(x.size()));
    OCTET_ASSIGN_OR_RETURN(
        runner.out_, DeviceMemory::Allocate(max_rows * runner.out_row_bytes_));
    OCTET_RETURN_IF_ERROR(
        CudaStatus(cudaMemcpyAsync(runner.x_.data(), x.data(), x.size(),
                                   cudaMemcpyHostToDevice, runner.stream()),
                   "cudaMemcpyAsync of rows to examine cuBLASLt"));
    OCTET_RETURN_IF_ERROR(runner.Synchronize());
    return runner;
  }

  int64_t max_rows() const { return max_rows_; }
  size_t out_row_bytes() const { return out_row_bytes_; }

  // Rows [begin, begin + count) of the product, on the host.
  absl::StatusOr<std::vector<std::byte>> Run(DenseProduct product,
                                             int64_t begin, int64_t count) {
    // What an accumulation adds to.
    OCTET_RETURN_IF_ERROR(
        CudaStatus(cudaMemsetAsync(out_.data(), 0, out_.size_bytes(), stream()),
                   "cudaMemsetAsync to examine cuBLASLt"));
    OCTET_RETURN_IF_ERROR(
        product(static_cast<const std::byte*>(x_.data()) + begin * x_row_bytes_,
                count, out_.data(), stream()));
    std::vector<std::byte> rows(count * out_row_bytes_);
    OCTET_RETURN_IF_ERROR(
        CudaStatus(cudaMemcpyAsync(rows.data(), out_.data(), rows.size(),
                                   cudaMemcpyDeviceToHost, stream()),
                   "cudaMemcpyAsync of rows to examine cuBLASLt"));
    OCTET_RETURN_IF_ERROR(Synchronize());
    return rows;
  }

 private:
  BatchRunner(const DenseShape& shape, int64_t max_rows)
      : max_rows_(max_rows),
        x_row_bytes_(shape.k * SizeOf(shape.dtype)),
        out_row_bytes_(shape.n * SizeOf(DType::kF32)) {}

  cudaStream_t stream() const { return stream_.get(); }
  absl::Status Synchronize() const {
    return CudaStatus(cudaStreamSynchronize(stream()),
                      "cudaStreamSynchronize to examine cuBLASLt");
  }

  int64_t max_rows_;
  size_t x_row_bytes_;
  size_t out_row_bytes_;
  OwnedStream stream_;
  DeviceMemory x_;
  DeviceMemory out_;
};

absl::StatusOr<RowBits> CompareBatches(BatchRunner& runner,
                                       DenseProduct product) {
  OCTET_ASSIGN_OR_RETURN(const std::vector<std::byte> all,
                         runner.Run(product, 0, runner.max_rows()));
  if (std::all_of(all.begin(), all.end(),
                  [](std::byte b) { return b == std::byte{0}; })) {
    return RowBits::kUnknown;
  }
  for (const int64_t size : kBatchSizes) {
    if (size > runner.max_rows()) break;
    for (const int64_t begin : {int64_t{0}, runner.max_rows() - size}) {
      OCTET_ASSIGN_OR_RETURN(const std::vector<std::byte> rows,
                             runner.Run(product, begin, size));
      if (std::memcmp(rows.data(), &all[begin * runner.out_row_bytes()],
                      rows.size()) != 0) {
        return RowBits::kLost;
      }
    }
  }
  return RowBits::kKept;
}

}  // namespace

absl::StatusOr<RowBits> ExamineRowBits(const DenseShape& shape,
                                       int64_t max_rows, DenseProduct product) {
  OCTET_ASSIGN_OR_RETURN(BatchRunner runner,
                         BatchRunner::Create(shape, max_rows));
  absl::StatusOr<RowBits> found = CompareBatches(runner, product);
  if (absl::IsUnimplemented(found.status())) return RowBits::kLost;
  return found;
}

absl::StatusOr<std::unique_ptr<DenseGemm>> DenseGemm::Create(
    const DenseGemmOptions& options, const GemmLauncher& own) {
  std::unique_ptr<DenseGemm> gemm(new DenseGemm(options, own));
  if (options.use_cublas) {
    OCTET_ASSIGN_OR_RETURN(gemm->handle_, NewLtHandle());
  }
  return gemm;
}

absl::StatusOr<DenseGemm::Choice*> DenseGemm::Examine(const DenseShape& shape,
                                                      const void* w) {
  OCTET_ASSIGN_OR_RETURN(
      LtProduct product,
      LtProduct::Create(handle_.get(), shape, options_.reference_rows));
  for (int i = 0; i < product.num_algorithms(); ++i) {
    OCTET_ASSIGN_OR_RETURN(const RowBits bits,
                           ExamineRowBits(shape, options_.examined_rows,
                                          [&](const void* x, int64_t num_rows,
                                              void* out, cudaStream_t stream) {
                                            return product.Run(i, x, num_rows,
                                                               w, out, stream);
                                          }));
    if (bits == RowBits::kUnknown) return nullptr;
    if (bits == RowBits::kKept) {
      return &choices_.emplace(shape, Choice{std::move(product), i})
                  .first->second;
    }
  }
  if (!warned_) {
    OCTET_LOG(WARNING) << "cuBLASLt has no algorithm for products with a "
                       << Name(shape.dtype) << " [" << shape.n << ", "
                       << shape.k
                       << "] matrix whose rows do not depend on the batch; "
                          "such products use the own kernel";
    warned_ = true;
  }
  return &choices_.emplace(shape, Choice{}).first->second;
}

int DenseGemm::num_cublas_shapes() const {
  int count = 0;
  for (const auto& [shape, choice] : choices_) {
    count += choice.product.has_value();
  }
  return count;
}

absl::Status DenseGemm::Gemm(ConstTensor x, const PackedMatrix& w,
                             bool accumulate, Tensor out, cudaStream_t stream) {
  const auto& matrix = static_cast<const CudaPackedMatrix&>(w);
  const DenseShape shape{x.dtype(), matrix.n(), matrix.k(), matrix.ld(),
                         accumulate};
  if (!options_.use_cublas || out.dtype() != DType::kF32 ||
      !IsForCublas(shape)) {
    return own_.Gemm(x, w, accumulate, out, stream);
  }
  if (x.dim(0) == 0) return absl::OkStatus();
  const auto found = choices_.find(shape);
  Choice* choice = found == choices_.end() ? nullptr : &found->second;
  if (choice == nullptr) {
    OCTET_ASSIGN_OR_RETURN(choice, Examine(shape, matrix.data()));
  }
  if (choice == nullptr || !choice->product) {
    return own_.Gemm(x, w, accumulate, out, stream);
  }
  if (!IsAligned(x.data()) || !IsAligned(out.data())) {
    return absl::InvalidArgumentError(
        absl::StrCat("Gemm: ", IsAligned(x.data()) ? "out" : "x",
                     " is at an address that is no multiple of ", kVectorBytes,
                     " bytes, as cuBLASLt needs for this shape"));
  }
  return choice->product->Run(choice->algorithm, x.data(), x.dim(0),
                              matrix.data(), out.data(), stream);
}

}  // namespace octet::cuda
