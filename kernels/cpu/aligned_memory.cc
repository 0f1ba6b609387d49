#include "kernels/cpu/aligned_memory.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace octet::cpu {
namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

AlignedMemory::~AlignedMemory() {
  if (mapped_bytes_ > 0) {
    munmap(mapping_, mapped_bytes_);
  } else {
    std::free(data_);
  }
}

AlignedMemory::AlignedMemory(AlignedMemory&& other) noexcept {
  *this = std::move(other);
}

AlignedMemory& AlignedMemory::operator=(AlignedMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  std::swap(mapped_bytes_, other.mapped_bytes_);
  std::swap(mapping_, other.mapping_);
  return *this;
}

absl::StatusOr<AlignedMemory> AlignedMemory::Allocate(size_t num_bytes) {
  const absl::Status exhausted = absl::ResourceExhaustedError(
      absl::StrCat("no memory for a buffer of ", num_bytes, " bytes"));
  if (num_bytes > SIZE_MAX / 2) return exhausted;
  AlignedMemory memory;
  memory.size_bytes_ = num_bytes;
  if (num_bytes < 2 * kHugePage) {
    const size_t rounded =
        (num_bytes + kAlignment - 1) / kAlignment * kAlignment;
    if (rounded == 0) return memory;
    memory.data_ = std::aligned_alloc(kAlignment, rounded);
    if (memory.data_ == nullptr) return exhausted;
    std::memset(memory.data_, 0, rounded);
    return memory;
  }
  // One page more, so that the data can start on a huge page.
  const size_t mapped = num_bytes + kHugePage;
  void* mapping = mmap(nullptr, mapped, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) return exhausted;
  memory.mapping_ = mapping;
  memory.mapped_bytes_ = mapped;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(mapping);
  memory.data_ =
      reinterpret_cast<void*>((begin + kHugePage - 1) / kHugePage * kHugePage);
  // Advice only: a kernel without huge pages is slower, not wrong.
  madvise(memory.data_, num_bytes, MADV_HUGEPAGE);
  return memory;
}

}  // namespace octet::cpu
