"""`octet train` has the same numbers, to the bit, however many ranks share the work, whether they are threads or
processes, and however a step's rows are cut into calls: the losses of every step and the weights at the end."""

from __future__ import annotations

import json
import shutil
import tempfile
import unittest
from pathlib import Path

from octet_processes import SOURCE_DIR, make_checkpoint
from training_runs import Outcome, train

# Threads under one process, then ranks under mpirun.
WIDTHS = [("--workers", 1), ("--workers", 2), ("--workers", 3), ("--workers", 2, "--mpi"), ("--workers", 4, "--mpi")]
ROW = 32  # tokens
STEPS = ("--max-steps", 4, "--learning-rate", 1e-2, "--save-steps", 0, "--logging-steps", 1)
LORA = ("--finetuning-type", "lora", "--lora-dropout", 0.1)
FULL = ("--finetuning-type", "full", "--weight-decay", 0.1)
# One row in a microbatch: the router's statistics are of a row, and rows go in as many calls as --call-tokens says.
ROWS = ("--per-device-train-batch-size", 1, "--gradient-accumulation-steps", 5)
# Several: statistics are of a microbatch, which is one call.
BATCHES = ("--per-device-train-batch-size", 3, "--gradient-accumulation-steps", 2, "--val-size", 2)


class TrainingWidthsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.directory = tempfile.TemporaryDirectory()
        cls.root = Path(cls.directory.name)
        cls.model = make_checkpoint(cls.root / "model", "--preset", "tiny", "--dtype", "f32", "--experts", 6)
        cls.text = cls.root / "text.txt"
        shutil.copy(SOURCE_DIR / "tests" / "golden" / "texts" / "en.txt", cls.text)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.directory.cleanup()

    def run_once(self, *flags: object) -> Outcome:
        output = Path(tempfile.mkdtemp(dir=self.root))
        train(self.model, self.text, output, "--cutoff-len", ROW, *STEPS, *flags)
        return Outcome(output)

    def check(self, *flags: object) -> None:
        expected = self.run_once(*WIDTHS[0], *flags)
        self.assertEqual(len(expected.steps), 4)
        self.assertLess(expected.steps[-1]["loss"], expected.steps[0]["loss"])
        for width in WIDTHS[1:]:
            with self.subTest(width):
                self.assertEqual(self.run_once(*width, *flags), expected)

    def test_adapters(self) -> None:
        self.check(*LORA, *ROWS)

    def test_all_weights(self) -> None:
        self.check(*FULL, *ROWS, "--gradient-checkpointing")

    def test_batches_and_evaluation(self) -> None:
        self.check(*LORA, *BATCHES, "--evaluation-strategy", "steps", "--eval-steps", 2)

    def test_padding_that_counts(self) -> None:
        data = self.root / "instructions"
        data.mkdir()
        rows = [{"instruction": f"Count to {n}.", "output": " ".join(map(str, range(1, n + 1)))} for n in range(1, 13)]
        (data / "rows.json").write_text(json.dumps(rows))

        def run_once(*flags: object) -> Outcome:
            output = Path(tempfile.mkdtemp(dir=self.root))
            train(self.model, self.text, output, "--stage", "sft", "--train-file", data / "rows.json", *STEPS,
                  "--finetuning-type", "full", *BATCHES, *flags)
            return Outcome(output)

        without, padded = run_once(), run_once("--router-aux-loss-counts-padding")
        first, first_padded = without.steps[0], padded.steps[0]
        self.assertEqual(first["loss"], first_padded["loss"])
        self.assertNotEqual(first["aux_loss"], first_padded["aux_loss"])
        self.assertEqual(run_once("--router-aux-loss-counts-padding", "--workers", 3), padded)

    def test_any_split_into_calls(self) -> None:
        expected = self.run_once("--workers", 2, *LORA, *ROWS)
        for rows, workers in [(1, 1), (1, 3), (2, 2), (3, 1), (3, 3), (4, 2)]:
            with self.subTest(rows=rows, workers=workers):
                found = self.run_once("--workers", workers, *LORA, *ROWS, "--call-tokens", rows * ROW)
                self.assertEqual(found, expected)


if __name__ == "__main__":
    unittest.main()
