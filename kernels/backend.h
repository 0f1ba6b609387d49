// The seam to a device: memory, streams, packed weights, and one call per
// operation of a Mixtral layer.
//
// Asynchrony. Every operation is put on a Stream and may return before it has
// run; operations of one stream run in order; an Event orders two streams. What
// an operation reads and writes must stay alive until the stream is past it.
// The CPU backend runs each operation inside the call, on its own thread pool.
//
// Memory. Tensors given to operations live in memory of this backend
// (`Allocate`), unless a parameter says "host". Device memory is not host
// memory: go through CopyToHost / CopyToDevice.
//
// Bits. For one backend object every row of an output depends only on that
// row's inputs, never on how many other rows the call has or on the number of
// threads (design promise 1).
//
// Dtypes. "compute dtype" is what the weights are multiplied in: f32 or bf16.
// Sums are kept in f32. `f32->bf16` rounds to nearest even.
//
// Shapes are checked by the free functions in kernels/ops.h, which are the only
// callers of the virtual operations; implementations trust them. Notation: T
// tokens, H hidden size, F expert FFN size, E experts, K top-k, V vocabulary, D
// head size, N_q query heads, N_kv key/value heads.
//
// Threads: a Backend may be used by one thread at a time; ranks that are
// threads have one each.
#ifndef OCTET_KERNELS_BACKEND_H_
#define OCTET_KERNELS_BACKEND_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/tensor.h"

namespace octet {

// Ordered queue of work of one backend.
class Stream {
 public:
  virtual ~Stream() = default;
};

// A point in a stream's order.
class Event {
 public:
  virtual ~Event() = default;
};

// Owned device memory, freed on destruction (the backend must outlive it).
class Buffer {
 public:
  virtual ~Buffer() = default;
  virtual void* data() const = 0;
  virtual size_t size_bytes() const = 0;
};

// A weight matrix W [n, k] (n outputs, k inputs, as Hugging Face stores it) in
// a backend's own arrangement. Immutable after packing as far as inference is
// concerned; PackRows may write it again between steps.
class PackedMatrix {
 public:
  virtual ~PackedMatrix() = default;
  virtual int64_t n() const = 0;
  virtual int64_t k() const = 0;
  virtual DType dtype() const = 0;  // f32 or bf16
  virtual size_t size_bytes() const = 0;
};

// Keys and values of one layer, in blocks of `block_tokens` tokens: each
// [num_blocks, N_kv, block_tokens, D].
struct KvCacheView {
  void* keys = nullptr;
  void* values = nullptr;
  DType dtype = DType::kF32;  // f32 or bf16
  int64_t num_blocks = 0;
  int num_kv_heads = 0;
  int block_tokens = 0;
  int head_dim = 0;

  size_t bytes_each() const {
    return static_cast<size_t>(num_blocks) * num_kv_heads * block_tokens *
           head_dim * SizeOf(dtype);
  }
};

// One sequence's part of an attention call: rows [row_begin, row_begin +
// num_rows) of q, whose positions are first_position, first_position + 1, ...;
// its keys and values up to those positions are in `block_table` (host memory:
// block ids in position order).
struct AttentionSequence {
  int64_t row_begin = 0;
  int64_t num_rows = 0;
  int64_t first_position = 0;
  absl::Span<const int32_t> block_table;
};

struct RopeParams {
  float theta = 1e6f;
  int num_heads = 0;     // N_q
  int num_kv_heads = 0;  // N_kv
  int head_dim = 0;      // D, even
};

// How to draw one token from one row of logits. Filters apply in the order:
// banned ids, penalties, temperature, top_k, top_p, min_p (as transformers'
// processors do).
struct SamplingRow {
  float temperature =
      1.0f;            // 0 = greedy: the largest logit, lowest id on a tie
  int32_t top_k = 0;   // 0 = off
  float top_p = 1.0f;  // keeps the smallest set of likeliest tokens whose mass
                       // reaches top_p
  float min_p = 0.0f;  // drops tokens below min_p * the largest probability
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  uint64_t seed = 0;
  int64_t position = 0;  // of the new token; the random number is a function of
                         // (seed, position) alone
  absl::Span<const int32_t> history;  // host; tokens before the new one; may be
                                      // empty without penalties
  int64_t num_prompt_tokens =
      0;  // of `history`; presence and frequency count what follows them
  absl::Span<const int32_t> banned_ids;  // host
  int num_logprobs =
      -1;  // -1 none; k >= 0: the sampled token's and the k likeliest
};

struct TokenLogprobs {
  float logprob = 0.0f;          // natural log of the unmodified softmax
  std::vector<int32_t> top_ids;  // likeliest first, lowest id first on a tie
  std::vector<float> top_logprobs;
};

struct SampledToken {
  int32_t token_id = -1;
  TokenLogprobs logprobs;  // filled when num_logprobs >= 0
};

class TrainingBackend;

class Backend {
 public:
  virtual ~Backend() = default;

  // The operations of training (kernels/training_backend.h), of this same
  // device; nullptr when it cannot train.
  virtual TrainingBackend* training() { return nullptr; }

  // For people and reports, for example "cpu (avx512_bf16), 2 threads".
  virtual std::string Description() const = 0;

  // ---- memory and order
  // -----------------------------------------------------------------------------------
  // Contents are undefined. RESOURCE_EXHAUSTED names the size asked for.
  virtual absl::StatusOr<std::unique_ptr<Buffer>> Allocate(
      size_t num_bytes) = 0;
  virtual absl::StatusOr<std::unique_ptr<Stream>> NewStream() = 0;
  virtual absl::StatusOr<std::unique_ptr<Event>> NewEvent() = 0;
  virtual absl::Status Record(Event& event, Stream& stream) = 0;
  virtual absl::Status Wait(Event& event, Stream& stream) = 0;
  // Blocks the calling thread until everything on the stream has run; returns
  // the first error of its work.
  virtual absl::Status Synchronize(Stream& stream) = 0;
  virtual absl::Status CopyToDevice(void* dst, const void* host_src,
                                    size_t num_bytes, Stream& stream) = 0;
  virtual absl::Status CopyToHost(void* host_dst, const void* src,
                                  size_t num_bytes, Stream& stream) = 0;
  virtual absl::Status Zero(void* dst, size_t num_bytes, Stream& stream) = 0;

  // ---- weights
  // --------------------------------------------------------------------------------------------
  virtual absl::StatusOr<std::unique_ptr<PackedMatrix>> NewPackedMatrix(
      DType dtype, int64_t n, int64_t k) = 0;
  // W in 4 bits (kernels/quant/nf4.h), computed with in `dtype`. Parts of
  // `part_rows` rows, one under the other, are quantised each as a matrix of
  // its own; each row is packed once, in any order, and the matrix may be read
  // when all have come. INVALID_ARGUMENT unless k is a multiple of 64;
  // UNIMPLEMENTED where the backend has no such matrices.
  virtual absl::StatusOr<std::unique_ptr<PackedMatrix>> NewNf4Matrix(
      DType /*dtype*/, absl::Span<const int64_t> /*part_rows*/, int64_t /*k*/) {
    return absl::UnimplementedError(
        absl::StrCat(Description(), " has no weights in NF4, expected cpu"));
  }
  // Writes rows [row_begin, row_begin + rows.rows()) from host memory: rows [r,
  // k] f32, bf16 or f16, converted to the matrix's dtype. Rows never written
  // are zero.
  virtual absl::Status PackRows(PackedMatrix& matrix, int64_t row_begin,
                                ConstTensor host_rows) = 0;
  // The inverse: rows back to host memory in the matrix's dtype.
  virtual absl::Status UnpackRows(const PackedMatrix& matrix, int64_t row_begin,
                                  Tensor host_rows) = 0;

  // ---- operations (call them through kernels/ops.h)
  // ---------------------------------------------------------- out[t] =
  // table[ids[t]]. table [V, H] f32 or bf16; ids [T] i32; out [T, H] f32.
  virtual absl::Status Embedding(ConstTensor table, ConstTensor ids, Tensor out,
                                 Stream& stream) = 0;

  // out = x / sqrt(mean(x^2) + eps) * weight. x [T, H] f32; weight [H] f32; out
  // [T, H] f32 or bf16.
  virtual absl::Status RmsNorm(ConstTensor x, ConstTensor weight, float eps,
                               Tensor out, Stream& stream) = 0;

  // out = x W^T, or out += x W^T. x [T, k] of W's dtype; out [T, n] f32 (or
  // bf16 when not accumulating).
  virtual absl::Status Gemm(ConstTensor x, const PackedMatrix& w,
                            bool accumulate, Tensor out, Stream& stream) = 0;

  // Rows of x are sorted by group: group g has rows [row_offsets[g],
  // row_offsets[g+1]) and multiplies w[g]. row_offsets (host) has w.size() + 1
  // entries. x [T, k]; all w the same [n, k] and x's dtype; out [T, n] f32 or
  // bf16. Empty groups cost nothing.
  virtual absl::Status GroupedGemm(ConstTensor x,
                                   absl::Span<const PackedMatrix* const> w,
                                   absl::Span<const int64_t> row_offsets,
                                   Tensor out, Stream& stream) = 0;

  // out = silu(x W1^T) * (x W3^T) per group, silu(a) = a / (1 + exp(-a));
  // products in f32, out [T, F] in x's dtype. w13[g] is [2F, k]: rows [0, F)
  // are W1's (gate), rows [F, 2F) are W3's (up).
  virtual absl::Status GroupedGemmSwiGlu(
      ConstTensor x, absl::Span<const PackedMatrix* const> w13,
      absl::Span<const int64_t> row_offsets, Tensor out, Stream& stream) = 0;

  // Rotary embedding in the "rotate half" form of Hugging Face, and the write
  // into the cache. qkv [T, (N_q + 2 N_kv) D] f32: the rows' queries, keys,
  // values side by side. positions [T] i32; slots [T] i64: block_id *
  // block_tokens + offset in block. q_out [T, N_q D] f32; keys (rotated) and
  // values are rounded to the cache's dtype. angle(i) = position *
  // theta^(-2i/D), cos and sin computed in double.
  virtual absl::Status RopeAndCache(ConstTensor qkv, ConstTensor positions,
                                    ConstTensor slots, const RopeParams& params,
                                    const KvCacheView& cache, Tensor q_out,
                                    Stream& stream) = 0;

  // Causal grouped-query attention: head h reads key/value head h / (N_q /
  // N_kv); scores q.k / sqrt(D); with sliding_window W > 0 position p sees keys
  // in (p - W, p]. q [T, N_q D] f32; out [T, N_q D] f32 or bf16. A row's result
  // depends on its position and the cached keys and values only, not on
  // chunking or batch.
  virtual absl::Status PagedAttention(
      ConstTensor q, const KvCacheView& cache,
      absl::Span<const AttentionSequence> sequences, int sliding_window,
      Tensor out, Stream& stream) = 0;

  // Mixtral's router: softmax over all E logits, the K largest (lowest id first
  // on a tie), renormalised to sum 1. logits [T, E] f32; topk_ids [T, K] i32,
  // largest first; topk_weights [T, K] f32.
  virtual absl::Status Router(ConstTensor logits, Tensor topk_ids,
                              Tensor topk_weights, Stream& stream) = 0;

  // out[i] = src[row_ids[i]], bytes as they are. src [S, H], out [N, H] same
  // dtype; row_ids [N] i32.
  virtual absl::Status GatherRows(ConstTensor src, ConstTensor row_ids,
                                  Tensor out, Stream& stream) = 0;

  // The weighted sum that ends a MoE layer: out[t] += sum over slots k =
  // 0..K-1, in that order and in f32, of weights[t, k] * rows[slot_rows[t, k]].
  // rows [N, H] f32 or bf16; slot_rows [T, K] i32; weights [T, K] f32; out [T,
  // H] f32. (The K products are summed first, then added to out.)
  virtual absl::Status CombineRows(ConstTensor rows, ConstTensor slot_rows,
                                   ConstTensor weights, Tensor out,
                                   Stream& stream) = 0;

  // Draws one token per row. logits [N, V] f32 (left as they are). Result on
  // the host: synchronizes the stream.
  virtual absl::Status Sample(ConstTensor logits,
                              absl::Span<const SamplingRow> rows,
                              std::vector<SampledToken>* out,
                              Stream& stream) = 0;

  // Log-probability of targets[i] under softmax(logits[i]) and the
  // num_logprobs[i] likeliest tokens. logits [N, V] f32; targets, num_logprobs
  // (host) have N entries. Synchronizes the stream.
  virtual absl::Status ScoreTokens(ConstTensor logits,
                                   absl::Span<const int32_t> targets,
                                   absl::Span<const int> num_logprobs,
                                   std::vector<TokenLogprobs>* out,
                                   Stream& stream) = 0;
};

}  // namespace octet

#endif  // OCTET_KERNELS_BACKEND_H_
