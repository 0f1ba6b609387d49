#include "kernels/tensor.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace octet {

template <bool kConst>
std::string BasicTensor<kConst>::ToString() const {
  std::string out = absl::StrCat(Name(dtype_), "[");
  for (int i = 0; i < rank_; ++i) {
    absl::StrAppend(&out, i ? ", " : "", dims_[i]);
  }
  return out + "]";
}

template class BasicTensor<false>;
template class BasicTensor<true>;

}  // namespace octet
