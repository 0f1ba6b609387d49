"""Reads safetensors files: 8 bytes of length, a JSON header, bytes."""

from __future__ import annotations

import json
import struct
from pathlib import Path

_CODES = {"I32": "i", "F32": "f"}


def _header(data: bytes) -> tuple[dict, int]:
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), 8 + length


def tensor_bytes(path: Path) -> dict[str, bytes]:
    """The contents of all tensors, by name."""
    data = path.read_bytes()
    header, start = _header(data)
    header.pop("__metadata__", None)
    return {name: data[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]]
            for name, entry in header.items()}


def read_tensor(path: Path, name: str) -> list[float] | list[int]:
    """A tensor, flattened."""
    data = path.read_bytes()
    header, start = _header(data)
    begin, end = (start + offset for offset in header[name]["data_offsets"])
    return list(struct.unpack(f"<{(end - begin) // 4}{_CODES[header[name]['dtype']]}", data[begin:end]))
