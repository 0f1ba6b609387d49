#include "kernels/cpu/descending_tokens.h"

#include <algorithm>

namespace octet::cpu {

void DescendingTokens::Reset(const float* logits, const double* weights,
                             int64_t n, float max, double factor) {
  logits_ = logits;
  weights_ = weights;
  count_.fill(0);
  mass_.fill(0.0);
  sorted_.fill(false);
  bucket_of_.resize(n);
  tokens_.resize(n);
  const double scale = factor * kBucketsPerNat;
  for (int64_t i = 0; i < n; ++i) {
    const double distance =
        (static_cast<double>(max) - static_cast<double>(logits[i])) * scale;
    const int bucket =
        static_cast<int>(std::min<double>(distance, kNumBuckets - 1));
    bucket_of_[i] = static_cast<uint16_t>(bucket);
    count_[bucket] += weights[i] != 0.0;
    mass_[bucket] += weights[i];
  }
  int64_t begin = 0;
  for (int bucket = 0; bucket < kNumBuckets; ++bucket) {
    begin_[bucket] = begin;
    begin += count_[bucket];
  }
  std::array<int64_t, kNumBuckets> next = begin_;
  for (int64_t i = 0; i < n; ++i) {
    if (weights[i] != 0.0) {
      tokens_[next[bucket_of_[i]]++] = static_cast<int32_t>(i);
    }
  }
}

const int32_t* DescendingTokens::Sorted(int bucket) {
  int32_t* tokens = tokens_.data() + begin_[bucket];
  if (!sorted_[bucket]) {
    sorted_[bucket] = true;
    std::sort(tokens, tokens + count_[bucket], [this](int32_t a, int32_t b) {
      return logits_[a] != logits_[b] ? logits_[a] > logits_[b] : a < b;
    });
  }
  return tokens;
}

DescendingTokens::Prefix DescendingTokens::All() const {
  Prefix prefix{.bucket = kNumBuckets - 1,
                .in_bucket = count_[kNumBuckets - 1]};
  for (double mass : mass_) prefix.mass += mass;
  return prefix;
}

DescendingTokens::Prefix DescendingTokens::FirstCount(const Prefix& limit,
                                                      int64_t count) {
  Prefix prefix;
  for (int bucket = 0; bucket <= limit.bucket; ++bucket) {
    const int64_t available = CountIn(limit, bucket);
    prefix.bucket = bucket;
    prefix.in_bucket = std::min(available, count);
    if (available >= count) {
      const int32_t* tokens = Sorted(bucket);
      for (int64_t i = 0; i < count; ++i) prefix.mass += weights_[tokens[i]];
      return prefix;
    }
    count -= available;
    prefix.mass += mass_[bucket];
  }
  return limit;
}

DescendingTokens::Prefix DescendingTokens::UntilMass(const Prefix& limit,
                                                     double mass, bool beyond) {
  const auto reached = [&](double sum) {
    return beyond ? sum > mass : sum >= mass;
  };
  double before = 0.0;
  for (int bucket = 0; bucket <= limit.bucket; ++bucket) {
    const int64_t available = CountIn(limit, bucket);
    const double after = before + mass_[bucket];
    // The sorted sum of a bucket may round to less than mass_: then the loop
    // goes on in the next bucket.
    if (available > 0 && (bucket == limit.bucket || reached(after))) {
      const int32_t* tokens = Sorted(bucket);
      double sum = before;
      for (int64_t i = 0; i < available; ++i) {
        sum += weights_[tokens[i]];
        if (reached(sum)) return {bucket, i + 1, sum};
      }
    }
    before = after;
  }
  return limit;
}

DescendingTokens::Prefix DescendingTokens::AtLeastWeight(const Prefix& limit,
                                                         double weight) {
  Prefix prefix;
  for (int bucket = 0; bucket <= limit.bucket; ++bucket) {
    const int64_t available = CountIn(limit, bucket);
    if (available == 0) continue;
    const int32_t* any_order = tokens_.data() + begin_[bucket];
    if (available == count_[bucket] &&
        std::all_of(any_order, any_order + available,
                    [&](int32_t token) { return weights_[token] >= weight; })) {
      prefix = {bucket, available, prefix.mass + mass_[bucket]};
      continue;
    }
    const int32_t* tokens = Sorted(bucket);
    for (int64_t i = 0; i < available; ++i) {
      const double w = weights_[tokens[i]];
      if (w < weight && prefix.in_bucket > 0) return prefix;
      prefix = {bucket, i + 1, prefix.mass + w};
    }
  }
  return prefix;
}

int32_t DescendingTokens::Last(const Prefix& prefix) {
  int bucket = prefix.bucket;
  int64_t count = prefix.in_bucket;
  while (count == 0) count = count_[--bucket];
  return Sorted(bucket)[count - 1];
}

}  // namespace octet::cpu
