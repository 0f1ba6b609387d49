#!/usr/bin/env python3
"""Reads the GPU machine code inside an object file, archive or .cubin and checks what kernels are made of.

usage: machine_code_check.py FILE... [--require REGEX=CLASS,CLASS] [--allow-local REGEX] [--table]

No kernel may use local memory (LDL, STL: spills or arrays indexed at run time), unless its name matches an
--allow-local. For each --require, every architecture must hold a kernel that matches, and each such kernel the
instructions named. Device code must not be compressed (nvcc -no-compress).

A CUDA ELF has machine number 190; section .text.<kernel> holds 16 bytes per instruction (sm_70 and later), whose
lowest 9 bits are the operation (3 more the form of its operands). The numbers are inferred from public disassembly
listings.
"""

from __future__ import annotations

import argparse
import collections
import re
import struct
import sys
from pathlib import Path

OPCODES = {
    0x03C: "HMMA",
    0x03B: "LDSM",
    0x1AE: "LDGSTS",
    0x181: "LDG",
    0x186: "STG",
    0x184: "LDS",
    0x188: "STS",
    0x187: "STL",
    0x183: "LDL",
    0x11D: "BAR",
    0x189: "SHFL",
    0x023: "FFMA",
    0x18C: "ATOMS",
    0x1A8: "ATOMG",
    0x18E: "RED",
}
LOCAL_MEMORY = ("LDL", "STL")
EM_CUDA = 190


class Kernel:
    def __init__(self, arch: str, name: str, code: bytes):
        self.arch = arch
        self.name = name
        words = (struct.unpack_from("<Q", code, i)[0] & 0x1FF for i in range(0, len(code) - 15, 16))
        self.counts = collections.Counter(OPCODES[word] for word in words if word in OPCODES)
        self.instructions = len(code) // 16


def string_at(data: bytes, offset: int) -> str:
    return data[offset : data.index(b"\0", offset)].decode(errors="replace")


def kernels_of_elf(data: bytes, start: int) -> list[Kernel]:
    """The kernels of the ELF image that begins at `start`; none if it is not device code."""
    if data[start + 4 : start + 5] != b"\x02" or struct.unpack_from("<H", data, start + 18)[0] != EM_CUDA:
        return []
    (section_table,) = struct.unpack_from("<Q", data, start + 40)
    (flags,) = struct.unpack_from("<I", data, start + 48)
    size, count, names_index = struct.unpack_from("<HHH", data, start + 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, start + section_table + i * size) for i in range(count)]
    names = start + sections[names_index][4]
    # The SM number: bits 8..15 since CUDA 12.9's ELF version, bits 0..7 before.
    sm = (flags >> 8 & 0xFF) or (flags & 0xFF)
    kernels = []
    for section in sections:
        name = string_at(data, names + section[0])
        if name.startswith(".text."):
            offset = start + section[4]
            kernels.append(Kernel(f"sm_{sm}", name[len(".text.") :], data[offset : offset + section[5]]))
    return kernels


def kernels_of_file(path: Path) -> list[Kernel]:
    data = path.read_bytes()
    return [kernel for match in re.finditer(b"\x7fELF", data) for kernel in kernels_of_elf(data, match.start())]


def check_local(kernels: list[Kernel], allowed: list[str]) -> list[str]:
    problems = []
    for kernel in kernels:
        if any(re.search(pattern, kernel.name) for pattern in allowed):
            continue
        used = {name: kernel.counts[name] for name in LOCAL_MEMORY if kernel.counts[name]}
        if used:
            problems.append(f"{kernel.arch} {kernel.name}: uses local memory: {used}")
    return problems


def check_rule(kernels: list[Kernel], rule: str) -> list[str]:
    pattern, _, classes = rule.rpartition("=")
    if not pattern or not set(classes.split(",")) <= set(OPCODES.values()):
        return [f"--require '{rule}': expected REGEX=CLASS,CLASS with classes of {sorted(OPCODES.values())}"]
    problems = []
    for arch in sorted({kernel.arch for kernel in kernels}):
        matching = [kernel for kernel in kernels if kernel.arch == arch and re.search(pattern, kernel.name)]
        if not matching:
            problems.append(f"{arch}: no kernel matches '{pattern}'")
        for kernel in matching:
            missing = [name for name in classes.split(",") if not kernel.counts[name]]
            if missing:
                problems.append(f"{arch} {kernel.name}: has no {', '.join(missing)}; it has {dict(kernel.counts)}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--require", action="append", default=[], metavar="REGEX=CLASS,CLASS")
    parser.add_argument("--allow-local", action="append", default=[], metavar="REGEX")
    parser.add_argument("--table", action="store_true", help="print what every kernel is made of")
    arguments = parser.parse_args()
    kernels = [kernel for path in arguments.files for kernel in kernels_of_file(path)]
    if not kernels:
        print(f"no device code in {', '.join(map(str, arguments.files))} (compressed?)")
        return 1
    if arguments.table:
        for kernel in kernels:
            print(f"{kernel.arch} {kernel.name}: {kernel.instructions} instructions, {dict(kernel.counts)}")
    problems = check_local(kernels, arguments.allow_local)
    for rule in arguments.require:
        problems += check_rule(kernels, rule)
    for problem in problems:
        print(problem)
    architectures = sorted({kernel.arch for kernel in kernels})
    print(f"{len(kernels)} kernels for {', '.join(architectures)}: {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
