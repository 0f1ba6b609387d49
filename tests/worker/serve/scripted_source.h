// A PlanSource that plays a list of plans and keeps what comes back.
#ifndef OCTET_TESTS_WORKER_SERVE_SCRIPTED_SOURCE_H_
#define OCTET_TESTS_WORKER_SERVE_SCRIPTED_SOURCE_H_

#include <functional>
#include <optional>
#include <utility>
#include <vector>

#include "worker/serve/group_loop.h"

namespace octet::test {

class ScriptedSource : public PlanSource {
 public:
  explicit ScriptedSource(std::vector<v1::Plan> plans)
      : plans_(std::move(plans)) {}

  // Called before each plan is handed out, with its index.
  std::function<void(size_t)> before_plan;

  std::optional<v1::Plan> Next() override {
    if (next_ == plans_.size()) return std::nullopt;
    if (before_plan) before_plan(next_);
    return plans_[next_++];
  }
  void SendResult(const v1::StepResult& result) override {
    results.push_back(result);
  }
  void SendFailure(const v1::GroupFailure& failure) override {
    failures.push_back(failure);
  }

  std::vector<v1::StepResult> results;
  std::vector<v1::GroupFailure> failures;

 private:
  const std::vector<v1::Plan> plans_;
  size_t next_ = 0;
};

}  // namespace octet::test

#endif  // OCTET_TESTS_WORKER_SERVE_SCRIPTED_SOURCE_H_
