// Non-owning views of dense row-major tensors in a backend's memory.
//
// A view is a pointer, a dtype and up to three dimensions. It owns nothing: the
// Buffer behind it must outlive it. Copying is free. Views of device memory
// must not be dereferenced on the host.
#ifndef OCTET_KERNELS_TENSOR_H_
#define OCTET_KERNELS_TENSOR_H_

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "base/logging.h"
#include "kernels/dtype.h"

namespace octet {

template <bool kConst>
class BasicTensor {
 public:
  using Pointer = std::conditional_t<kConst, const void*, void*>;

  BasicTensor() = default;
  BasicTensor(Pointer data, DType dtype, std::initializer_list<int64_t> dims)
      : data_(data), dtype_(dtype), rank_(static_cast<int>(dims.size())) {
    OCTET_CHECK(dims.size() <= dims_.size()) << dims.size() << " dimensions";
    int i = 0;
    for (int64_t dim : dims) dims_[i++] = dim;
  }
  // A mutable view converts to a const one.
  operator BasicTensor<true>() const {  // NOLINT(google-explicit-constructor)
    BasicTensor<true> out;
    out.data_ = data_;
    out.dtype_ = dtype_;
    out.rank_ = rank_;
    out.dims_ = dims_;
    return out;
  }

  Pointer data() const { return data_; }
  DType dtype() const { return dtype_; }
  int rank() const { return rank_; }
  int64_t dim(int i) const { return i < rank_ ? dims_[i] : 1; }
  // Rows and columns of a matrix; a vector [n] is one row of n.
  int64_t rows() const { return rank_ < 2 ? 1 : dims_[0]; }
  int64_t cols() const {
    return rank_ < 2 ? dim(0) : num_elements() / (dims_[0] ? dims_[0] : 1);
  }
  int64_t num_elements() const {
    int64_t n = 1;
    for (int i = 0; i < rank_; ++i) n *= dims_[i];
    return n;
  }
  size_t num_bytes() const {
    return static_cast<size_t>(num_elements()) * SizeOf(dtype_);
  }

  // Elements as T; the caller knows the dtype (checked for size only).
  template <typename T>
  auto as() const {
    OCTET_CHECK(sizeof(T) == SizeOf(dtype_))
        << "view of " << Name(dtype_) << " read as another size";
    using Element = std::conditional_t<kConst, const T, T>;
    return static_cast<Element*>(data_);
  }

  // The sub-view of `count` rows (slices of the first dimension) from `begin`.
  BasicTensor Rows(int64_t begin, int64_t count) const {
    OCTET_CHECK(rank_ >= 1 && begin >= 0 && count >= 0 &&
                begin + count <= dims_[0])
        << "rows " << begin << "+" << count << " of " << dims_[0];
    BasicTensor out = *this;
    int64_t row_elements = 1;
    for (int i = 1; i < rank_; ++i) row_elements *= dims_[i];
    using Byte = std::conditional_t<kConst, const char, char>;
    out.data_ = static_cast<Byte*>(data_) +
                static_cast<size_t>(begin * row_elements) * SizeOf(dtype_);
    out.dims_[0] = count;
    return out;
  }

  // "f32[3, 64]"
  std::string ToString() const;

 private:
  friend class BasicTensor<!kConst>;
  Pointer data_ = nullptr;
  DType dtype_ = DType::kF32;
  int rank_ = 0;
  std::array<int64_t, 3> dims_ = {};
};

using Tensor = BasicTensor<false>;
using ConstTensor = BasicTensor<true>;

}  // namespace octet

#endif  // OCTET_KERNELS_TENSOR_H_
