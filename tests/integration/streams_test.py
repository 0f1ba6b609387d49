"""64 concurrent streams of mixed lengths, some cancelled, some from clients that vanish: every stream that ends is
equal to its own single run, no KV block leaks, and the server's memory stays flat."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from foreign_client import ForeignClient
from octet_processes import Service, make_checkpoint, resident_bytes

STREAMS = 64
ROUNDS = 3
# A client that reads one chunk and is killed: the server must notice by itself.
VANISHING_CLIENT = """
import os, sys
from foreign_client import ForeignClient
stream = ForeignClient(sys.argv[1]).open_stream("octet.v1.Inference", "Generate",
    {"prompt": {"text": "gone"}, "stop": {"max_new_tokens": 300, "ignore_eos": True}})
next(iter(stream))
os._exit(0)
"""


def request(index: int) -> dict:
    draw = random.Random(index)
    prompt = [1] + [draw.randrange(300, 2000) for _ in range(draw.choice([3, 9, 40, 130]))]
    return {
        "prompt": {"token_ids": {"ids": prompt}},
        "sampling": {"temperature": 0.7, "seed": str(index)},
        "stop": {"max_new_tokens": draw.choice([1, 10, 50, 120]), "ignore_eos": True},
    }


class StreamsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        model = make_checkpoint(Path(self.directory.name) / "model", "--preset", "tiny")
        # Few blocks, so that streams also meet preemption.
        self.service = Service(model, 3, "--kv-blocks", "24", "--max-waiting", "256")
        self.addCleanup(self.service.stop)
        self.client = ForeignClient(self.service.address)

    def run_stream(self, index: int, cancel_after: int | None = None) -> list[int]:
        call = self.client.open_stream("octet.v1.Inference", "Generate", request(index))
        ids: list[int] = []
        try:
            for chunk in call:
                ids += chunk.token_ids
                if cancel_after is not None and len(ids) >= cancel_after:
                    call.cancel()
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.CANCELLED or cancel_after is None:
                raise
        return ids

    def info(self) -> dict:
        return self.client.call("octet.v1.Cluster", "GetInfo")

    def wait_until_idle(self) -> dict:
        for _ in range(200):
            info = self.info()
            if not info["requests_running"] and not info["requests_waiting"] and info["kv_blocks_used"] == "0":
                return info
            time.sleep(0.05)
        self.fail(f"not idle after 10 s: {info}")

    def test_streams(self) -> None:
        expected = [self.run_stream(index) for index in range(STREAMS)]
        memory = []
        for round_index in range(ROUNDS):
            draw = random.Random(round_index)
            cancels = [draw.choice([None, None, 1, 5]) for _ in range(STREAMS)]
            vanishing = [
                subprocess.Popen([sys.executable, "-B", "-c", VANISHING_CLIENT, self.service.address],
                                 cwd=Path(__file__).parent)
                for _ in range(2)
            ]
            with ThreadPoolExecutor(STREAMS) as pool:
                answers = list(pool.map(self.run_stream, range(STREAMS), cancels))
            for process in vanishing:
                self.assertEqual(process.wait(60), 0)
            for index, (got, cancel) in enumerate(zip(answers, cancels)):
                if cancel is None:
                    self.assertEqual(got, expected[index], f"stream {index} of round {round_index}")
                else:
                    self.assertEqual(got, expected[index][: len(got)], f"cancelled stream {index}")
            self.wait_until_idle()
            memory.append(resident_bytes(self.service.process.pid))
        self.assertGreater(int(self.info()["preemptions"]), 0, "the workload was meant to meet preemption")
        # The first round may still grow allocators' pools; after it, no trend.
        self.assertLess(memory[-1] - memory[0], 24 << 20, f"resident bytes after each round: {memory}")


if __name__ == "__main__":
    unittest.main()
