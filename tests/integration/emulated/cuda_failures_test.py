"""A rank that goes wrong on its GPU while the service generates: client and coordinator get, within the deadline, an error
that names the rank, the operation and its layer; so does every surviving rank, with the operation that it was in (ranks
that exchange no rows with the failed one are in a later one); and a new group serves again.

The failing group of sends and receives is chosen so that it is the combine of layer 1 in the prompt's step: on rank 1, which
has experts and no token, dispatch and combine of layer 0 and the dispatch of layer 1 come before.
"""

from __future__ import annotations

import re
import time
import unittest

import grpc

from cuda_group import CudaGroupTest, golden_tokens

CASE = "e8k2_old"
TIMEOUT = 3
FAILED_GROUP = "4"


class CudaFailuresTest(CudaGroupTest):
    def generate(self) -> list[int]:
        request = {
            "prompt": {"token_ids": {"ids": golden_tokens(CASE, "short/input_ids")}},
            "sampling": {"temperature": 0.0},
            "stop": {"max_new_tokens": 8, "ignore_eos": True},
        }
        return [i for c in self.client.stream("octet.v1.Inference", "Generate", request) for i in c["token_ids"]]

    def check(self, fault: str, ranks: int, culprit: str, seconds: float) -> None:
        """`culprit`: a pattern that names the rank in everybody's error."""
        sentence = rf"combine of layer 1 in step \d+ .*{culprit}"
        self.start_coordinator(CASE)
        group = self.start_group(
            ranks, "--collective-timeout", f"{TIMEOUT}s", CUDA_EMU_NCCL_ERRORS="async", CUDA_EMU_NCCL_FAULT=fault,
            CUDA_EMU_NCCL_FAULT_RANK="1", CUDA_EMU_NCCL_FAULT_GROUP=FAILED_GROUP)
        start = time.monotonic()
        with self.assertRaises(grpc.RpcError) as caught:
            self.generate()
        self.assertLess(time.monotonic() - start, seconds)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
        self.assertRegex(caught.exception.details(), sentence)
        self.assertRegex(self.client.call("octet.v1.Cluster", "GetInfo")["last_failure"]["message"], sentence)
        group.process.wait(30)
        self.assertNotEqual(group.process.returncode, 0)
        said = {int(rank) for rank in re.findall(rf"^rank (\d+): .* in step \d+ .*{culprit}", group.output(), re.MULTILINE)}
        survivors = set(range(ranks)) - ({1} if fault != "count" else set())
        self.assertEqual(said & survivors, survivors, group.output())
        group.stop()
        self.start_group(2)
        self.assertEqual(self.generate(), golden_tokens(CASE, "short/greedy_ids")[:8])

    def test_mismatch(self) -> None:
        self.check("count", 2, r"mismatch: rank 0 of 2 receives \d+ x int8 from rank 1", TIMEOUT)

    def test_stopped_rank(self) -> None:
        for ranks in (2, 4):
            with self.subTest(ranks):
                self.check("stop", ranks, r"for rank 1: ", TIMEOUT + 5)

    def test_killed_rank(self) -> None:
        for ranks in (2, 4):
            with self.subTest(ranks):
                self.check("kill", ranks, r"no answer from rank 1$", TIMEOUT + 5)


if __name__ == "__main__":
    unittest.main()
