// octet info: state, topology, placement, memory per rank, and who computed how
// many tokens for which expert.
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "client/client.h"
#include "launch/command.h"
#include "launch/flags.h"
#include "launch/request_flags.h"

namespace octet {
namespace {

constexpr double kMiB = 1 << 20;

const char* StateName(v1::GroupState state) {
  switch (state) {
    case v1::GROUP_STATE_READY:
      return "ready";
    case v1::GROUP_STATE_FAILED:
      return "the last worker group failed";
    default:
      return "waiting for a worker group";
  }
}

void PrintInfo(const v1::GetInfoResponse& info) {
  const v1::ModelConfig& model = info.model();
  std::printf("octet %s, up %.0f s: %s\n", info.version().c_str(),
              info.uptime_seconds(), StateName(info.state()));
  if (info.state() == v1::GROUP_STATE_FAILED) {
    std::printf("last failure: %s\n", info.last_failure().message().c_str());
  }
  if (model.num_layers() > 0) {
    std::printf(
        "model %s: %d layers, hidden %d, %d experts of %d (top %d), %d/%d "
        "heads, vocabulary %d, context %d\n",
        info.model_name().c_str(), model.num_layers(), model.hidden_dim(),
        model.num_experts(), model.ffn_dim(), model.top_k(), model.num_heads(),
        model.num_kv_heads(), model.vocab_size(), model.max_position());
  }
  std::printf(
      "requests: %d running, %d waiting; %lld steps; tokens: %lld prompt (%lld "
      "more from the cache), "
      "%lld generated; KV blocks %lld of %lld in use; %lld preemptions\n",
      info.requests_running(), info.requests_waiting(),
      static_cast<long long>(info.steps()),
      static_cast<long long>(info.prompt_tokens()),
      static_cast<long long>(info.cached_tokens()),
      static_cast<long long>(info.generation_tokens()),
      static_cast<long long>(info.kv_blocks_used()),
      static_cast<long long>(info.kv_blocks_total()),
      static_cast<long long>(info.preemptions()));
}

std::string ExpertsOf(const v1::Topology& topology, int rank) {
  std::vector<int> experts;
  for (const v1::ExpertPlacement& placement : topology.placement()) {
    if (std::count(placement.ranks().begin(), placement.ranks().end(), rank) >
        0) {
      experts.push_back(placement.expert_id());
    }
  }
  return experts.empty() ? "none" : absl::StrJoin(experts, ",");
}

void PrintTopology(const v1::Topology& topology) {
  std::printf("\n%d ranks over %s, group %lld:\n", topology.ranks_size(),
              topology.transport().c_str(),
              static_cast<long long>(topology.epoch()));
  std::printf("  %-8s %-16s %8s  %-34s %12s %12s %10s  %s\n", "", "host", "pid",
              "device", "weights MiB", "KV cache MiB", "KV blocks", "experts");
  for (const v1::RankInfo& rank : topology.ranks()) {
    std::printf("  rank %-3d %-16s %8d  %-34s %12.1f %12.1f %10lld  %s\n",
                rank.rank(), rank.host().c_str(), rank.pid(),
                rank.device().c_str(), rank.weight_bytes() / kMiB,
                rank.kv_cache_bytes() / kMiB,
                static_cast<long long>(rank.num_kv_blocks()),
                ExpertsOf(topology, rank.rank()).c_str());
  }
}

// A bar of at most 20 marks, for eyes.
std::string Bar(int64_t value, int64_t largest) {
  return std::string(
      largest > 0 ? static_cast<size_t>(20 * value / largest) : 0, '#');
}

void PrintExpertStats(const v1::ExpertStats& stats) {
  if (stats.ranks().empty()) return;
  const int num_experts = stats.ranks(0).expert_tokens_size();
  std::printf(
      "\nrows computed, by rank (lines) and expert (columns), all layers "
      "together:\n  %-9s",
      "");
  for (int e = 0; e < num_experts; ++e)
    std::printf(" %9s", absl::StrCat("expert ", e).c_str());
  std::printf(" %12s %12s\n", "MiB sent", "MiB received");
  for (const v1::RankExpertStats& rank : stats.ranks()) {
    std::printf("  rank %-4d", rank.rank());
    for (int64_t tokens : rank.expert_tokens())
      std::printf(" %9lld", static_cast<long long>(tokens));
    std::printf(" %12.2f %12.2f\n", rank.bytes_sent() / kMiB,
                rank.bytes_received() / kMiB);
  }
  std::vector<int64_t> totals(num_experts, 0);
  for (const v1::LayerExpertStats& layer : stats.layers()) {
    for (int e = 0; e < layer.expert_tokens_size(); ++e)
      totals[e] += layer.expert_tokens(e);
  }
  const int64_t largest =
      totals.empty() ? 0 : *std::max_element(totals.begin(), totals.end());
  int64_t sum = 0;
  for (int64_t total : totals) sum += total;
  std::printf("\n");
  for (int e = 0; e < num_experts; ++e) {
    std::printf("  expert %-3d %9lld  %s\n", e,
                static_cast<long long>(totals[e]),
                Bar(totals[e], largest).c_str());
  }
  if (sum > 0) {
    std::printf("  imbalance (largest / mean): %.2f\n",
                static_cast<double>(largest) * num_experts / sum);
  }
}

template <typename Message>
void PrintJson(const Message& message) {
  std::string text;
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  if (google::protobuf::util::MessageToJsonString(message, &text, options).ok())
    std::printf("%s\n", text.c_str());
}

}  // namespace

absl::Status RunInfo(const Args& args) {
  std::string server = kDefaultServer;
  absl::Duration wait = absl::ZeroDuration();
  bool experts = false;
  bool json = false;
  Flags flags("octet info",
              "State, topology, placement, memory per rank and expert use of a "
              "service.");
  flags.Add("server", &server, "address of the service");
  flags.Add("wait", &wait,
            "first wait this long until a worker group is ready");
  flags.Add("experts", &experts,
            "also: rows computed per rank and expert, and bytes moved");
  flags.Add("json", &json, "print JSON objects, one a line");
  OCTET_ASSIGN_OR_RETURN(const bool go_on, flags.Parse(args));
  if (!go_on) return absl::OkStatus();

  Client client(server);
  if (wait > absl::ZeroDuration())
    OCTET_RETURN_IF_ERROR(client.WaitUntilReady(wait));
  OCTET_ASSIGN_OR_RETURN(const v1::GetInfoResponse info, client.GetInfo());
  json ? PrintJson(info) : PrintInfo(info);
  if (info.state() != v1::GROUP_STATE_READY) return absl::OkStatus();
  OCTET_ASSIGN_OR_RETURN(const v1::Topology topology, client.GetTopology());
  json ? PrintJson(topology) : PrintTopology(topology);
  if (!experts) return absl::OkStatus();
  OCTET_ASSIGN_OR_RETURN(const v1::ExpertStats stats, client.GetExpertStats());
  json ? PrintJson(stats) : PrintExpertStats(stats);
  return absl::OkStatus();
}

}  // namespace octet
