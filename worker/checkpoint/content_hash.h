// XXH64 (Yann Collet, xxHash specification 0.1.1): a fast 64-bit checksum that
// notices damaged files; no protection against forgery.
//
// Tested against the values of the reference implementation in
// tests/worker/checkpoint/content_hash_test.cc. Thread-safe.
#ifndef OCTET_WORKER_CHECKPOINT_CONTENT_HASH_H_
#define OCTET_WORKER_CHECKPOINT_CONTENT_HASH_H_

#include <cstddef>
#include <cstdint>

namespace octet {

uint64_t ContentHash(const void* data, size_t num_bytes, uint64_t seed = 0);

}  // namespace octet

#endif  // OCTET_WORKER_CHECKPOINT_CONTENT_HASH_H_
