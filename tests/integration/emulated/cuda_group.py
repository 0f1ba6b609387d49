"""A real coordinator and a worker group whose ranks compute on emulated GPUs and talk over an emulated NCCL."""

from __future__ import annotations

import json
import struct
import time
import unittest
from pathlib import Path

from foreign_client import ForeignClient
from octet_processes import BINARY_DIR, OCTET, SOURCE_DIR, Process

GOLDEN = SOURCE_DIR / "tests" / "golden"


def worker_program(variant: str) -> Path:
    return BINARY_DIR / "tests" / "bin" / f"octet_worker_emulated_{variant}"


def golden_tokens(case: str, name: str) -> list[int]:
    """An i32 tensor of a golden checkpoint."""
    data = (GOLDEN / case / "golden.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    begin, end = (8 + length + offset for offset in json.loads(data[8 : 8 + length])[name]["data_offsets"])
    return list(struct.unpack(f"<{(end - begin) // 4}i", data[begin:end]))


class CudaGroupTest(unittest.TestCase):
    def start_coordinator(self, model: str | Path) -> None:
        """`model`: a directory, or the name of a golden checkpoint."""
        self.model = GOLDEN / model
        self.coordinator = Process(OCTET, "coordinator", "--model", self.model, "--listen", "127.0.0.1:0")
        self.addCleanup(self.coordinator.stop)
        self.address = self.coordinator.wait_for(r"listening on (\S+)").group(1)
        self.client = ForeignClient(self.address)
        self.addCleanup(self.client.close)

    def start_group(self, ranks: int, *flags: object, variant: str = "plain", **environment: str) -> Process:
        group = Process(
            "mpirun", "--oversubscribe", "--bind-to", "none", "--mca", "btl", "vader,self", "-n", ranks,
            worker_program(variant), "--device", "cuda", "--model", self.model, "--coordinator", self.address,
            "--kv-blocks", 32, *flags, env=environment,
        )
        self.addCleanup(group.stop)
        end = time.monotonic() + 60
        while self.client.call("octet.v1.Cluster", "GetInfo")["state"] != "GROUP_STATE_READY":
            self.assertIsNone(group.process.poll(), group.output())
            self.assertLess(time.monotonic(), end, group.output())
            time.sleep(0.05)
        return group
