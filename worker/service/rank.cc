#include "worker/service/rank.h"

#include <unistd.h>

#include <algorithm>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "kernels/cpu/cpu_backend.h"
#include "worker/checkpoint/hf_checkpoint.h"
#include "worker/checkpoint/hf_loader.h"
#include "worker/comm/group_messages.h"
#include "worker/service/coordinator_link.h"
#include "worker/service/host_memory.h"

namespace octet {
namespace {

v1::ModelConfig ToProto(const ModelConfig& config, DType dtype) {
  v1::ModelConfig out;
  out.set_vocab_size(static_cast<int32_t>(config.vocab_size));
  out.set_hidden_dim(static_cast<int32_t>(config.hidden_dim));
  out.set_ffn_dim(static_cast<int32_t>(config.ffn_dim));
  out.set_num_layers(config.num_layers);
  out.set_num_heads(config.num_heads);
  out.set_num_kv_heads(config.num_kv_heads);
  out.set_head_dim(config.head_dim);
  out.set_num_experts(config.num_experts);
  out.set_top_k(config.top_k);
  out.set_max_position(static_cast<int32_t>(config.max_position));
  out.set_sliding_window(config.sliding_window);
  out.set_rms_norm_eps(config.rms_norm_eps);
  out.set_rope_theta(config.rope_theta);
  out.set_tie_word_embeddings(config.tie_word_embeddings);
  out.set_weight_dtype(dtype == DType::kF32 ? v1::DATA_TYPE_F32
                                            : v1::DATA_TYPE_BF16);
  out.set_bos_token_id(config.bos_token_id);
  for (int id : config.eos_token_ids) out.add_eos_token_ids(id);
  return out;
}

// A line for each tenth of the bytes read, once loading takes longer than a
// person waits without asking.
std::function<void(int64_t, int64_t)> LogProgress() {
  return [tenths = int64_t{0}, quiet_until = absl::Now() + absl::Seconds(2)](
             int64_t done, int64_t total) mutable {
    const int64_t now = total > 0 ? 10 * done / total : 10;
    if (now == tenths || absl::Now() < quiet_until) return;
    tenths = now;
    OCTET_LOG(INFO) << "loaded " << now * 10 << "% of " << (total >> 20)
                    << " MiB";
  };
}

}  // namespace

absl::StatusOr<std::unique_ptr<Rank>> Rank::Create(const WorkerOptions& options,
                                                   Communicator* communicator) {
  std::unique_ptr<Rank> rank(new Rank(options, communicator));
  OCTET_ASSIGN_OR_RETURN(rank->config_, LoadModelConfig(options.model_dir));
  OCTET_ASSIGN_OR_RETURN(
      rank->placement_,
      Placement::Parse(options.placement, rank->config_.num_experts,
                       communicator->size()));
  OCTET_RETURN_IF_ERROR(rank->NewBackend());
  OCTET_RETURN_IF_ERROR(rank->LoadWeights());
  // Ranks that are still loading count as memory in use only when they are
  // done.
  OpInfo op;
  op.operation = "load";
  op.timeout = options.load_timeout;
  OCTET_RETURN_IF_ERROR(communicator->Barrier(op));
  OCTET_RETURN_IF_ERROR(rank->NewCache());
  OCTET_RETURN_IF_ERROR(rank->NewEngine());
  rank->NewTrainer();
  return rank;
}

absl::Status Rank::NewBackend() {
  if (options_.device.new_backend) {
    OCTET_ASSIGN_OR_RETURN(backend_, options_.device.new_backend());
    return absl::OkStatus();
  }
  CpuBackendOptions backend;
  backend.num_threads =
      options_.num_threads > 0
          ? options_.num_threads
          : std::max(1, static_cast<int>(std::thread::hardware_concurrency()) /
                            RanksOnHost());
  if (options_.isa.has_value()) backend.isa = *options_.isa;
  OCTET_ASSIGN_OR_RETURN(backend_, NewCpuBackend(backend));
  return absl::OkStatus();
}

int Rank::RanksOnHost() const {
  const std::string own = communicator_->host(communicator_->rank());
  int count = 0;
  for (int rank = 0; rank < communicator_->size(); ++rank) {
    count += communicator_->host(rank) == own;
  }
  return count;
}

absl::Status Rank::LoadWeights() {
  OCTET_ASSIGN_OR_RETURN(const std::unique_ptr<HfCheckpoint> checkpoint,
                         HfCheckpoint::Open(options_.model_dir));
  LoadOptions load;
  load.dtype = options_.dtype;
  load.quantization = options_.quantization;
  load.cancelled = options_.cancelled;
  const absl::Span<const int> experts =
      placement_->LocalExperts(communicator_->rank());
  load.expert_ids.assign(experts.begin(), experts.end());
  if (communicator_->rank() == 0) load.progress = LogProgress();
  OCTET_ASSIGN_OR_RETURN(weights_,
                         LoadMixtral(*checkpoint, config_, *backend_, load));
  return absl::OkStatus();
}

absl::Status Rank::NewCache() {
  const int64_t block_bytes =
      KvCache::BytesPerBlock(config_, weights_.dtype, options_.kv_block_tokens);
  int64_t bytes = options_.kv_blocks > 0 ? options_.kv_blocks * block_bytes
                                         : options_.kv_cache_bytes;
  if (bytes == 0) {
    int64_t available = AvailableHostBytes();
    int sharing = RanksOnHost();
    if (options_.device.free_bytes) {
      OCTET_ASSIGN_OR_RETURN(available, options_.device.free_bytes());
      sharing = 1;
    }
    bytes = DefaultKvCacheBytes(available, sharing, block_bytes,
                                options_.kv_block_tokens, config_.max_position);
  }
  if (bytes < block_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "KV cache of ", bytes, " bytes, expected at least ", block_bytes,
        " for one block of ", options_.kv_block_tokens, " tokens"));
  }
  const int64_t num_blocks = bytes / block_bytes;
  if (num_blocks > kMaxKvBlocks) {
    return absl::InvalidArgumentError(
        absl::StrCat("KV cache of ", num_blocks, " blocks, expected at most ",
                     kMaxKvBlocks, ": use larger blocks or less memory"));
  }
  OCTET_ASSIGN_OR_RETURN(
      cache_, KvCache::Create(*backend_, config_, weights_.dtype, num_blocks,
                              options_.kv_block_tokens));
  return absl::OkStatus();
}

absl::Status Rank::NewEngine() {
  TransformerLimits limits;
  limits.max_step_tokens = options_.max_step_tokens;
  limits.moe_chunks = options_.moe_chunks;
  OCTET_ASSIGN_OR_RETURN(
      transformer_,
      Transformer::Create(backend_.get(), communicator_, config_, &*placement_,
                          &weights_, &*cache_, limits));
  PlanLimits plan;
  plan.vocab_size = config_.vocab_size;
  plan.max_position = config_.max_position;
  plan.max_step_tokens = options_.max_step_tokens;
  plan.block_tokens = options_.kv_block_tokens;
  plan.rank_blocks.resize(communicator_->size());
  const int64_t own_blocks = cache_->num_blocks();
  OpInfo op;
  op.operation = "cache sizes";
  OCTET_RETURN_IF_ERROR(communicator_->AllGather(
      &own_blocks, plan.rank_blocks.data(), sizeof(own_blocks), op));
  engine_ = std::make_unique<Engine>(backend_.get(), transformer_.get(),
                                     communicator_->rank(), std::move(plan));
  return absl::OkStatus();
}

void Rank::NewTrainer() {
  RankModel model;
  model.backend = backend_.get();
  model.communicator = communicator_;
  model.config = &config_;
  model.placement = &*placement_;
  model.weights = &weights_;
  trainer_ = std::make_unique<Trainer>(model, [this] { return Environment(); });
}

TrainingEnvironment Rank::Environment() const {
  TrainingEnvironment environment;
  environment.checkpoint_dir = options_.model_dir;
  environment.save_bytes_per_second = options_.save_bytes_per_second;
  environment.memory.kv_cache_bytes = cache_->size_bytes();
  environment.memory.available_bytes = AvailableHostBytes() / RanksOnHost();
  if (options_.device.free_bytes) {
    environment.memory.host_available_bytes =
        environment.memory.available_bytes;
    // Unknown is 0: nothing is refused then.
    environment.memory.available_bytes =
        options_.device.free_bytes().value_or(0);
  }
  return environment;
}

v1::RankInfo Rank::Info() const {
  v1::RankInfo info;
  info.set_rank(communicator_->rank());
  info.set_host(communicator_->host(communicator_->rank()));
  info.set_pid(getpid());
  info.set_device(backend_->Description());
  info.set_weight_bytes(weights_.num_bytes());
  info.set_kv_cache_bytes(cache_->size_bytes());
  info.set_workspace_bytes(transformer_->workspace_bytes());
  info.set_num_kv_blocks(cache_->num_blocks());
  info.set_resident_bytes(ResidentBytes());
  return info;
}

absl::StatusOr<std::optional<v1::Hello>> Rank::MakeHello() {
  OpInfo op;
  op.operation = "rank infos";
  OCTET_ASSIGN_OR_RETURN(
      const std::vector<std::string> infos,
      GatherMessages(*communicator_, Info().SerializeAsString(), op));
  if (communicator_->rank() != 0) return std::nullopt;
  v1::Hello hello;
  hello.set_protocol_version(kWorkerProtocolVersion);
  *hello.mutable_model() = ToProto(config_, weights_.dtype);
  hello.set_max_step_tokens(static_cast<int32_t>(options_.max_step_tokens));
  v1::Topology& topology = *hello.mutable_topology();
  topology.set_transport(std::string(communicator_->transport()));
  topology.set_kv_block_tokens(options_.kv_block_tokens);
  for (size_t rank = 0; rank < infos.size(); ++rank) {
    if (!topology.add_ranks()->ParseFromString(infos[rank])) {
      return absl::InternalError(
          absl::StrCat("rank ", rank, " sent ", infos[rank].size(),
                       " bytes that are not a RankInfo"));
    }
  }
  for (int expert = 0; expert < config_.num_experts; ++expert) {
    v1::ExpertPlacement* entry = topology.add_placement();
    entry->set_expert_id(expert);
    for (int rank : placement_->RanksOf(expert)) entry->add_ranks(rank);
  }
  return hello;
}

}  // namespace octet
