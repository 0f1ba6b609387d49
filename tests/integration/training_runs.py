"""`octet train` for the tests, and what a run leaves behind that may not depend on how it came about."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

from octet_processes import OCTET, run
from safetensors_file import tensor_bytes

# Of a log line; the others tell the time.
_NUMBERS = ("current_steps", "total_steps", "loss", "eval_loss", "learning_rate", "epoch", "aux_loss", "grad_norm")


def train_command(model: Path, text: Path, output: Path, *flags: object) -> list[object]:
    return [OCTET, "train", "--model", model, "--stage", "pt", "--train-file", text, "--output-dir", output, *flags]


def train(model: Path, text: Path, output: Path, *flags: object) -> subprocess.CompletedProcess:
    """A run to its end."""
    return run(*train_command(model, text, output, *flags))


class Outcome:
    """The log and the exported weights of a run that has ended."""

    def __init__(self, output: Path) -> None:
        self.lines = log_lines(output)
        self.steps = [line for line in self.lines if line["loss"] is not None]
        files = sorted(output.glob("*.safetensors"))
        if not files:
            raise AssertionError(f"no weights in {sorted(output.iterdir())}")
        # By tensor: how many files there are depends on the ranks.
        self.weights = {name: data for file in files for name, data in tensor_bytes(file).items()}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Outcome) and self.lines == other.lines and self.weights == other.weights

    def __repr__(self) -> str:
        weights = hashlib.sha256(repr(sorted(self.weights.items())).encode()).hexdigest()
        return "\n".join([f"weights {weights[:16]}", *map(str, self.lines)])


def log_lines(output: Path) -> list[dict]:
    lines = [json.loads(line) for line in (output / "trainer_log.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in _NUMBERS if name in line} for line in lines]
