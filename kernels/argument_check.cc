#include "kernels/argument_check.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_join.h"
#include "base/status_macros.h"

namespace octet {
namespace {

bool HasDims(ConstTensor tensor, std::initializer_list<int64_t> dims) {
  if (tensor.rank() != static_cast<int>(dims.size())) return false;
  int i = 0;
  for (int64_t dim : dims) {
    if (dim != ArgumentCheck::kAny && tensor.dim(i) != dim) return false;
    ++i;
  }
  return true;
}

// "f32 or bf16[any, 64]"
std::string Describe(std::initializer_list<int64_t> dims,
                     std::initializer_list<DType> dtypes) {
  const auto name = [](std::string* out, DType dtype) {
    absl::StrAppend(out, Name(dtype));
  };
  const auto size = [](std::string* out, int64_t dim) {
    if (dim == ArgumentCheck::kAny) {
      absl::StrAppend(out, "any");
    } else {
      absl::StrAppend(out, dim);
    }
  };
  return absl::StrCat(absl::StrJoin(dtypes, " or ", name), "[",
                      absl::StrJoin(dims, ", ", size), "]");
}

std::string Describe(const PackedMatrix& matrix) {
  return absl::StrCat(Name(matrix.dtype()), "[", matrix.n(), ", ", matrix.k(),
                      "]");
}

}  // namespace

absl::Status ArgumentCheck::TensorIs(
    absl::string_view argument, ConstTensor tensor,
    std::initializer_list<int64_t> dims,
    std::initializer_list<DType> dtypes) const {
  const bool known_dtype =
      std::find(dtypes.begin(), dtypes.end(), tensor.dtype()) != dtypes.end();
  if (!known_dtype || !HasDims(tensor, dims)) {
    return Error(argument, tensor.ToString(), Describe(dims, dtypes));
  }
  return Require(tensor.data() != nullptr || tensor.num_elements() == 0,
                 argument, absl::StrCat(tensor.ToString(), " without data"),
                 "data");
}

absl::Status ArgumentCheck::MatricesAre(
    absl::string_view argument, absl::Span<const PackedMatrix* const> matrices,
    int64_t k, DType dtype) const {
  for (size_t i = 0; i < matrices.size(); ++i) {
    const PackedMatrix* matrix = matrices[i];
    const std::string name = absl::StrCat(argument, "[", i, "]");
    if (matrix == nullptr) return Error(name, "null", "a matrix");
    if (matrix->dtype() != dtype || matrix->k() != k ||
        matrix->n() != matrices[0]->n()) {
      return Error(
          name, Describe(*matrix),
          absl::StrCat(Name(dtype), "[", matrices[0]->n(), ", ", k, "]"));
    }
  }
  return absl::OkStatus();
}

absl::Status ArgumentCheck::CacheIsValid(const KvCacheView& cache) const {
  OCTET_RETURN_IF_ERROR(
      Require(cache.dtype == DType::kF32 || cache.dtype == DType::kBF16,
              "cache.dtype", Name(cache.dtype), "f32 or bf16"));
  OCTET_RETURN_IF_ERROR(Require(cache.num_blocks > 0, "cache.num_blocks",
                                cache.num_blocks, "1 or more"));
  OCTET_RETURN_IF_ERROR(Require(cache.num_kv_heads > 0, "cache.num_kv_heads",
                                cache.num_kv_heads, "1 or more"));
  OCTET_RETURN_IF_ERROR(Require(cache.block_tokens > 0, "cache.block_tokens",
                                cache.block_tokens, "1 or more"));
  OCTET_RETURN_IF_ERROR(Require(cache.head_dim > 0, "cache.head_dim",
                                cache.head_dim, "1 or more"));
  OCTET_RETURN_IF_ERROR(Require(cache.keys != nullptr, "cache.keys", "null",
                                "memory of the backend"));
  return Require(cache.values != nullptr, "cache.values", "null",
                 "memory of the backend");
}

}  // namespace octet
