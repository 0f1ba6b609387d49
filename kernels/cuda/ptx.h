// Inline PTX, here and nowhere else: each wrapper has a PTX body for nvcc and
// an emulated one. All run on sm_80 and later.
//
// Warp-level: every lane of a full warp must call MmaM16N8K16 and LdMatrix* at
// the same place. cp.async: a copy is visible to its own thread after
// CpAsyncWait, to others after a barrier that follows.
#ifndef OCTET_KERNELS_CUDA_PTX_H_
#define OCTET_KERNELS_CUDA_PTX_H_

#include <cuda_runtime.h>

#include <cstdint>

#if defined(CUDA_EMU)
#include <cuda_emu/tensor_core.h>
#define OCTET_PTX_WHERE \
  , const ::cuda_emu::Loc& where = ::cuda_emu::Loc::current()
#else
#define OCTET_PTX_WHERE
#endif

namespace octet::cuda {

#if !defined(CUDA_EMU)
__device__ __forceinline__ uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}
#endif

// d[16, 8] += a[16, 16] b[16, 8]; a row-major, b column-major, both bf16; d
// f32. Lane l (g = l / 4, t = l % 4) holds, as pairs with the lower column (of
// b: the lower row) in the lower half:
//   a[0] (g, 2t..)  a[1] (g + 8, 2t..)  a[2] (g, 2t + 8..)  a[3] (g + 8, 2t
//   + 8..) b[0] (2t.., g)  b[1] (2t + 8.., g) d[0], d[1] (g, 2t..)  d[2], d[3]
//   (g + 8, 2t..)
// Source: PTX ISA, matrix fragments for mma.m16n8k16.
__device__ __forceinline__ void MmaM16N8K16(
    float (&d)[4], const uint32_t (&a)[4],
    const uint32_t (&b)[2] OCTET_PTX_WHERE) {
#if defined(CUDA_EMU)
  ::cuda_emu::Mma(d, a, b, where);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// ldmatrix: 1, 2 or 4 matrices of 8 x 8 16-bit elements from shared memory.
// Lane 8 i + r gives the address of row r of matrix i: 16 bytes, 16-byte
// aligned. Lane l receives in r[i] row l / 4, elements 2 (l % 4) and + 1; of
// the Trans forms column l / 4, rows 2 (l % 4) and + 1.
__device__ __forceinline__ void LdMatrixX1(uint32_t (&r)[1],
                                           const void* row OCTET_PTX_WHERE) {
#if defined(CUDA_EMU)
  ::cuda_emu::LdMatrix(r, row, false, where);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
               : "=r"(r[0])
               : "r"(SharedAddress(row))
               : "memory");
#endif
}
__device__ __forceinline__ void LdMatrixX2(uint32_t (&r)[2],
                                           const void* row OCTET_PTX_WHERE) {
#if defined(CUDA_EMU)
  ::cuda_emu::LdMatrix(r, row, false, where);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(SharedAddress(row))
               : "memory");
#endif
}
__device__ __forceinline__ void LdMatrixX4(uint32_t (&r)[4],
                                           const void* row OCTET_PTX_WHERE) {
#if defined(CUDA_EMU)
  ::cuda_emu::LdMatrix(r, row, false, where);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(row))
               : "memory");
#endif
}
__device__ __forceinline__ void LdMatrixX1Trans(
    uint32_t (&r)[1], const void* row OCTET_PTX_WHERE) {
#if defined(CUDA_EMU)
  ::cuda_emu::LdMatrix(r, row, true, where);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
               : "=r"(r[0])
               : "r"(SharedAddress(row))
               : "memory");
#endif
}
__device__ __forceinline__ void LdMatrixX2Trans(
    uint32_t (&r)[2], const void* row OCTET_PTX_WHERE) {
#if defined(CUDA_EMU)
  ::cuda_emu::LdMatrix(r, row, true, where);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(SharedAddress(row))
               : "memory");
#endif
}
__device__ __forceinline__ void LdMatrixX4Trans(
    uint32_t (&r)[4], const void* row OCTET_PTX_WHERE) {
#if defined(CUDA_EMU)
  ::cuda_emu::LdMatrix(r, row, true, where);
#else
  asm volatile(
      "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
      : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
      : "r"(SharedAddress(row))
      : "memory");
#endif
}

// cp.async of 16 bytes from global to shared memory, both 16-byte aligned. Only
// the first `source_bytes` (0..16) are read; the rest is filled with zeros, so
// that a row past the end needs no branch (its address must still be valid when
// source_bytes > 0).
__device__ __forceinline__ void CpAsync16(void* shared, const void* global,
                                          int source_bytes OCTET_PTX_WHERE) {
#if defined(CUDA_EMU)
  ::cuda_emu::AsyncCopy(shared, global, 16, static_cast<uint32_t>(source_bytes),
                        where);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(SharedAddress(shared)), "l"(global), "r"(source_bytes)
               : "memory");
#endif
}
__device__ __forceinline__ void CpAsync16(void* shared,
                                          const void* global OCTET_PTX_WHERE) {
#if defined(CUDA_EMU)
  ::cuda_emu::AsyncCopy(shared, global, 16, 16, where);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
               :
               : "r"(SharedAddress(shared)), "l"(global)
               : "memory");
#endif
}

// Closes the group of the copies made since the last commit (may be empty).
__device__ __forceinline__ void CpAsyncCommit() {
#if defined(CUDA_EMU)
  ::cuda_emu::AsyncCopyCommit();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most kGroupsLeft of this thread's groups are still under way.
template <int kGroupsLeft>
__device__ __forceinline__ void CpAsyncWait() {
#if defined(CUDA_EMU)
  ::cuda_emu::AsyncCopyWait(kGroupsLeft);
#else
  asm volatile("cp.async.wait_group %0;" : : "n"(kGroupsLeft) : "memory");
#endif
}

}  // namespace octet::cuda

#endif  // OCTET_KERNELS_CUDA_PTX_H_
