#include "tests/fakes/fake_model.h"

#include <algorithm>

#include "tests/fakes/kv_model.h"

namespace octet::test {
namespace {

uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 31)) * 0x7fb5d329728ea185u;
  x = (x ^ (x >> 27)) * 0x81dadef4bc2dd44du;
  return x ^ (x >> 33);
}

}  // namespace

int32_t FakeModel::Sample(uint64_t prefix_hash,
                          const v1::SampleSpec& spec) const {
  const uint64_t seed = spec.temperature() == 0 ? 0 : spec.seed();
  const uint64_t hash = Mix(prefix_hash ^ Mix(seed));
  const auto banned = [&](int32_t token) {
    const auto& ids = spec.banned_ids();
    return std::find(ids.begin(), ids.end(), token) != ids.end();
  };
  if (eos_every > 0 && hash % eos_every == 0 && !banned(eos_id)) return eos_id;
  const int32_t range = vocab_size - first_token;
  int32_t offset = static_cast<int32_t>((hash >> 16) % range);
  while (banned(first_token + offset)) offset = (offset + 1) % range;
  return first_token + offset;
}

float FakeModel::Logprob(uint64_t prefix_hash, int32_t token) const {
  return -static_cast<float>(Mix(prefix_hash + token) % 8192) / 1024;
}

void FakeModel::FillLogprobs(uint64_t prefix_hash, int32_t token,
                             int32_t num_logprobs,
                             v1::PositionLogprobs* logprobs) const {
  logprobs->set_logprob(Logprob(prefix_hash, token));
  for (int32_t i = 0; i < num_logprobs; ++i) {
    v1::CandidateLogprob* candidate = logprobs->add_top();
    candidate->set_token_id(first_token + i);
    candidate->set_logprob(Logprob(prefix_hash, first_token + i));
  }
}

std::vector<int32_t> FakeModel::Continue(absl::Span<const int32_t> prompt,
                                         int32_t max_new, uint64_t seed,
                                         float temperature) const {
  v1::SampleSpec spec;
  spec.set_seed(seed);
  spec.set_temperature(temperature);
  std::vector<int32_t> tokens(prompt.begin(), prompt.end());
  std::vector<int32_t> generated;
  while (static_cast<int32_t>(generated.size()) < max_new) {
    generated.push_back(Sample(PrefixHash(tokens), spec));
    tokens.push_back(generated.back());
    if (generated.back() == eos_id) break;
  }
  return generated;
}

}  // namespace octet::test
