// The real backend, linked to the real libraries: without a driver it says so
// in one sentence; with a GPU it is made and copies.
#include <cstdio>
#include <string>

#include "kernels/cuda/cuda_backend.h"

int main() {
  const auto backend = octet::NewCudaBackend({});
  const std::string line = backend.ok()
                               ? (*backend)->Description()
                               : std::string(backend.status().message());
  std::puts(line.c_str());
  return 0;
}
