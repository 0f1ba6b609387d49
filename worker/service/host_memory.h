// What the operating system says about memory (Linux: /proc).
#ifndef OCTET_WORKER_SERVICE_HOST_MEMORY_H_
#define OCTET_WORKER_SERVICE_HOST_MEMORY_H_

#include <cstdint>

namespace octet {

// Memory that can be allocated without swapping, in bytes; 0 when unknown.
int64_t AvailableHostBytes();
// Memory this process holds now, in bytes; 0 when unknown.
int64_t ResidentBytes();

}  // namespace octet

#endif  // OCTET_WORKER_SERVICE_HOST_MEMORY_H_
