// One rank of a local group (see local_group.h).
#ifndef OCTET_WORKER_COMM_LOCAL_LOCAL_COMMUNICATOR_H_
#define OCTET_WORKER_COMM_LOCAL_LOCAL_COMMUNICATOR_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "worker/comm/call_signature.h"
#include "worker/comm/local/rendezvous.h"
#include "worker/comm/transport_communicator.h"

namespace octet {

// What the ranks of a group share.
struct LocalGroupState {
  // What a rank shows its peers during a collective. Only valid for a reader
  // between BeginReading and EndReading, the signature also just after the
  // phase that published it.
  struct Offer {
    CallSignature signature;
    const void* data = nullptr;
    // Part p of `data` for rank p; empty: all of `data` for everyone.
    absl::Span<const int64_t> offsets;
    absl::Span<const int64_t> bytes;
  };
  struct alignas(64) Offers {
    // By parity of the sequence number: a rank may be one collective ahead of a
    // peer that still reads.
    Offer by_parity[2];
    std::atomic<int64_t> progress{-1};
  };

  LocalGroupState(int size, std::string host)
      : size(size),
        host(std::move(host)),
        rendezvous(size),
        offers(std::make_unique<Offers[]>(size)) {}

  const int size;
  const std::string host;
  Rendezvous rendezvous;
  const std::unique_ptr<Offers[]> offers;
};

class LocalCommunicator final : public TransportCommunicator {
 public:
  LocalCommunicator(int rank, std::shared_ptr<LocalGroupState> group,
                    CommunicatorOptions options);
  ~LocalCommunicator() override;

  int rank() const override { return rank_; }
  int size() const override { return group_->size; }
  absl::string_view transport() const override { return "local"; }
  std::string host(int /*rank*/) const override { return group_->host; }
  void Abort(const absl::Status& reason) override;
  void SetProgress(int64_t point) override {
    group_->offers[rank_].progress = point;
  }
  std::vector<int> RanksBehind(int64_t point, absl::Duration patience) override;

 protected:
  absl::Status RunAllToAllV(const AllToAllVArgs& args, Call& call) override;
  absl::Status RunAllGather(const void* send, void* recv, Call& call) override;
  absl::Status RunAllReduceI64(absl::Span<int64_t> values, ReduceOp reduce,
                               Call& call) override;
  absl::Status RunBroadcast(void* data, int root, Call& call) override;
  absl::Status RunBarrier(Call& call) override;
  absl::Status RunPoll(Call& call) override;

 private:
  using Offer = LocalGroupState::Offer;

  LocalGroupState::Offer& OfferOf(int rank, const Call& call) const;
  // Publishes the offer, waits for all and compares the signatures.
  absl::Status Open(const Call& call, const void* data,
                    absl::Span<const int64_t> offsets = {},
                    absl::Span<const int64_t> bytes = {});
  // Waits until all ranks have read what they want.
  absl::Status Close(const Call& call);
  // Runs `read(peer, offer)` for the peers, starting behind this rank so that
  // not all read from the same one; `read` returns what is wrong, or "".
  template <typename Read>
  absl::Status ReadPeers(const Call& call, Read read);
  absl::Status Fail(const Call& call, absl::StatusCode code,
                    std::vector<int> missing_ranks, const std::string& reason);
  absl::Status GroupFailure(const Call& call);

  const int rank_;
  const std::shared_ptr<LocalGroupState> group_;
};

}  // namespace octet

#endif  // OCTET_WORKER_COMM_LOCAL_LOCAL_COMMUNICATOR_H_
