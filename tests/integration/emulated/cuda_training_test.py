"""A training run on emulated GPUs, end to end: `octet train` against the coordinator, whose ranks are `octet-worker --device
cuda` under mpirun. Adapters of a random model learn a text: the loss falls, what is generated afterwards comes from the trained
weights, and losses, exported adapters and text are the same at every width.
"""

from __future__ import annotations

import shutil
import tempfile
import unittest
from pathlib import Path

from cuda_group import CudaGroupTest
from octet_processes import SOURCE_DIR, make_checkpoint
from training_runs import Outcome, train

PROMPT = [1, 17, 250, 44, 9, 131]
FLAGS = ("--cutoff-len", 16, "--max-steps", 3, "--learning-rate", 3e-2, "--save-steps", 0, "--logging-steps", 1,
         "--per-device-train-batch-size", 1, "--gradient-accumulation-steps", 3, "--max-samples", 12,
         "--finetuning-type", "lora", "--lora-rank", 4, "--lora-dropout", 0.1)


class CudaTrainingTest(CudaGroupTest):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        self.text = self.root / "text.txt"
        shutil.copy(SOURCE_DIR / "tests" / "golden" / "texts" / "en.txt", self.text)

    def generate(self) -> list[tuple[int, float]]:
        request = {
            "prompt": {"token_ids": {"ids": PROMPT}},
            "sampling": {"temperature": 0.0},
            "stop": {"max_new_tokens": 4, "ignore_eos": True},
            "logprobs": 1,
        }
        chunks = self.client.stream("octet.v1.Inference", "Generate", request)
        return [(d["sampled"]["token_id"], d["sampled"]["logprob"]) for chunk in chunks for d in chunk["logprobs"]]

    def run_once(self, ranks: int) -> tuple[Outcome, list, list]:
        """The run, and what the model says before and after it."""
        group = self.start_group(ranks, CUDA_EMU_STREAMS="random")
        before = self.generate()
        output = self.root / f"output{ranks}"
        train(self.model, self.text, output, "--server", self.address, *FLAGS)
        after = self.generate()
        group.stop()
        self.assertNotIn("cuda_emu:", group.output())
        return Outcome(output), before, after

    def test_adapters(self) -> None:
        self.start_coordinator(make_checkpoint(
            self.root / "model", "--dtype", "f32", "--experts", 6, "--hidden", 32, "--ffn", 32))
        outcome, before, after = self.run_once(1)
        self.assertEqual(len(outcome.steps), 3)
        self.assertLess(outcome.steps[-1]["loss"], outcome.steps[0]["loss"])
        self.assertNotEqual(after, before)
        for ranks in (2, 4):
            self.assertEqual(self.run_once(ranks), (outcome, before, after), f"{ranks} ranks")


if __name__ == "__main__":
    unittest.main()
