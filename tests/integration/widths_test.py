"""Promise 1 through the whole service: the same bits for every number of ranks, transport and company.

Each width serves the same requests, once one by one and once all at the same time; token ids and
log-probabilities must be equal to those of one rank, exactly.
"""

from __future__ import annotations

import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from foreign_client import ForeignClient
from octet_processes import Service, make_checkpoint

WIDTHS = (1, 2, 3, 4, 7, 8, 12)
PROMPTS = [
    [1, 17, 4, 99, 1003],
    [1] + list(range(300, 391)),
    [1, 2500],
    [1] + [42] * 37,
    [1] + list(range(700, 720)),
]


def requests() -> list[dict]:
    made = []
    for index, prompt in enumerate(PROMPTS):
        made.append({
            "prompt": {"token_ids": {"ids": prompt}},
            "sampling": {"temperature": 0.0 if index % 2 else 0.9, "top_k": 50, "top_p": 0.95, "seed": str(index),
                         "repetition_penalty": 1.1},
            "stop": {"max_new_tokens": 12, "ignore_eos": True},
            "logprobs": 3,
        })
    return made


def answer(client: ForeignClient, request: dict) -> tuple:
    """Everything in a reply that may not depend on the width."""
    ids, logprobs = [], []
    for chunk in client.stream("octet.v1.Inference", "Generate", request):
        ids += chunk["token_ids"]
        for detail in chunk["logprobs"]:
            logprobs.append((detail["sampled"]["logprob"], [(t["token_id"], t["logprob"]) for t in detail["top"]]))
    return ids, logprobs


class WidthsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)

    def check(self, dtype: str, *flags: str) -> None:
        model = make_checkpoint(Path(self.directory.name) / dtype, "--preset", "tiny", "--dtype", dtype)
        expected = None
        for width in WIDTHS:
            with Service(model, width, *flags) as service:
                client = ForeignClient(service.address)
                alone = [answer(client, request) for request in requests()]
                with ThreadPoolExecutor(len(PROMPTS)) as pool:
                    together = list(pool.map(lambda request: answer(client, request), requests()))
                client.close()
            if expected is None:
                expected = alone
                self.assertEqual([len(ids) for ids, _ in alone], [12] * len(PROMPTS))
            self.assertEqual(alone, expected, f"{width} ranks, one by one")
            self.assertEqual(together, expected, f"{width} ranks, all at once")

    def test_threads_bf16(self) -> None:
        self.check("bf16")

    def test_threads_f32(self) -> None:
        self.check("f32")

    def test_processes_bf16(self) -> None:
        self.check("bf16", "--mpi")

    def test_threads_and_processes_agree(self) -> None:
        model = make_checkpoint(Path(self.directory.name) / "both", "--preset", "tiny")
        answers = []
        for flags in ((), ("--mpi",), ("--max-step-tokens", "7"), ("--kv-blocks", "16")):
            with Service(model, 2, *flags) as service:
                client = ForeignClient(service.address)
                with ThreadPoolExecutor(len(PROMPTS)) as pool:
                    answers.append(list(pool.map(lambda request: answer(client, request), requests())))
                client.close()
        for other in answers[1:]:
            self.assertEqual(other, answers[0])


if __name__ == "__main__":
    unittest.main()
