// The experts that the tokens of one sequence took, put together from the
// chunks that it was computed in. Not thread-safe.
#ifndef OCTET_COORDINATOR_ROUTE_LOG_H_
#define OCTET_COORDINATOR_ROUTE_LOG_H_

#include <cstdint>

#include "proto/routes.pb.h"

namespace octet {

class RouteLog {
 public:
  // The routes of `num_tokens` (> 0) tokens from `position` on, [L] of
  // [num_tokens, K]. What is known of these and of later positions is from a
  // computation that is done again, and gives way. REQUIRES: `position` is at
  // most the number of tokens so far; L and K as before.
  void Put(int32_t position, int32_t num_tokens, const v1::SlotRoutes& chunk);

  // All routes, and K times -1 for one more token, which was sampled and not
  // computed. Nothing is left.
  v1::SlotRoutes Take();

 private:
  v1::SlotRoutes routes_;
  int32_t top_k_ = 0;
};

}  // namespace octet

#endif  // OCTET_COORDINATOR_ROUTE_LOG_H_
