#include "client/data/example_feed.h"

#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "client/data/random.h"

namespace octet {
namespace {

constexpr uint64_t kEpochPurpose = 2;

std::vector<uint32_t> MakeOrder(const FeedOptions& options, uint64_t part,
                                size_t count) {
  if (options.shuffle) {
    return RandomOrder({options.seed, kEpochPurpose, part},
                       static_cast<uint32_t>(count));
  }
  std::vector<uint32_t> order(count);
  std::iota(order.begin(), order.end(), 0u);
  return order;
}

absl::Status NoSuchPlace(int64_t index, size_t count) {
  return absl::InvalidArgumentError(absl::StrCat(
      "the data position is at example ", index, ", expected 0 to ", count,
      ": the data or the options have changed"));
}

class StoredFeed : public ExampleFeed {
 public:
  StoredFeed(ExampleStore* store, std::vector<uint32_t> indices,
             FeedOptions options)
      : store_(*store), indices_(std::move(indices)), options_(options) {
    BeginEpoch(0);
  }

  absl::StatusOr<std::optional<Example>> Next() override {
    if (index_ == order_.size()) return std::nullopt;
    OCTET_ASSIGN_OR_RETURN(Example example,
                           store_.Get(indices_[order_[index_]]));
    ++index_;
    return example;
  }

  absl::Status StartEpoch(int64_t epoch) override {
    BeginEpoch(epoch);
    return absl::OkStatus();
  }

  FeedPosition position() const override {
    FeedPosition position;
    position.epoch = epoch_;
    position.index = static_cast<int64_t>(index_);
    return position;
  }

  absl::Status Restore(const FeedPosition& position) override {
    if (position.index > static_cast<int64_t>(indices_.size())) {
      return NoSuchPlace(position.index, indices_.size());
    }
    BeginEpoch(position.epoch);
    index_ = static_cast<size_t>(position.index);
    return absl::OkStatus();
  }

  std::optional<int64_t> num_examples() const override {
    return static_cast<int64_t>(indices_.size());
  }

 private:
  void BeginEpoch(int64_t epoch) {
    epoch_ = epoch;
    index_ = 0;
    order_ = MakeOrder(options_, static_cast<uint64_t>(epoch), indices_.size());
  }

  ExampleStore& store_;
  const std::vector<uint32_t> indices_;  // in the store
  const FeedOptions options_;
  int64_t epoch_ = 0;
  std::vector<uint32_t> order_;  // of this epoch, in indices_
  size_t index_ = 0;             // in order_
};

class StreamedFeed : public ExampleFeed {
 public:
  StreamedFeed(std::unique_ptr<ExampleStream> stream, int64_t window_size,
               FeedOptions options)
      : stream_(std::move(stream)),
        window_size_(static_cast<size_t>(window_size)),
        options_(options),
        begin_(stream_->position()) {
    at_.stream = begin_;
  }

  absl::StatusOr<std::optional<Example>> Next() override {
    if (!filled_) {
      OCTET_RETURN_IF_ERROR(FillWindow());
    } else if (at_.window_index == static_cast<int64_t>(window_.size()) &&
               !window_.empty()) {
      ++at_.window;
      at_.window_index = 0;
      at_.stream = stream_->position();
      OCTET_RETURN_IF_ERROR(FillWindow());
    }
    if (window_.empty()) return std::nullopt;
    Example example = window_[order_[at_.window_index]];
    ++at_.window_index;
    ++at_.index;
    return example;
  }

  absl::Status StartEpoch(int64_t epoch) override {
    FeedPosition begin;
    begin.epoch = epoch;
    begin.stream = begin_;
    return Restore(begin);
  }

  FeedPosition position() const override { return at_; }

  absl::Status Restore(const FeedPosition& position) override {
    const bool same_window =
        filled_ && position.epoch == at_.epoch && position.window == at_.window;
    at_ = position;
    if (same_window) return CheckPlace();
    filled_ = false;
    OCTET_RETURN_IF_ERROR(stream_->Restore(position.stream));
    if (position.window_index == 0) return absl::OkStatus();
    OCTET_RETURN_IF_ERROR(FillWindow());
    return CheckPlace();
  }

  std::optional<int64_t> num_examples() const override { return std::nullopt; }

 private:
  absl::Status CheckPlace() const {
    if (at_.window_index <= static_cast<int64_t>(window_.size())) {
      return absl::OkStatus();
    }
    return NoSuchPlace(at_.window_index, window_.size());
  }

  absl::Status FillWindow() {
    window_.clear();
    while (window_.size() < window_size_) {
      OCTET_ASSIGN_OR_RETURN(std::optional<Example> example, stream_->Next());
      if (!example.has_value()) break;
      window_.push_back(*std::move(example));
    }
    // An epoch's windows are a stream of their own: 2^32 of them are enough.
    const uint64_t part = (static_cast<uint64_t>(at_.epoch) << 32) +
                          static_cast<uint64_t>(at_.window);
    order_ = MakeOrder(options_, part, window_.size());
    filled_ = true;
    return absl::OkStatus();
  }

  const std::unique_ptr<ExampleStream> stream_;
  const size_t window_size_;
  const FeedOptions options_;
  const StreamPosition begin_;  // of every epoch
  FeedPosition at_;
  bool filled_ = false;  // window_ is that of at_
  std::vector<Example> window_;
  std::vector<uint32_t> order_;
};

}  // namespace

std::unique_ptr<ExampleFeed> MakeStoredFeed(ExampleStore* store,
                                            std::vector<uint32_t> indices,
                                            FeedOptions options) {
  return std::make_unique<StoredFeed>(store, std::move(indices), options);
}

std::unique_ptr<ExampleFeed> MakeStreamedFeed(
    std::unique_ptr<ExampleStream> stream, int64_t window,
    FeedOptions options) {
  return std::make_unique<StreamedFeed>(std::move(stream), window, options);
}

}  // namespace octet
