#include "launch/command.h"
#include "launch/shutdown_signal.h"

namespace {

constexpr octet::Command kCommands[] = {
    {"serve", "serve a model on this machine: coordinator and workers",
     octet::RunServe},
    {"coordinator", "only the coordinator; workers dial it",
     octet::RunCoordinator},
    {"worker", "one worker rank, under mpirun", octet::RunWorkerCommand},
    {"generate", "stream the continuation of a prompt", octet::RunGenerate},
    {"chat", "talk to the model, turn by turn", octet::RunChat},
    {"score", "log-probability per token and perplexity of a text",
     octet::RunScore},
    {"info", "state, topology, placement, memory and expert use",
     octet::RunInfo},
    {"train", "pre-train or fine-tune: all weights, some layers, or adapters",
     octet::RunTrain},
    {"merge", "fold an adapter into its base model", octet::RunMerge},
    {"init", "write a checkpoint of any shape with random weights",
     octet::RunInit},
    {"bench", "measure this machine's limits and the model's share of them",
     octet::RunBench},
};

}  // namespace

int main(int argc, char** argv) {
  octet::BlockShutdownSignals();  // before any thread starts, so that all
                                  // inherit it
  return octet::RunProgram(kCommands, octet::Args(argv + 1, argv + argc));
}
