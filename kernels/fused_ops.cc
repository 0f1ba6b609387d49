#include "kernels/fused_ops.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/argument_check.h"

namespace octet::fused_ops {
namespace {

using Matrices = absl::Span<const PackedMatrix* const>;

// [n, k] of a group's W, from the first.
struct Shape {
  int64_t n = 0;
  int64_t k = 0;
};

Shape ShapeOf(Matrices w) {
  return w.empty() || w[0] == nullptr ? Shape() : Shape{w[0]->n(), w[0]->k()};
}

// Matrices and adapters of rows [T, columns] of a dtype, where `columns` is n
// or k of `shape`, that of w.
absl::Status CheckProduct(const ArgumentCheck& check,
                          absl::string_view argument, ConstTensor rows,
                          int64_t columns, Matrices w, const Shape& shape,
                          absl::Span<const int64_t> row_offsets,
                          const LowRank& adapter) {
  constexpr int64_t kAny = ArgumentCheck::kAny;
  // Without a first matrix there is no number of columns to expect.
  const bool unknown = !w.empty() && w[0] == nullptr;
  OCTET_RETURN_IF_ERROR(check.TensorIs(argument, rows,
                                       {kAny, unknown ? kAny : columns},
                                       {DType::kF32, DType::kBF16}));
  OCTET_RETURN_IF_ERROR(check.MatricesAre("w", w, shape.k, rows.dtype()));
  OCTET_RETURN_IF_ERROR(
      check.RowOffsetsAre(row_offsets, w.size(), argument, rows.dim(0)));
  if (adapter.none()) return absl::OkStatus();
  OCTET_RETURN_IF_ERROR(check.Require(adapter.a.size() == w.size(),
                                      "the number of a", adapter.a.size(),
                                      absl::StrCat(w.size(), ", as of w")));
  OCTET_RETURN_IF_ERROR(check.Require(adapter.b.size() == w.size(),
                                      "the number of b", adapter.b.size(),
                                      absl::StrCat(w.size(), ", as of w")));
  OCTET_RETURN_IF_ERROR(
      check.MatricesAre("a", adapter.a, shape.k, rows.dtype()));
  const int64_t rank = adapter.a[0]->n();
  OCTET_RETURN_IF_ERROR(check.MatricesAre("b", adapter.b, rank, rows.dtype()));
  OCTET_RETURN_IF_ERROR(check.Require(adapter.b[0]->n() == shape.n,
                                      "the rows of b", adapter.b[0]->n(),
                                      absl::StrCat(shape.n, ", those of w")));
  return check.TensorIs("u", adapter.u, {rows.dim(0), rank}, {rows.dtype()});
}

absl::Status CheckOut(const ArgumentCheck& check, absl::string_view argument,
                      Tensor out, int64_t rows, int64_t cols, DType compute,
                      bool accumulate) {
  return accumulate ? check.TensorIs(argument, out, {rows, cols}, {DType::kF32})
                    : check.TensorIs(argument, out, {rows, cols},
                                     {DType::kF32, compute});
}

}  // namespace

absl::Status Linear(FusedProducts& products, ConstTensor x, Matrices w,
                    absl::Span<const int64_t> row_offsets,
                    const LowRank& adapter, bool accumulate, Tensor out,
                    Stream& stream) {
  const ArgumentCheck check("Linear");
  const Shape shape = ShapeOf(w);
  OCTET_RETURN_IF_ERROR(
      CheckProduct(check, "x", x, shape.k, w, shape, row_offsets, adapter));
  OCTET_RETURN_IF_ERROR(
      CheckOut(check, "out", out, x.dim(0), shape.n, x.dtype(), accumulate));
  if (x.dim(0) == 0) return absl::OkStatus();
  return products.Linear(x, w, row_offsets, adapter, accumulate, out, stream);
}

absl::Status LinearSwiGlu(FusedProducts& products, ConstTensor x, Matrices w13,
                          absl::Span<const int64_t> row_offsets,
                          const LowRank& adapter, Tensor hidden, Tensor out,
                          Stream& stream) {
  const ArgumentCheck check("LinearSwiGlu");
  const Shape shape = ShapeOf(w13);
  OCTET_RETURN_IF_ERROR(
      CheckProduct(check, "x", x, shape.k, w13, shape, row_offsets, adapter));
  OCTET_RETURN_IF_ERROR(
      check.Require(shape.n % 2 == 0, "the rows of w", shape.n, "even"));
  if (hidden.data() != nullptr) {
    OCTET_RETURN_IF_ERROR(
        check.TensorIs("hidden", hidden, {x.dim(0), shape.n}, {x.dtype()}));
  }
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("out", out, {x.dim(0), shape.n / 2}, {x.dtype()}));
  if (x.dim(0) == 0) return absl::OkStatus();
  return products.LinearSwiGlu(x, w13, row_offsets, adapter, hidden, out,
                               stream);
}

absl::Status LinearBackward(FusedProducts& products, ConstTensor dy, Matrices w,
                            absl::Span<const int64_t> row_offsets,
                            const LowRank& adapter, bool accumulate, Tensor dx,
                            Stream& stream) {
  const ArgumentCheck check("LinearBackward");
  const Shape shape = ShapeOf(w);
  OCTET_RETURN_IF_ERROR(
      CheckProduct(check, "dy", dy, shape.n, w, shape, row_offsets, adapter));
  OCTET_RETURN_IF_ERROR(
      CheckOut(check, "dx", dx, dy.dim(0), shape.k, dy.dtype(), accumulate));
  if (dy.dim(0) == 0) return absl::OkStatus();
  return products.LinearBackward(dy, w, row_offsets, adapter, accumulate, dx,
                                 stream);
}

absl::Status LinearSwiGluBackward(FusedProducts& products, ConstTensor dy,
                                  Matrices w2,
                                  absl::Span<const int64_t> row_offsets,
                                  const LowRank& adapter, Tensor hidden,
                                  Tensor out, Stream& stream) {
  const ArgumentCheck check("LinearSwiGluBackward");
  const Shape shape = ShapeOf(w2);
  OCTET_RETURN_IF_ERROR(
      CheckProduct(check, "dy", dy, shape.n, w2, shape, row_offsets, adapter));
  OCTET_RETURN_IF_ERROR(
      check.TensorIs("hidden", hidden, {dy.dim(0), 2 * shape.k}, {dy.dtype()}));
  if (out.data() != nullptr) {
    OCTET_RETURN_IF_ERROR(
        check.TensorIs("out", out, {dy.dim(0), shape.k}, {dy.dtype()}));
  }
  if (dy.dim(0) == 0) return absl::OkStatus();
  return products.LinearSwiGluBackward(dy, w2, row_offsets, adapter, hidden,
                                       out, stream);
}

}  // namespace octet::fused_ops
