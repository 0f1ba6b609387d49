#include "coordinator/message_queue.h"

#include <string>

#include "coordinator/event_hub.h"
#include "gtest/gtest.h"

namespace octet {
namespace {

using Queue = MessageQueue<int>;

TEST(MessageQueueTest, SaysWhenItIsFullAndWhenItIsDrained) {
  Queue queue(4);
  int drained = 0;
  queue.SetOnDrained([&] { ++drained; });
  EXPECT_TRUE(queue.Push(1));
  EXPECT_TRUE(queue.Push(2));
  EXPECT_TRUE(queue.Push(3));
  EXPECT_FALSE(queue.Push(4));
  EXPECT_FALSE(queue.Push(5));
  int value = 0;
  absl::Status status;
  EXPECT_EQ(queue.Pop(&value, &status), Queue::Next::kMessage);
  EXPECT_EQ(queue.Pop(&value, &status), Queue::Next::kMessage);
  EXPECT_EQ(drained, 0);
  EXPECT_FALSE(queue.Push(6));  // there is room, but the pause still holds
  EXPECT_EQ(queue.Pop(&value, &status), Queue::Next::kMessage);
  EXPECT_EQ(queue.Pop(&value, &status), Queue::Next::kMessage);
  EXPECT_EQ(value, 4);
  EXPECT_EQ(drained, 1);
  EXPECT_TRUE(queue.Push(7));
}

TEST(MessageQueueTest, WhatIsQueuedComesBeforeTheEnd) {
  Queue queue(4);
  int ready = 0;
  queue.SetOnReady([&] { ++ready; });
  queue.Push(1);
  queue.Close(absl::CancelledError("over"));
  queue.Close(absl::OkStatus());
  queue.Push(2);
  int value = 0;
  absl::Status status;
  EXPECT_EQ(queue.Pop(&value, &status), Queue::Next::kMessage);
  EXPECT_EQ(value, 1);
  EXPECT_EQ(queue.Pop(&value, &status), Queue::Next::kClosed);
  EXPECT_EQ(status, absl::CancelledError("over"));
  EXPECT_EQ(ready, 2);
}

TEST(EventHubTest, AWatcherThatLagsIsClosed) {
  EventHub hub(3);
  const auto slow = hub.Subscribe();
  const auto quick = hub.Subscribe();
  v1::Event event;
  absl::Status status;
  for (int i = 0; i < 10; ++i) {
    hub.Publish(event);
    EXPECT_EQ(quick->Pop(&event, &status), EventHub::Queue::Next::kMessage);
  }
  EXPECT_EQ(slow->size(), 3u);
  while (slow->Pop(&event, &status) == EventHub::Queue::Next::kMessage) {
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "the watcher is 3 events behind");
  hub.Close(absl::UnavailableError("bye"));
  EXPECT_EQ(quick->Pop(&event, &status), EventHub::Queue::Next::kClosed);
  EXPECT_EQ(status.message(), "bye");
  EXPECT_EQ(hub.Subscribe()->Pop(&event, &status),
            EventHub::Queue::Next::kClosed);
}

}  // namespace
}  // namespace octet
