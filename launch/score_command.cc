// octet score: log-probability of every token of a text, and the perplexity of
// a file.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
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

// A text longer than `window` tokens is scored window by window, each starting
// afresh with BOS; only the first token of the text, which has no context, is
// left out.
absl::Status ScoreText(Client& client, const std::string& text, int window,
                       bool print_tokens) {
  v1::TokenizeRequest tokenize;
  tokenize.set_text(text);
  OCTET_ASSIGN_OR_RETURN(const v1::TokenizeResponse tokens,
                         client.Tokenize(tokenize));
  OCTET_ASSIGN_OR_RETURN(const v1::GetInfoResponse info, client.GetInfo());
  const int bos = info.model().bos_token_id();
  const int count = tokens.token_ids_size();
  if (count == 0)
    return absl::InvalidArgumentError(
        "octet score: the text is empty, expected at least one token");
  Progress progress("scoring", count, "tokens");
  Total total;
  for (int begin = 0; begin < count; begin += window) {
    v1::ScoreRequest request;
    v1::TokenIds& ids = *request.mutable_prompt()->mutable_token_ids();
    if (bos >= 0) ids.add_ids(bos);
    const int end = std::min(count, begin + window);
    for (int i = begin; i < end; ++i) ids.add_ids(tokens.token_ids(i));
    OCTET_ASSIGN_OR_RETURN(const v1::ScoreResponse response,
                           client.Score(request));
    for (int i = 1; i < response.tokens_size(); ++i)
      total.Add(response.tokens(i).sampled().logprob());
    progress.Update(end);
    if (print_tokens) PrintTokens(response);
  }
  progress.Finish();
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
  bool print_tokens = false;
  Flags flags("octet score",
              "Log-probability per token of a text and its perplexity.");
  flags.Add("server", &server, "address of the service");
  flags.Add("text", &text, "the text to score");
  flags.Add("file", &file, "a file to score; - for standard input");
  flags.Add("window", &window,
            "tokens per window; each starts afresh after BOS", {.min = 1});
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
  return ScoreText(client, text, window, print_tokens);
}

}  // namespace octet
