// The operations of kernels/backend.h with their arguments checked: the only
// way to call them. backend.h says what each computes.
//
// Each function returns INVALID_ARGUMENT with one sentence that names the
// operation, the argument, what was found and what was expected ("RmsNorm:
// weight is f32[4], expected f32[8]"), before anything is written. Calls with
// no rows (T = 0, N = 0) are OK and do nothing, after the checks.
//
// What is checked here: shapes, dtypes, null data, parameter ranges, and every
// index that is given in host memory (row_offsets, block tables, targets,
// history, banned ids). What is not: indices that live in backend memory (ids,
// positions, slots, row_ids, slot_rows), which the host may not read. The CPU
// backend checks those itself and returns the same kind of sentence; on a
// device they are the caller's duty.
//
// Threads: as the backend's.
#ifndef OCTET_KERNELS_OPS_H_
#define OCTET_KERNELS_OPS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"

namespace octet::ops {

// table [V, H] f32 or bf16; ids [T] i32; out [T, H] f32.
absl::Status Embedding(Backend& backend, ConstTensor table, ConstTensor ids,
                       Tensor out, Stream& stream);

// x [T, H] f32; weight [H] f32; eps >= 0; out [T, H] f32 or bf16. out may be x.
absl::Status RmsNorm(Backend& backend, ConstTensor x, ConstTensor weight,
                     float eps, Tensor out, Stream& stream);

// x [T, k] of W's dtype; out [T, n] f32, or bf16 when not accumulating.
absl::Status Gemm(Backend& backend, ConstTensor x, const PackedMatrix& w,
                  bool accumulate, Tensor out, Stream& stream);

// x [T, k]; all w [n, k] of x's dtype; row_offsets: w.size() + 1 entries that
// rise from 0 to T; out [T, n] f32 or bf16.
absl::Status GroupedGemm(Backend& backend, ConstTensor x,
                         absl::Span<const PackedMatrix* const> w,
                         absl::Span<const int64_t> row_offsets, Tensor out,
                         Stream& stream);

// As GroupedGemm, with all w13 [2F, k] and out [T, F] in x's dtype.
absl::Status GroupedGemmSwiGlu(Backend& backend, ConstTensor x,
                               absl::Span<const PackedMatrix* const> w13,
                               absl::Span<const int64_t> row_offsets,
                               Tensor out, Stream& stream);

// qkv [T, (N_q + 2 N_kv) D] f32; positions [T] i32, each >= 0; slots [T] i64,
// all different; q_out [T, N_q D] f32; cache of N_kv heads of D.
absl::Status RopeAndCache(Backend& backend, ConstTensor qkv,
                          ConstTensor positions, ConstTensor slots,
                          const RopeParams& params, const KvCacheView& cache,
                          Tensor q_out, Stream& stream);

// q [T, N_q D] f32; out [T, N_q D] f32 or bf16. Rows of no sequence are left as
// they are; the rows of two sequences must not overlap. A block table must
// reach the sequence's last position; its entries before the sliding window may
// be anything.
absl::Status PagedAttention(Backend& backend, ConstTensor q,
                            const KvCacheView& cache,
                            absl::Span<const AttentionSequence> sequences,
                            int sliding_window, Tensor out, Stream& stream);

// logits [T, E] f32; topk_ids [T, K] i32; topk_weights [T, K] f32; 1 <= K <= E.
absl::Status Router(Backend& backend, ConstTensor logits, Tensor topk_ids,
                    Tensor topk_weights, Stream& stream);

// src [S, H]; row_ids [N] i32; out [N, H] of src's dtype.
absl::Status GatherRows(Backend& backend, ConstTensor src, ConstTensor row_ids,
                        Tensor out, Stream& stream);

// rows [N, H] f32 or bf16; slot_rows [T, K] i32; weights [T, K] f32; out [T, H]
// f32.
absl::Status CombineRows(Backend& backend, ConstTensor rows,
                         ConstTensor slot_rows, ConstTensor weights, Tensor out,
                         Stream& stream);

// logits [N, V] f32; one entry of `rows` per row. temperature >= 0, top_k >= 0,
// top_p and min_p in [0, 1], repetition_penalty > 0. INTERNAL names a row whose
// logits hold NaN or plus infinity, INVALID_ARGUMENT one with no token left to
// draw; *out is then as it was.
absl::Status Sample(Backend& backend, ConstTensor logits,
                    absl::Span<const SamplingRow> rows,
                    std::vector<SampledToken>* out, Stream& stream);

// logits [N, V] f32; N targets in [0, V); N num_logprobs >= 0. Errors as
// Sample.
absl::Status ScoreTokens(Backend& backend, ConstTensor logits,
                         absl::Span<const int32_t> targets,
                         absl::Span<const int> num_logprobs,
                         std::vector<TokenLogprobs>* out, Stream& stream);

}  // namespace octet::ops

#endif  // OCTET_KERNELS_OPS_H_
