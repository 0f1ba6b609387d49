// Rows that say where they come from travel through the real communicator and
// backend; every value is compared exactly.
#include "worker/moe/dispatcher.h"

#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/support/ranks.h"
#include "tests/worker/moe/routing_cases.h"

namespace octet {
namespace {

using test::RoutingCase;
using ::testing::HasSubstr;

constexpr int64_t kHidden = 6;

// A backend with a stream and memory for a test's tensors.
struct Device {
  std::unique_ptr<Backend> backend = NewCpuBackend({}).value();
  std::unique_ptr<Stream> stream = backend->NewStream().value();
  std::vector<std::unique_ptr<Buffer>> buffers;

  Tensor New(DType dtype, std::initializer_list<int64_t> dims) {
    buffers.push_back(
        backend->Allocate(Tensor(nullptr, dtype, dims).num_bytes() + 1)
            .value());
    return Tensor(buffers.back()->data(), dtype, dims);
  }
  template <typename T>
  Tensor Upload(DType dtype, std::initializer_list<int64_t> dims,
                const std::vector<T>& values) {
    Tensor out = New(dtype, dims);
    EXPECT_EQ(out.num_bytes(), values.size() * sizeof(T));
    EXPECT_TRUE(
        backend
            ->CopyToDevice(out.data(), values.data(), out.num_bytes(), *stream)
            .ok());
    return out;
  }
  template <typename T>
  std::vector<T> Download(ConstTensor tensor) {
    std::vector<T> out(tensor.num_elements());
    EXPECT_TRUE(
        backend
            ->CopyToHost(out.data(), tensor.data(), tensor.num_bytes(), *stream)
            .ok());
    EXPECT_TRUE(backend->Synchronize(*stream).ok());
    return out;
  }
};

std::vector<float> LabelledRows(int rank, int64_t tokens) {
  std::vector<float> rows;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t h = 0; h < kHidden; ++h) {
      rows.push_back(h == 0 ? rank : h == 1 ? t : 100.0f * rank + t + h / 8.0f);
    }
  }
  return rows;
}

// One forward trip on one rank; experts write their id into column 2.
absl::Status Trip(const RoutingCase& routing, Dispatcher& dispatcher,
                  Device& device, int rank) {
  const StepContext step{7, 0, device.stream.get()};
  const int64_t tokens = routing.rank_tokens[rank];
  const std::vector<float> sent = LabelledRows(rank, tokens);
  const Tensor x = device.Upload(DType::kF32, {tokens, kHidden}, sent);
  const Tensor ids = device.Upload(DType::kI32, {tokens, routing.top_k},
                                   routing.choices[rank]);
  OCTET_ASSIGN_OR_RETURN(const DispatchHandle handle,
                         dispatcher.Route(ids, routing.rank_tokens, step));
  OCTET_ASSIGN_OR_RETURN(const ConstTensor received,
                         dispatcher.Dispatch(handle, x, step));
  const int64_t rows = handle.expert_rows();
  const Tensor expert_in = device.New(DType::kF32, {rows, kHidden});
  // In two parts, as the layer does with many rows.
  for (const auto& [begin, end] :
       {std::pair{int64_t{0}, rows / 3}, std::pair{rows / 3, rows}}) {
    if (begin == end) continue;
    OCTET_RETURN_IF_ERROR(dispatcher.GatherExpertRows(
        handle, received, begin, expert_in.Rows(begin, end - begin), step));
  }
  std::vector<float> outputs = device.Download<float>(expert_in);
  const auto local = routing.placement.LocalExperts(rank);
  for (size_t e = 0; e < local.size(); ++e) {
    for (int64_t i = handle.expert_offsets[e]; i < handle.expert_offsets[e + 1];
         ++i) {
      outputs[i * kHidden + 2] = local[e];
    }
  }
  const Tensor expert_out =
      device.Upload(DType::kF32, {rows, kHidden}, outputs);
  OCTET_ASSIGN_OR_RETURN(const CombinedRows combined,
                         dispatcher.Combine(handle, expert_out, step));
  const auto back = device.Download<float>(combined.rows);
  const auto slot_rows = device.Download<int32_t>(combined.slot_rows);
  EXPECT_EQ(slot_rows.size(), routing.choices[rank].size());
  for (size_t pair = 0; pair < slot_rows.size(); ++pair) {
    std::vector<float> expected(
        sent.begin() + pair / routing.top_k * kHidden,
        sent.begin() + (pair / routing.top_k + 1) * kHidden);
    expected[2] = routing.choices[rank][pair];
    const auto row = back.begin() + slot_rows[pair] * kHidden;
    EXPECT_EQ(std::vector<float>(row, row + kHidden), expected);
  }
  return absl::OkStatus();
}

// (destination, token) pairs that leave the rank, and output rows that leave
// it.
int64_t ExpectedRowsSent(const RoutingCase& routing, int rank) {
  std::set<std::pair<int, int64_t>> trips;
  for (size_t pair = 0; pair < routing.choices[rank].size(); ++pair) {
    const int to = routing.placement.RankFor(routing.choices[rank][pair], rank);
    if (to != rank) trips.insert({to, pair / routing.top_k});
  }
  return static_cast<int64_t>(trips.size());
}

int64_t ExpectedRowsReturned(const RoutingCase& routing, int rank) {
  int64_t rows = 0;
  for (int source = 0; source < routing.placement.num_ranks(); ++source) {
    if (source == rank) continue;
    for (int32_t expert : routing.choices[source]) {
      rows += routing.placement.RankFor(expert, source) == rank;
    }
  }
  return rows;
}

int64_t BytesSent(const Communicator& communicator, absl::string_view name) {
  for (const OpCounters& counters : communicator.counters()) {
    if (counters.operation == name) return counters.bytes_sent;
  }
  return 0;
}

TEST(DispatcherTest, RowsComeHomeFromTheirExpertsAndBytesAreThoseOfOneTrip) {
  for (const RoutingCase& routing : test::AllRoutingCases()) {
    SCOPED_TRACE(routing.name);
    const int size = routing.placement.num_ranks();
    const auto results = test::RunRanks(size, [&](Communicator& communicator) {
      Device device;
      const int rank = communicator.rank();
      Dispatcher dispatcher(device.backend.get(), &communicator,
                            &routing.placement);
      OCTET_RETURN_IF_ERROR(Trip(routing, dispatcher, device, rank));
      const int64_t row_bytes = kHidden * sizeof(float);
      EXPECT_EQ(BytesSent(communicator, "dispatch"),
                ExpectedRowsSent(routing, rank) * row_bytes);
      EXPECT_EQ(BytesSent(communicator, "combine"),
                ExpectedRowsReturned(routing, rank) * row_bytes);
      EXPECT_EQ(BytesSent(communicator, "route"),
                (size - 1) * int64_t{sizeof(int32_t)} *
                    static_cast<int64_t>(routing.choices[rank].size()));
      return absl::OkStatus();
    });
    for (const absl::Status& status : results)
      EXPECT_TRUE(status.ok()) << status;
  }
}

// The same object over steps of changing size: scratch memory grows and is used
// again, and nothing of an earlier step shows.
TEST(DispatcherTest, OneDispatcherServesManySteps) {
  const Placement placement = Placement::Parse("0-3:0;4-7:1,2", 8, 3).value();
  std::vector<RoutingCase> steps;
  for (uint32_t seed = 0; seed < 20; ++seed) {
    steps.push_back(test::MakeRoutingCase(
        placement, 2, static_cast<test::Skew>(seed % 4), seed));
  }
  const auto results = test::RunRanks(3, [&](Communicator& communicator) {
    Device device;
    Dispatcher dispatcher(device.backend.get(), &communicator, &placement);
    for (const RoutingCase& routing : steps) {
      OCTET_RETURN_IF_ERROR(
          Trip(routing, dispatcher, device, communicator.rank()));
    }
    EXPECT_GT(dispatcher.size_bytes(), 0);
    return absl::OkStatus();
  });
  for (const absl::Status& status : results) EXPECT_TRUE(status.ok()) << status;
}

TEST(DispatcherTest, AnImpossibleChoiceIsTheSameErrorOnEveryRank) {
  const Placement placement = Placement::Default(8, 3).value();
  const auto results = test::RunRanks(3, [&](Communicator& communicator) {
    Device device;
    Dispatcher dispatcher(device.backend.get(), &communicator, &placement);
    const std::vector<int32_t> choices = {1, communicator.rank() == 1 ? 99 : 2};
    const Tensor ids = device.Upload(DType::kI32, {1, 2}, choices);
    return dispatcher
        .Route(ids, {1, 1, 1}, StepContext{0, 0, device.stream.get()})
        .status();
  });
  for (const absl::Status& status : results) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("rank 1 chose expert 99 for its token 0 in slot 1"));
  }
}

}  // namespace
}  // namespace octet
