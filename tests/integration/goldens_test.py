"""Through the whole service, every golden checkpoint (tests/golden) continues as transformers says, and scores its
prompts alike. The checkpoints have no tokenizer, so this also is the service by token ids alone."""

from __future__ import annotations

import math
import unittest
from pathlib import Path

from foreign_client import ForeignClient
from octet_processes import SOURCE_DIR, Service
from safetensors_file import read_tensor

GOLDEN = SOURCE_DIR / "tests" / "golden"
# Log-probabilities are differences of logits up to about 30, so a relative error of 1e-4 of the logits shows as 3e-3 at
# worst; bf16 rounds every activation to 8 bits (tests/golden/README.md: transformers itself is off by 6e-2 of them).
TOLERANCE = {"f32": 3e-3, "bf16": 1.0}


class GoldensTest(unittest.TestCase):
    def test_every_checkpoint(self) -> None:
        cases = sorted(path.parent for path in GOLDEN.glob("*/golden.safetensors"))
        self.assertGreaterEqual(len(cases), 10)
        for index, case in enumerate(cases):
            for dtype in ("f32", "bf16") if "bf16" in case.name else ("f32",):
                with self.subTest(f"{case.name} in {dtype}"), Service(case, 1 + index % 4, "--dtype", dtype) as service:
                    self.check(case, dtype, ForeignClient(service.address))

    def check(self, case: Path, dtype: str, client: ForeignClient) -> None:
        tolerance = TOLERANCE[dtype]
        for prompt in ("short", "medium", "long"):
            golden = case / "golden.safetensors"
            ids = read_tensor(golden, f"{prompt}/input_ids")
            token_ids = {"token_ids": {"ids": ids}}
            chunks = client.stream("octet.v1.Inference", "Generate", {
                "prompt": token_ids,
                "sampling": {"temperature": 0},
                "stop": {"max_new_tokens": 16, "ignore_eos": True},
            })
            continuation = [i for chunk in chunks for i in chunk["token_ids"]]
            expected_continuation = read_tensor(golden, f"{prompt}/greedy_ids")
            if dtype == "f32":
                self.assertEqual(continuation, expected_continuation, prompt)
            else:  # the gaps between the first and the second token are smaller than what bf16 keeps of them
                self.assertEqual(continuation[:8], expected_continuation[:8], prompt)
            score = client.call("octet.v1.Inference", "Score", {"prompt": token_ids})
            logprobs = [t["sampled"]["logprob"] for t in score["tokens"][1:]]
            expected = read_tensor(golden, f"{prompt}/logprobs")
            worst = max(abs(a - b) for a, b in zip(logprobs, expected, strict=True))
            self.assertLess(worst, tolerance, f"{prompt}: log-probability off by {worst}")
            mean = -sum(expected) / len(expected)
            self.assertAlmostEqual(math.log(score["perplexity"]), mean, delta=tolerance)


if __name__ == "__main__":
    unittest.main()
