// Messages of any size between the ranks of a group, and agreement on an
// outcome.
#include "worker/comm/group_messages.h"

#include <string>
#include <vector>

#include "base/status_macros.h"
#include "gtest/gtest.h"
#include "tests/support/ranks.h"

namespace octet {
namespace {

TEST(GroupMessagesTest, AnySizeArrivesWhole) {
  for (int num_ranks : {1, 2, 4, 7}) {
    for (size_t size : {0, 1, 1015, 1016, 1017, 100000}) {
      const auto message = [&](int rank) {
        return std::string(rank % 2 == 0 ? size : size / 2,
                           static_cast<char>('a' + rank));
      };
      const auto results =
          test::RunRanks(num_ranks, [&](Communicator& communicator) {
            OpInfo op;
            op.operation = "test";
            const int rank = communicator.rank();
            OCTET_ASSIGN_OR_RETURN(
                const std::string got,
                BroadcastMessage(communicator, message(rank), op));
            EXPECT_EQ(got, message(0));
            OCTET_ASSIGN_OR_RETURN(
                const std::vector<std::string> all,
                GatherMessages(communicator, message(rank), op));
            EXPECT_EQ(all.size(), rank == 0 ? num_ranks : 0u);
            for (size_t r = 0; r < all.size(); ++r) {
              EXPECT_EQ(all[r], message(static_cast<int>(r)));
            }
            return absl::OkStatus();
          });
      for (const absl::Status& status : results) {
        EXPECT_TRUE(status.ok()) << status;
      }
    }
  }
}

TEST(GroupMessagesTest, AllRanksGetTheLowestRanksError) {
  for (int num_ranks : {1, 2, 3, 8}) {
    for (int first_bad = 0; first_bad <= num_ranks; ++first_bad) {
      const auto results =
          test::RunRanks(num_ranks, [&](Communicator& communicator) {
            OpInfo op;
            op.operation = "test";
            const int rank = communicator.rank();
            const absl::Status own =
                rank < first_bad
                    ? absl::OkStatus()
                    : absl::NotFoundError(std::string(
                          1 + 999 * (rank % 2), static_cast<char>('a' + rank)));
            const absl::Status agreed = AgreeOnStatus(communicator, own, op);
            if (first_bad == num_ranks) {
              EXPECT_TRUE(agreed.ok());
            } else {
              EXPECT_EQ(agreed, absl::NotFoundError(std::string(
                                    1 + 999 * (first_bad % 2),
                                    static_cast<char>('a' + first_bad))));
            }
            return absl::OkStatus();
          });
      for (const absl::Status& status : results) {
        EXPECT_TRUE(status.ok()) << status;
      }
    }
  }
}

}  // namespace
}  // namespace octet
