#!/usr/bin/env python3
"""Which lines of the CUDA and NCCL code the emulated tests execute.

usage: tests/mutation/coverage.py [--build build-coverage] [--tests REGEX] [--at-least 95] [--lines] [--page FILE]
                                  [--no-run]

Builds the emulated libraries with gcov's counters and without optimisation (OCTET_CUDA_COVERAGE), runs the plain
emulated tests, and prints executed and executable lines of every file. A line of a template or a header counts once,
executed if any instance of it is. Lines that only nvcc compiles (the inline PTX) are not seen at all.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# What runs on a GPU or talks to one.
FILES = ("kernels/cuda/", "worker/comm/nccl/", "worker/device/cuda_rank")
# One order of threads and of streams, up to four ranks: the others run the same lines.
TESTS = "_plain_seq_lazy(_n[124])?$|nccl_failure"


def run(*command: str | Path, **options) -> subprocess.CompletedProcess:
    return subprocess.run([str(part) for part in command], check=True, text=True, **options)


def test_programs(build: Path, regex: str) -> list[str]:
    """The programs of tests/bin whose cases `regex` names."""
    listed = run("ctest", "--test-dir", build, "--show-only=json-v1", "-L", "emulated", "-R", regex, "-E", "cuda_emulation",
                 capture_output=True)
    cases = [test["name"] for test in json.loads(listed.stdout)["tests"]]
    targets = run("ninja", "-C", build, "-t", "targets", "all", capture_output=True).stdout
    programs = re.findall(r"^tests/bin/(\w+):", targets, re.MULTILINE)
    return [program for program in programs if any(case.startswith(program) for case in cases)]


def build_and_run(build: Path, regex: str) -> None:
    run("cmake", "-S", ROOT, "-B", build, "-G", "Ninja", "-DOCTET_CUDA_COVERAGE=ON", "-DOCTET_ENABLE_CUDA=OFF",
        stdout=subprocess.DEVNULL)
    run("cmake", "--build", build, "--target", *test_programs(build, regex), stdout=subprocess.DEVNULL)
    for old in build.rglob("*.gcda"):
        old.unlink()
    run("ctest", "--test-dir", build, "-L", "emulated", "-R", regex, "-E", "cuda_emulation", "--output-on-failure",
        "--parallel", str(os.cpu_count()))


def line_counts(build: Path) -> dict[str, dict[int, int]]:
    """File -> line -> how often it ran, over all translation units and instances."""
    counts: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for notes in sorted(build.rglob("*.gcno")):
        report = run("gcov", "--json-format", "--stdout", notes, cwd=build, capture_output=True).stdout
        for line in report.splitlines():
            unit = json.loads(line)
            base = Path(unit["current_working_directory"])
            for file in unit["files"]:
                path = (base / file["file"]).resolve()
                name = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else ""
                if name.startswith(FILES):
                    for entry in file["lines"]:
                        counts[name][entry["line_number"]] += entry["count"]
    return counts


def ranges(lines: list[int]) -> str:
    parts: list[list[int]] = []
    for line in lines:
        if parts and line == parts[-1][1] + 1:
            parts[-1][1] = line
        else:
            parts.append([line, line])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def table(counts: dict[str, dict[int, int]]) -> tuple[list[tuple[str, int, int, str]], float]:
    rows = []
    for name in sorted(counts):
        missed = sorted(line for line, count in counts[name].items() if count == 0)
        rows.append((name, len(counts[name]) - len(missed), len(counts[name]), ranges(missed)))
    executed, executable = sum(row[1] for row in rows), sum(row[2] for row in rows)
    rows.append(("all", executed, executable, ""))
    return rows, 100.0 * executed / max(1, executable)


def page(rows: list[tuple[str, int, int, str]]) -> str:
    lines = ["# Lines of CUDA and NCCL code that the emulated tests execute", "",
             "Printed by `tests/mutation/coverage.py --page FILE`. A template's line counts once.", "",
             "| file | executed | of | % | not executed |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {hit} | {of} | {100.0 * hit / of:.1f} | {missed} |" for name, hit, of, missed in rows]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build-coverage")
    parser.add_argument("--tests", default=TESTS, help="regular expression of ctest's names")
    parser.add_argument("--at-least", type=float, default=95.0, help="percent of all lines")
    parser.add_argument("--lines", action="store_true", help="also name the lines that no test runs")
    parser.add_argument("--page", type=Path, help="also write the table here, in Markdown")
    parser.add_argument("--no-run", action="store_true", help="only read the counters of the last run")
    options = parser.parse_args()
    if not options.no_run:
        build_and_run(options.build, options.tests)
    rows, percent = table(line_counts(options.build))
    for name, hit, of, missed in rows:
        print(f"{name:44} {hit:5} of {of:5}  {100.0 * hit / of:5.1f} %" + (f"  not: {missed}" if options.lines and missed else ""))
    if options.page:
        options.page.write_text(page(rows))
    if percent < options.at_least:
        print(f"{percent:.1f} % of the lines are executed, expected at least {options.at_least:g} %", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
