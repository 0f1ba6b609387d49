// Training examples epoch by epoch, in an order that depends on the seed and
// the epoch only, and that can be taken up at any place.
//
//   stored    all examples are in an ExampleStore; an epoch is a random order
//             of all of them.
//   streamed  the data are read anew in each epoch; `window` examples at a
//             time are in memory and given in a random order. A place is taken
//             up by reading its window again.
//
// Not thread-safe.
#ifndef OCTET_CLIENT_DATA_EXAMPLE_FEED_H_
#define OCTET_CLIENT_DATA_EXAMPLE_FEED_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/data/example.h"
#include "client/data/example_store.h"
#include "client/data/example_stream.h"

namespace octet {

struct FeedPosition {
  int64_t epoch = 0;
  int64_t index = 0;  // examples given in this epoch
  // Streamed only: the window, and the examples given of it.
  int64_t window = 0;
  int64_t window_index = 0;
  StreamPosition stream;  // where the window begins
};

class ExampleFeed {
 public:
  virtual ~ExampleFeed() = default;

  // nullopt at the end of the epoch.
  virtual absl::StatusOr<std::optional<Example>> Next() = 0;
  virtual absl::Status StartEpoch(int64_t epoch) = 0;

  virtual FeedPosition position() const = 0;
  // InvalidArgument when there is no such place.
  virtual absl::Status Restore(const FeedPosition& position) = 0;

  // In an epoch; nullopt when nobody knows.
  virtual std::optional<int64_t> num_examples() const = 0;
};

struct FeedOptions {
  uint64_t seed = 42;
  bool shuffle = true;
};

// Gives the examples `indices` of `store`, which must outlive the feed.
std::unique_ptr<ExampleFeed> MakeStoredFeed(ExampleStore* store,
                                            std::vector<uint32_t> indices,
                                            FeedOptions options);

// Gives what `stream` gives from where it stands now.
std::unique_ptr<ExampleFeed> MakeStreamedFeed(
    std::unique_ptr<ExampleStream> stream, int64_t window, FeedOptions options);

}  // namespace octet

#endif  // OCTET_CLIENT_DATA_EXAMPLE_FEED_H_
