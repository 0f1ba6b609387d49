// octet score: log-probability of every token of a text, and the perplexity of
// a file.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/synchronization/mutex.h"
#include "base/status_macros.h"
#include "client/client.h"
#include "launch/command.h"
#include "launch/files.h"
#include "launch/flags.h"
#include "launch/progress.h"
#include "launch/request_flags.h"

namespace octet {
namespace {

// Sums over the scored tokens of all windows.
struct Total {
  double sum_logprob = 0;
  double sum_square = 0;
  int64_t tokens = 0;

  void Add(double logprob) {
    sum_logprob += logprob;
    sum_square += logprob * logprob;
    ++tokens;
  }
};

void PrintTokens(const v1::ScoreResponse& response) {
  for (int i = 0; i < response.tokens_size(); ++i) {
    const v1::TokenLogprob& token = response.tokens(i).sampled();
    const std::string text = absl::StrReplaceAll(token.text(), {{"\n", "\\n"}});
    if (i == 0) {
      std::printf("%8d  %10s  %s\n", token.token_id(), "-", text.c_str());
    } else {
      std::printf("%8d  %10.4f  %s\n", token.token_id(), token.logprob(),
                  text.c_str());
    }
  }
}

void PrintTotal(const Total& total) {
  const double mean = total.sum_logprob / total.tokens;
  const double variance =
      std::max(0.0, total.sum_square / total.tokens - mean * mean);
  const double perplexity = std::exp(-mean);
  const double error = perplexity * std::sqrt(variance / total.tokens);
  std::printf(
      "tokens scored     %lld\nmean log-prob     %.6f\nperplexity        %.4f "
      "+- %.4f\n",
      static_cast<long long>(total.tokens), mean, perplexity, error);
}

// A text cut into windows of at most `window` tokens. Each is scored afresh
// after BOS; where a model has none, a window's first token has no context and
// does not count. `parallel` windows are in flight at a time, so that the
// service's ranks all have work.
class WindowScorer {
 public:
  WindowScorer(Client& client, std::vector<int32_t> tokens, int bos, int window)
      : client_(client),
        tokens_(std::move(tokens)),
        bos_(bos),
        window_(window),
        num_windows_((tokens_.size() + window - 1) / window),
        responses_(num_windows_),
        progress_("scoring", tokens_.size(), "tokens") {}

  // Responses in the order of the text, or the first window's error.
  absl::StatusOr<std::vector<v1::ScoreResponse>> Run(int parallel) {
    std::vector<std::thread> threads;
    for (int i = 0; i < parallel; ++i) {
      threads.emplace_back([this] { Work(); });
    }
    for (std::thread& thread : threads) thread.join();
    absl::MutexLock lock(&mutex_);
    OCTET_RETURN_IF_ERROR(error_);
    progress_.Finish();
    return std::move(responses_);
  }

 private:
  void Work() {
    while (true) {
      const size_t index = next_++;
      if (index >= num_windows_) return;
      const absl::StatusOr<v1::ScoreResponse> response =
          client_.Score(MakeRequest(index));
      absl::MutexLock lock(&mutex_);
      if (!response.ok()) {
        if (error_.ok()) error_ = response.status();
        next_ = num_windows_;  // nobody starts another
        return;
      }
      responses_[index] = *response;
      done_ += response->tokens_size() - (bos_ >= 0);
      progress_.Update(done_);
    }
  }

  v1::ScoreRequest MakeRequest(size_t index) const {
    v1::ScoreRequest request;
    v1::TokenIds& ids = *request.mutable_prompt()->mutable_token_ids();
    if (bos_ >= 0) ids.add_ids(bos_);
    const size_t begin = index * window_;
    const size_t end = std::min(tokens_.size(), begin + window_);
    for (size_t i = begin; i < end; ++i) ids.add_ids(tokens_[i]);
    return request;
  }

  Client& client_;
  const std::vector<int32_t> tokens_;
  const int bos_;
  const size_t window_;
  const size_t num_windows_;
  std::atomic<size_t> next_{0};
  absl::Mutex mutex_;
  std::vector<v1::ScoreResponse> responses_ ABSL_GUARDED_BY(mutex_);
  absl::Status error_ ABSL_GUARDED_BY(mutex_);
  int64_t done_ ABSL_GUARDED_BY(mutex_) = 0;
  Progress progress_ ABSL_GUARDED_BY(mutex_);
};

absl::Status ScoreText(Client& client, const std::string& text, int window,
                       int parallel, bool print_tokens) {
  v1::TokenizeRequest tokenize;
  tokenize.set_text(text);
  OCTET_ASSIGN_OR_RETURN(const v1::TokenizeResponse tokens,
                         client.Tokenize(tokenize));
  OCTET_ASSIGN_OR_RETURN(const v1::GetInfoResponse info, client.GetInfo());
  if (tokens.token_ids().empty()) {
    return absl::InvalidArgumentError(
        "octet score: the text is empty, expected at least one token");
  }
  WindowScorer scorer(client,
                      {tokens.token_ids().begin(), tokens.token_ids().end()},
                      info.model().bos_token_id(), window);
  OCTET_ASSIGN_OR_RETURN(const std::vector<v1::ScoreResponse> responses,
                         scorer.Run(parallel));
  Total total;
  for (const v1::ScoreResponse& response : responses) {
    for (int i = 1; i < response.tokens_size(); ++i) {
      total.Add(response.tokens(i).sampled().logprob());
    }
    if (print_tokens) PrintTokens(response);
  }
  if (total.tokens == 0) {
    return absl::InvalidArgumentError(
        "octet score: the text has one token and the model no BOS: nothing to "
        "score");
  }
  PrintTotal(total);
  return absl::OkStatus();
}

}  // namespace

absl::Status RunScore(const Args& args) {
  std::string server = kDefaultServer;
  std::string text;
  std::string file;
  int window = 512;
  int parallel = 8;
  bool print_tokens = false;
  Flags flags("octet score",
              "Log-probability per token of a text and its perplexity.");
  flags.Add("server", &server, "address of the service");
  flags.Add("text", &text, "the text to score");
  flags.Add("file", &file, "a file to score; - for standard input");
  flags.Add("window", &window,
            "tokens per window; each starts afresh after BOS", {.min = 1});
  flags.Add("parallel", &parallel, "windows in flight at a time",
            {.min = 1, .max = 256});
  flags.Add("tokens", &print_tokens,
            "print every token with its log-probability");
  OCTET_ASSIGN_OR_RETURN(const bool go_on, flags.Parse(args));
  if (!go_on) return absl::OkStatus();
  if (text.empty() == file.empty()) {
    return absl::InvalidArgumentError(
        "octet score: expected one of --text and --file");
  }
  if (!file.empty()) {
    OCTET_ASSIGN_OR_RETURN(text, ReadTextFile(file));
  }
  Client client(server);
  return ScoreText(client, text, window, parallel, print_tokens);
}

}  // namespace octet
