// How ranks that share a unique id find each other.

#include <cstring>

#include "tests/cuda_emulation/nccl/communicator.h"
#include "tests/cuda_emulation/nccl/world.h"

namespace cuda_emu {
namespace {

constexpr uint64_t kIdMagic = 0x6e63636c656d7531;
constexpr int kFirstTag = 1000;

// What is in an ncclUniqueId.
struct Id {
  uint64_t magic;
  int32_t root;  // world rank of the maker
  uint32_t serial;
};
static_assert(sizeof(Id) <= sizeof(ncclUniqueId));

Id Decode(const ncclUniqueId& unique) {
  Id id;
  std::memcpy(&id, &unique, sizeof(id));
  return id;
}

}  // namespace

bool IsUniqueId(const ncclUniqueId& id) { return Decode(id).magic == kIdMagic; }

ncclUniqueId MakeUniqueId() {
  static uint32_t serial = 0;
  const Id id{kIdMagic, GetWorld().rank, serial++};
  ncclUniqueId unique{};
  std::memcpy(&unique, &id, sizeof(id));
  return unique;
}

Bootstrap::Bootstrap(ncclComm* comm, const ncclUniqueId& unique) : comm_(comm) {
  const Id id = Decode(unique);
  root_ = id.root;
  // One pair of tags per id: one to the root, one for all that follows.
  hello_tag_ =
      kFirstTag + 2 * (static_cast<int>(id.serial) * GetWorld().size + id.root);
  comm_->tag = hello_tag_ + 1;
  comm_->world_ranks.assign(static_cast<size_t>(comm_->size), -1);
  mine_ = {comm_->rank, comm_->size, GetWorld().rank};
}

void Bootstrap::Take(const Hello& hello) {
  ++num_hellos_;
  int& place = comm_->world_ranks[static_cast<size_t>(hello.rank)];
  if (hello.size != comm_->size) {
    FailCommunicator(comm_, ncclInvalidUsage,
                     "ncclCommInitRank: rank " + std::to_string(hello.rank) +
                         " says there are " + std::to_string(hello.size) +
                         " ranks, rank " + std::to_string(comm_->rank) +
                         " says " + std::to_string(comm_->size));
  } else if (place >= 0) {
    FailCommunicator(comm_, ncclInvalidUsage,
                     "ncclCommInitRank: world ranks " + std::to_string(place) +
                         " and " + std::to_string(hello.world_rank) +
                         " both come as rank " + std::to_string(hello.rank));
  }
  place = hello.world_rank;
}

void Bootstrap::Start() {
  started_ = true;
  if (GetWorld().rank == root_) {
    Take(mine_);
    return;
  }
  requests_.resize(2);
  PMPI_Isend(&mine_, sizeof(mine_), MPI_BYTE, root_, hello_tag_,
             GetWorld().comm, &requests_[0]);
  PMPI_Irecv(comm_->world_ranks.data(), comm_->size, MPI_INT, root_, comm_->tag,
             GetWorld().comm, &requests_[1]);
}

bool Bootstrap::StepRoot() {
  while (num_hellos_ < comm_->size) {
    int found = 0;
    MPI_Message message;
    PMPI_Improbe(MPI_ANY_SOURCE, hello_tag_, GetWorld().comm, &found, &message,
                 MPI_STATUS_IGNORE);
    if (!found) return false;
    Hello hello;
    PMPI_Mrecv(&hello, sizeof(hello), MPI_BYTE, &message, MPI_STATUS_IGNORE);
    Take(hello);
    if (comm_->async_error != ncclSuccess) return true;
  }
  if (requests_.empty()) {
    for (const int world_rank : comm_->world_ranks) {
      if (world_rank == root_) continue;
      PMPI_Isend(comm_->world_ranks.data(), comm_->size, MPI_INT, world_rank,
                 comm_->tag, GetWorld().comm, &requests_.emplace_back());
    }
  }
  return StepOther();
}

bool Bootstrap::StepOther() {
  int done = 1;
  if (!requests_.empty()) {
    PMPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done,
                 MPI_STATUSES_IGNORE);
  }
  comm_->ready = done != 0;
  return comm_->ready;
}

bool Bootstrap::Step() {
  if (!started_) Start();
  if (comm_->async_error != ncclSuccess) return true;
  return GetWorld().rank == root_ ? StepRoot() : StepOther();
}

std::string Bootstrap::Waiting() const {
  std::string text = "ncclCommInitRank: rank " + std::to_string(comm_->rank) +
                     " of " + std::to_string(comm_->size);
  if (GetWorld().rank == root_) {
    return text + " has heard of " + std::to_string(num_hellos_) +
           " ranks only";
  }
  return text + " hears nothing from the rank that made the id (world rank " +
         std::to_string(root_) + ")";
}

}  // namespace cuda_emu
