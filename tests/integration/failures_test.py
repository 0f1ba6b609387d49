"""A worker group that loses a rank: clients get a typed error that names rank and operation, the coordinator stays,
and the next group serves again."""

from __future__ import annotations

import os
import signal
import tempfile
import time
import unittest
from pathlib import Path

import grpc

from foreign_client import ForeignClient
from octet_processes import OCTET, Process, descendants, is_running, make_checkpoint

RANKS = 4
LONG = {
    "prompt": {"token_ids": {"ids": [1, 5, 6, 7]}},
    "sampling": {"temperature": 0.0},
    "stop": {"max_new_tokens": 480, "ignore_eos": True},
}


class FailuresTest(unittest.TestCase):
    def setUp(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.model = make_checkpoint(Path(self.directory.name) / "model", "--preset", "tiny")
        self.coordinator = Process(OCTET, "coordinator", "--model", self.model, "--listen", "127.0.0.1:0")
        self.addCleanup(self.coordinator.stop)
        self.address = self.coordinator.wait_for(r"listening on (\S+)").group(1)
        self.client = ForeignClient(self.address)
        self.addCleanup(self.client.close)

    def start_group(self) -> Process:
        group = Process(
            "mpirun", "--oversubscribe", "--bind-to", "none", "-n", RANKS, OCTET, "worker",
            "--model", self.model, "--coordinator", self.address, "--collective-timeout", "3s",
        )
        self.addCleanup(group.stop)
        self.wait_for_state("GROUP_STATE_READY")
        return group

    def info(self) -> dict:
        return self.client.call("octet.v1.Cluster", "GetInfo")

    def health(self) -> str:
        return self.client.call("grpc.health.v1.Health", "Check", {"service": "octet.v1.Inference"})["status"]

    def wait_for_state(self, state: str) -> dict:
        for _ in range(400):
            info = self.info()
            if info["state"] == state:
                return info
            time.sleep(0.05)
        self.fail(f"state is {info['state']} after 20 s, expected {state}")

    def rank_pid(self, rank: int) -> int:
        return self.client.call("octet.v1.Cluster", "GetTopology")["ranks"][rank]["pid"]

    def break_rank(self, rank: int, how: signal.Signals) -> tuple[str, float]:
        """Signals a rank in mid-stream; the error the client sees, and the seconds until it came."""
        pid = self.rank_pid(rank)
        stream = iter(self.client.open_stream("octet.v1.Inference", "Generate", LONG))
        next(stream)
        os.kill(pid, how)
        start = time.monotonic()
        with self.assertRaises(grpc.RpcError) as caught:
            for _ in stream:
                pass
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE, caught.exception.details())
        return caught.exception.details(), time.monotonic() - start

    def expect_recovery(self, first_epoch: str) -> None:
        failed = self.wait_for_state("GROUP_STATE_FAILED")
        self.assertNotEqual(failed["last_failure"]["message"], "")
        self.assertEqual(self.health(), "NOT_SERVING")
        self.assertEqual(failed["kv_blocks_used"], "0")
        with self.assertRaises(grpc.RpcError) as caught:
            list(self.client.open_stream("octet.v1.Inference", "Generate", LONG))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
        self.start_group()
        self.assertEqual(self.health(), "SERVING")
        topology = self.client.call("octet.v1.Cluster", "GetTopology")
        self.assertEqual(int(topology["epoch"]), int(first_epoch) + 1)
        short = LONG | {"stop": {"max_new_tokens": 4, "ignore_eos": True}}
        ids = [i for c in self.client.stream("octet.v1.Inference", "Generate", short) for i in c["token_ids"]]
        self.assertEqual(len(ids), 4)

    def check(self, rank: int, how: signal.Signals, named_rank: int) -> None:
        group = self.start_group()
        epoch = self.client.call("octet.v1.Cluster", "GetTopology")["epoch"]
        details, seconds = self.break_rank(rank, how)
        self.assertRegex(details, rf"ranks? [\d, ]*\b{named_rank}\b")
        self.assertRegex(details, "route|dispatch|combine|plan|result|connection")
        self.assertLess(seconds, 15)
        pids = descendants(group.process.pid)
        group.process.wait(20)
        self.assertNotEqual(group.process.returncode, 0)
        for _ in range(50):
            left = [pid for pid in pids if is_running(pid)]
            if not left:
                break
            time.sleep(0.1)
        self.assertEqual(left, [], "ranks outlived their group")
        self.expect_recovery(epoch)

    def test_killed_rank(self) -> None:
        self.check(2, signal.SIGKILL, named_rank=2)

    def test_stalled_rank(self) -> None:
        self.check(3, signal.SIGSTOP, named_rank=3)

    def test_killed_rank_zero(self) -> None:
        self.check(0, signal.SIGKILL, named_rank=0)

    def test_a_second_group_is_refused(self) -> None:
        self.start_group()
        second = Process("mpirun", "-n", 1, OCTET, "worker", "--model", self.model, "--coordinator", self.address,
                         "--connect-timeout", "2s")
        self.addCleanup(second.stop)
        second.process.wait(60)
        self.assertNotEqual(second.process.returncode, 0)
        self.assertIn("is connected, expected none", second.output())
        self.assertEqual(self.info()["state"], "GROUP_STATE_READY")


if __name__ == "__main__":
    unittest.main()
