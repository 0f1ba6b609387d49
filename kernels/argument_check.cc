#include "kernels/argument_check.h"

#include <algorithm>
#include <cmath>
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

// "f32 or bf16"
std::string JoinNames(std::initializer_list<DType> dtypes) {
  return absl::StrJoin(dtypes, " or ", [](std::string* out, DType dtype) {
    absl::StrAppend(out, Name(dtype));
  });
}

// "f32 or bf16[any, 64]"
std::string Describe(std::initializer_list<int64_t> dims,
                     std::initializer_list<DType> dtypes) {
  const auto size = [](std::string* out, int64_t dim) {
    if (dim == ArgumentCheck::kAny) {
      absl::StrAppend(out, "any");
    } else {
      absl::StrAppend(out, dim);
    }
  };
  return absl::StrCat(JoinNames(dtypes), "[", absl::StrJoin(dims, ", ", size),
                      "]");
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

absl::Status ArgumentCheck::ElementsAre(
    absl::string_view argument, ConstTensor tensor, int64_t num_elements,
    std::initializer_list<DType> dtypes) const {
  const bool known_dtype =
      std::find(dtypes.begin(), dtypes.end(), tensor.dtype()) != dtypes.end();
  if (!known_dtype ||
      (num_elements != kAny && tensor.num_elements() != num_elements)) {
    return Error(argument, tensor.ToString(),
                 absl::StrCat(JoinNames(dtypes), " of ",
                              num_elements == kAny ? "any number of"
                                                   : absl::StrCat(num_elements),
                              " elements"));
  }
  return Require(tensor.data() != nullptr || tensor.num_elements() == 0,
                 argument, absl::StrCat(tensor.ToString(), " without data"),
                 "data");
}

absl::Status ArgumentCheck::RowOffsetsAre(absl::Span<const int64_t> offsets,
                                          size_t num_groups,
                                          absl::string_view argument,
                                          int64_t num_rows) const {
  OCTET_RETURN_IF_ERROR(Require(offsets.size() == num_groups + 1,
                                "the number of row_offsets", offsets.size(),
                                num_groups + 1));
  OCTET_RETURN_IF_ERROR(Require(offsets.front() == 0, Element("row_offsets", 0),
                                offsets.front(), 0));
  for (size_t i = 1; i < offsets.size(); ++i) {
    OCTET_RETURN_IF_ERROR(Require(offsets[i] >= offsets[i - 1],
                                  Element("row_offsets", i), offsets[i],
                                  absl::StrCat("at least ", offsets[i - 1])));
  }
  return Require(offsets.back() == num_rows, Element("row_offsets", num_groups),
                 offsets.back(),
                 absl::StrCat(num_rows, ", the rows of ", argument));
}

absl::Status ArgumentCheck::RopeIs(const RopeParams& params) const {
  OCTET_RETURN_IF_ERROR(Require(params.head_dim > 0 && params.head_dim % 2 == 0,
                                "params.head_dim", params.head_dim,
                                "an even number, 2 or more"));
  OCTET_RETURN_IF_ERROR(Require(params.num_heads > 0, "params.num_heads",
                                params.num_heads, "1 or more"));
  return Require(params.theta > 0.0f && std::isfinite(params.theta),
                 "params.theta", params.theta, "more than 0");
}

// Block ids from the first position that a row of the sequence can see.
absl::Status ArgumentCheck::BlockTableIs(const AttentionSequence& sequence,
                                         const std::string& name,
                                         const KvCacheView& cache,
                                         int sliding_window) const {
  const int64_t end = sequence.first_position + sequence.num_rows;
  const int64_t needed = (end + cache.block_tokens - 1) / cache.block_tokens;
  const auto& table = sequence.block_table;
  OCTET_RETURN_IF_ERROR(
      Require(static_cast<int64_t>(table.size()) >= needed,
              absl::StrCat("the number of blocks of ", name), table.size(),
              absl::StrCat("at least ", needed, " for ", end, " positions")));
  int64_t first = 0;
  if (sliding_window > 0 && sequence.first_position >= sliding_window) {
    first = (sequence.first_position - sliding_window + 1) / cache.block_tokens;
  }
  for (int64_t i = first; i < needed; ++i) {
    OCTET_RETURN_IF_ERROR(
        Require(table[i] >= 0 && table[i] < cache.num_blocks,
                Element(absl::StrCat(name, ".block_table"), i), table[i],
                absl::StrCat("0 to ", cache.num_blocks - 1)));
  }
  return absl::OkStatus();
}

absl::Status ArgumentCheck::SequencesAre(
    absl::Span<const AttentionSequence> sequences, int64_t num_rows,
    const KvCacheView& cache, int sliding_window) const {
  for (size_t i = 0; i < sequences.size(); ++i) {
    const AttentionSequence& sequence = sequences[i];
    const std::string name = Element("sequences", i);
    OCTET_RETURN_IF_ERROR(
        Require(sequence.num_rows >= 0 && sequence.row_begin >= 0 &&
                    sequence.row_begin <= num_rows - sequence.num_rows,
                absl::StrCat("the row range of ", name),
                absl::StrCat(sequence.row_begin, " + ", sequence.num_rows),
                absl::StrCat("within ", num_rows, " rows")));
    OCTET_RETURN_IF_ERROR(Require(sequence.first_position >= 0,
                                  absl::StrCat(name, ".first_position"),
                                  sequence.first_position, "0 or more"));
    if (sequence.num_rows == 0) continue;
    OCTET_RETURN_IF_ERROR(BlockTableIs(sequence, name, cache, sliding_window));
  }
  return absl::OkStatus();
}

std::string Element(absl::string_view name, size_t index) {
  return absl::StrCat(name, "[", index, "]");
}

}  // namespace octet
