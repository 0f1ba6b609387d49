"""The same service over several hosts (network namespaces with their own host names): coordinator on the first host,
ranks by mpirun on all, answers equal to those of one process, bit by bit. Skipped where namespaces are not allowed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from foreign_client import ForeignClient
from octet_processes import BINARY_DIR, OCTET, SKIPPED, SOURCE_DIR, Process, Service, make_checkpoint

NETNS = SOURCE_DIR / "tests" / "integration" / "netns"
RANKS_PER_HOST = 2
PROMPTS = [[1, 17, 4], [1] + list(range(300, 360)), [1, 2500, 7, 7]]


def answers(client: ForeignClient) -> list[list]:
    """Token ids and log-probabilities of a few requests."""
    out = []
    for index, prompt in enumerate(PROMPTS):
        chunks = client.stream("octet.v1.Inference", "Generate", {
            "prompt": {"token_ids": {"ids": prompt}},
            "sampling": {"temperature": 0.8, "seed": str(index)},
            "stop": {"max_new_tokens": 10, "ignore_eos": True},
            "logprobs": 1,
        })
        out.append([[d["sampled"]["token_id"], d["sampled"]["logprob"]] for c in chunks for d in c["logprobs"]])
    return out


def serve_inside(model: str) -> None:
    """Runs on the first host: starts everything, asks, and prints what it saw as JSON."""
    with Process(OCTET, "coordinator", "--model", model, "--listen", "10.77.0.1:0") as coordinator:
        address = coordinator.wait_for(r"listening on (\S+)").group(1)
        with Process(NETNS / "mpirun_hosts", RANKS_PER_HOST, BINARY_DIR / "bin" / "octet-worker", "--model", model,
                     "--coordinator", address, "--threads", 1) as group:
            client = ForeignClient(address)
            for _ in range(600):
                if client.call("octet.v1.Cluster", "GetInfo")["state"] == "GROUP_STATE_READY":
                    break
                if group.process.poll() is not None:
                    raise AssertionError(group.output())
                try:
                    group.process.wait(0.05)
                except subprocess.TimeoutExpired:
                    pass
            topology = client.call("octet.v1.Cluster", "GetTopology")
            seen = {"hosts": [rank["host"] for rank in topology["ranks"]], "answers": answers(client)}
            client.close()
    print("SEEN " + json.dumps(seen))


class HostsTest(unittest.TestCase):
    def check(self, num_hosts: int) -> None:
        with tempfile.TemporaryDirectory() as directory:
            model = make_checkpoint(Path(directory) / "model", "--preset", "tiny")
            result = subprocess.run(
                [str(NETNS / "with_hosts"), str(num_hosts), sys.executable, "-B", __file__, "--inside", str(model)],
                capture_output=True, text=True, timeout=180, env=os.environ, check=False,
            )
            if result.returncode == SKIPPED:
                print(result.stderr, file=sys.stderr)
                raise unittest.SkipTest(result.stderr.strip())
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
            (line,) = [line for line in result.stdout.splitlines() if line.startswith("SEEN ")]
            seen = json.loads(line[5:])
            self.assertEqual(len(seen["hosts"]), num_hosts * RANKS_PER_HOST)
            self.assertEqual(len(set(seen["hosts"])), num_hosts)
            with Service(model, 1) as service:
                self.assertEqual(seen["answers"], answers(ForeignClient(service.address)))

    def test_two_hosts(self) -> None:
        self.check(2)

    def test_four_hosts(self) -> None:
        self.check(4)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        serve_inside(sys.argv[2])
        sys.exit(0)
    program = unittest.main(exit=False)
    everything_skipped = len(program.result.skipped) == program.result.testsRun
    sys.exit(SKIPPED if everything_skipped else not program.result.wasSuccessful())
