"""Starts the real programs for the integration tests and makes sure that none outlives its test."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

SKIPPED = 77  # exit code that ctest shows as skipped

SOURCE_DIR = Path(os.environ["OCTET_SOURCE_DIR"])
BINARY_DIR = Path(os.environ["OCTET_BINARY_DIR"])
OCTET = BINARY_DIR / "bin" / "octet"
TOKENIZER = SOURCE_DIR / "launch" / "quickstart_model" / "tokenizer.model"

_ROOT_MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


def run(*args: object, check: bool = True, stdin: str | None = None, timeout: float = 120) -> subprocess.CompletedProcess:
    """Runs a program to its end; text in and out."""
    result = subprocess.run(
        [str(a) for a in args], input=stdin, capture_output=True, text=True, timeout=timeout, check=False,
        env=os.environ | _ROOT_MPI,
    )
    if check and result.returncode != 0:
        raise AssertionError(f"{args} ended with {result.returncode}\n{result.stdout}\n{result.stderr}")
    return result


def make_checkpoint(directory: Path, *flags: str) -> Path:
    """A seeded random checkpoint with the quickstart's tokenizer."""
    run(OCTET, "init", "--output", directory, "--tokenizer", TOKENIZER, *flags)
    return directory


class Process:
    """A program that runs beside the test, in a process group of its own."""

    def __init__(self, *args: object, env: dict[str, str] | None = None) -> None:
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log", delete=False)
        self.process = subprocess.Popen(
            [str(a) for a in args], stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True,
            env=os.environ | _ROOT_MPI | (env or {}),
        )

    def output(self) -> str:
        return Path(self.log.name).read_text(errors="replace")

    def wait_for(self, pattern: str, timeout: float = 60) -> re.Match:
        """Waits until the output has a match of `pattern`."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if match := re.search(pattern, self.output()):
                return match
            if self.process.poll() is not None and not re.search(pattern, self.output()):
                break
            time.sleep(0.02)
        raise AssertionError(f"no /{pattern}/ (exit code {self.process.poll()}) in:\n{self.output()}")

    def stop(self, timeout: float = 20) -> int:
        """Asks the program to end (SIGTERM), and kills its whole group if it does not."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(5)
        return self.process.returncode

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *unused: object) -> None:
        self.stop()
        os.unlink(self.log.name)


class Service(Process):
    """`octet serve` on a port of its own; `address` is where it answers."""

    def __init__(self, model: Path, workers: int, *flags: object) -> None:
        super().__init__(OCTET, "serve", "--model", model, "--workers", workers, "--listen", "127.0.0.1:0", *flags)
        try:
            self.address = self.wait_for(r"ready on (\S+)").group(1)
        except BaseException:
            self.stop()
            raise


def resident_bytes(pid: int) -> int:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status).group(1)) * 1024


def is_running(pid: int) -> bool:
    """False for a process that has ended, also when nobody has collected it yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def descendants(pid: int) -> list[int]:
    """All processes below `pid`."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    if not children.exists():
        return []
    found = [int(child) for child in children.read_text().split()]
    return found + [d for child in found for d in descendants(child)]
