// The tokens of one row from the likeliest down, sorted only as far as somebody
// looks.
//
// Tokens are put into buckets by the distance of their logit from the largest;
// the buckets' masses and counts are known after one pass, and a bucket is
// sorted (larger logit first, lower id on a tie) when a question ends inside
// it. top_k, top_p, min_p and the draw all ask for a prefix of this order.
//
// Masses are summed in double: within a bucket by rising id, then over buckets
// in order; a partial bucket in its sorted order.
#ifndef OCTET_KERNELS_CPU_DESCENDING_TOKENS_H_
#define OCTET_KERNELS_CPU_DESCENDING_TOKENS_H_

#include <array>
#include <cstdint>
#include <vector>

namespace octet::cpu {

class DescendingTokens {
 public:
  // The first `in_bucket` tokens of bucket `bucket` and all of the buckets
  // before it.
  struct Prefix {
    int bucket = 0;
    int64_t in_bucket = 0;
    double mass = 0.0;
  };

  // weights[i] = e^((logits[i] - max) * factor), n of each, which must outlive
  // the object or the next Reset. A token of weight 0 is not in the order; the
  // largest has weight 1.
  void Reset(const float* logits, const double* weights, int64_t n, float max,
             double factor);

  Prefix All() const;
  // The first `count` tokens, at most `limit`.
  Prefix FirstCount(const Prefix& limit, int64_t count);
  // The shortest prefix of `limit` with mass >= `mass` (> `mass` if `beyond`),
  // at least one token; `limit` if there is none.
  Prefix UntilMass(const Prefix& limit, double mass, bool beyond);
  // The tokens of `limit` with at least this weight, at least one token.
  Prefix AtLeastWeight(const Prefix& limit, double weight);
  // The last token of a prefix that is not empty.
  int32_t Last(const Prefix& prefix);

 private:
  static constexpr int kBucketsPerNat = 32;
  static constexpr int kNumBuckets = 1024;  // the last holds all that is left

  // Tokens of the bucket within the prefix.
  int64_t CountIn(const Prefix& prefix, int bucket) const {
    return bucket == prefix.bucket ? prefix.in_bucket : count_[bucket];
  }
  // The bucket's count_[bucket] tokens in order.
  const int32_t* Sorted(int bucket);

  const float* logits_ = nullptr;
  const double* weights_ = nullptr;
  std::array<int64_t, kNumBuckets> count_ = {};
  std::array<double, kNumBuckets> mass_ = {};
  std::array<int64_t, kNumBuckets> begin_ = {};  // in tokens_
  std::array<bool, kNumBuckets> sorted_ = {};
  std::vector<uint16_t> bucket_of_;  // [n]
  std::vector<int32_t> tokens_;      // by bucket; by id where not sorted_
};

}  // namespace octet::cpu

#endif  // OCTET_KERNELS_CPU_DESCENDING_TOKENS_H_
