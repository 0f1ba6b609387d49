#!/usr/bin/env python3
"""Breaks the CUDA and NCCL code on purpose, one place at a time, and sees the emulated tests notice.

usage: tests/mutation/mutate.py [--only REGEX] [--work build-mutation] [--rest] [--page FILE]
       tests/mutation/mutate.py --check [--build DIR]
       tests/mutation/mutate.py --list

A mutant is a text in a source file, what replaces it, and the test cases that must fail then (cuda_kernel_mutants.py,
cuda_host_mutants.py). They are applied to a copy of the tree, built there and run; the copy's own tests must pass first.
The exit status is not 0 when a mutant survives, does not build, or no longer applies. Results are kept beside the build:
--rest leaves out the mutants that were noticed before, --page writes all that are known. --check only looks whether every
text occurs exactly once, and with --build whether the cases exist: the table cannot rot unseen.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.dont_write_bytecode = True
import cuda_host_mutants  # noqa: E402
import cuda_kernel_mutants  # noqa: E402
from mutant import Mutant  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent.parent
MUTANTS: list[Mutant] = cuda_kernel_mutants.MUTANTS + cuda_host_mutants.MUTANTS
# Of one mutant's cases: one that makes a rank wait for ever ends here.
CASES_SECONDS = 240
ENVIRONMENT = {"CTEST_OUTPUT_ON_FAILURE": "1", "GTEST_BREAK_ON_FAILURE": "1", "CUDA_EMU_KERNEL_SECONDS": "30",
               "CUDA_EMU_NCCL_TIMEOUT": "10"}
# What says best what went wrong, the first that is found.
TELLING = (r"cuda_emu: (.*)", r"ERROR: AddressSanitizer: (.*)", r"runtime error: (.*)", r"check failed: (.*)",
           r"\.cc:\d+: (?:Failure\n)?((?:.*\n){1,4})", r"(.*(?:SEGFAULT|Timeout|Exception|Abort|Signal).*)")


@dataclass
class Outcome:
    mutant: Mutant
    state: str  # "noticed", or what is wrong: "survives", "does not build"
    by: str = ""
    says: str = ""
    seconds: float = 0.0


def problems(mutants: list[Mutant], build: Path | None) -> Iterator[str]:
    """What keeps mutants from being applied and run."""
    names = [mutant.name for mutant in mutants]
    for mutant in mutants:
        if names.count(mutant.name) > 1:
            yield f"{mutant.name}: more than one mutant has this name"
        path = ROOT / mutant.file
        count = path.read_text().count(mutant.old) if path.exists() else 0
        if count != 1:
            yield f"{mutant.name}: its text is {count} times in {mutant.file}, expected once"
        if mutant.old == mutant.new:
            yield f"{mutant.name}: changes nothing"
        if build is not None and not cases(build, mutant.tests):
            yield f"{mutant.name}: no test case is called '{mutant.tests}'"


def run(command: list[str], **options) -> subprocess.CompletedProcess:
    return subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options)


@functools.cache
def all_cases(build: Path) -> list[str]:
    return re.findall(r"Test +#\d+: (\S+)", run(["ctest", "--test-dir", str(build), "-N"]).stdout)


def cases(build: Path, regex: str) -> list[str]:
    return [case for case in all_cases(build) if re.search(regex, case)]


class Results:
    """The last outcome of every mutant, in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known = json.loads(path.read_text()) if path.exists() else {}

    def add(self, outcome: Outcome) -> None:
        self.known[repr(outcome.mutant)] = [outcome.state, outcome.by, outcome.says, outcome.seconds]
        self.path.write_text(json.dumps(self.known))

    def of(self, mutants: list[Mutant]) -> list[Outcome]:
        return [Outcome(mutant, *self.known[repr(mutant)]) for mutant in mutants if repr(mutant) in self.known]


class Tree:
    """A copy of the sources, and a build of it inside, as in a checkout: so a compiler cache knows it."""

    def __init__(self, work: Path) -> None:
        self.sources = work
        self.build = work / "build"

    def copy(self) -> None:
        """Brings the copy up to date; what is equal keeps its time, so that it is not built again."""
        listed = run(["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"])
        names = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
        for name in names:
            to = self.sources / name
            if not to.exists() or to.read_bytes() != (ROOT / name).read_bytes():
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, to)
        for path in [path for path in self.sources.rglob("*") if path.is_file() and self.build not in path.parents]:
            if str(path.relative_to(self.sources)) not in names:
                path.unlink()

    def configure(self) -> None:
        done = run(["cmake", "-S", str(self.sources), "-B", str(self.build), "-G", "Ninja", "-DOCTET_ENABLE_CUDA=OFF"])
        if done.returncode != 0:
            sys.exit(done.stdout)

    def make(self, mutants: list[Mutant]) -> subprocess.CompletedProcess:
        """Builds the programs that the mutants' cases start."""
        wanted = {case for regex in {mutant.tests for mutant in mutants} for case in cases(self.build, regex)}
        known = run(["ninja", "-C", str(self.build), "-t", "targets", "all"]).stdout
        programs = {name for name in re.findall(r"^tests/bin/(\w+):", known, re.MULTILINE)
                    if any(case.startswith(name) for case in wanted)}
        return run(["ninja", "-C", str(self.build), *sorted(programs)])

    def test(self, mutant: Mutant) -> tuple[bool, str]:
        """Whether the mutant's cases pass, and their output."""
        command = ["ctest", "--test-dir", str(self.build), "--stop-on-failure", "-R", mutant.tests]
        environment = os.environ | ENVIRONMENT | {"GTEST_FILTER": mutant.filter}
        with subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              start_new_session=True, errors="replace") as process:
            try:
                output = process.communicate(timeout=CASES_SECONDS)[0]
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output = process.communicate()[0] + f"\nTimeout after {CASES_SECONDS} s"
        return process.returncode == 0, output


def excerpt(output: str) -> str:
    for pattern in TELLING:
        found = re.search(pattern, output.split("\n0% tests passed")[0])
        if found:
            return " ".join(found.group(1).split())[:150]
    return " ".join(output.split())[-150:]


def try_mutant(tree: Tree, mutant: Mutant) -> Outcome:
    path = tree.sources / mutant.file
    text = path.read_text()
    begin = time.monotonic()
    path.write_text(text.replace(mutant.old, mutant.new))
    try:
        made = tree.make([mutant])
        if made.returncode != 0:
            return Outcome(mutant, "does not build", says=excerpt(made.stdout))
        passed, output = tree.test(mutant)
    finally:
        path.write_text(text)
    outcome = Outcome(mutant, "survives" if passed else "noticed", seconds=time.monotonic() - begin)
    if not passed:
        failed = re.search(r"\d+/\d+ Test +#\d+: (\S+) \.+(?! +Passed)", output)
        outcome.by = failed.group(1) if failed else mutant.tests
        outcome.says = excerpt(output)
    return outcome


def escaped(text: str) -> str:
    """For a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


def page(outcomes: list[Outcome]) -> str:
    noticed = sum(outcome.state == "noticed" for outcome in outcomes)
    lines = ["# Mutants of the CUDA and NCCL code", "",
             "Written by `tests/mutation/mutate.py --page FILE`: each line is a deliberate bug in the product's own code, "
             "the test case that failed first, and what was said. Seconds are of building and running on the machine that "
             "wrote this page.", "", f"{noticed} of {len(outcomes)} are noticed.", "",
             "| mutant | file | what is broken | noticed by | message | s |", "|---|---|---|---|---|---|"]
    lines += [f"| {o.mutant.name} | {o.mutant.file} | {escaped(o.mutant.breaks)} | "
              f"{escaped(o.by) if o.by else '**' + o.state + '**'} | {escaped(o.says)} | {o.seconds:.0f} |" for o in outcomes]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="regular expression of mutants' names")
    parser.add_argument("--work", type=Path, default=ROOT / "build-mutation", help="where the copy is kept and built")
    parser.add_argument("--rest", action="store_true", help="only those not noticed in an earlier run")
    parser.add_argument("--page", type=Path, help="also write the table of all results here, in Markdown")
    parser.add_argument("--check", action="store_true", help="only look whether the mutants apply")
    parser.add_argument("--build", type=Path, help="with --check: a configured build, whose cases are looked at")
    parser.add_argument("--list", action="store_true", help="print the mutants")
    options = parser.parse_args()
    mutants = [mutant for mutant in MUTANTS if re.search(options.only, mutant.name)]
    if options.list:
        print("\n".join(f"{mutant.name:32} {mutant.file:40} {mutant.breaks}" for mutant in mutants))
        return 0
    found = list(problems(mutants, options.build))
    for problem in found:
        print(problem)
    if options.check or found:
        print(f"{len(mutants)} mutants, {len(found)} problems")
        return 1 if found else 0

    tree = Tree(options.work)
    tree.copy()
    tree.configure()
    results = Results(tree.build / "mutants.json")
    if options.rest:
        noticed = {outcome.mutant for outcome in results.of(mutants) if outcome.state == "noticed"}
        mutants = [mutant for mutant in mutants if mutant not in noticed]
    made = tree.make(mutants)
    if made.returncode != 0:
        sys.exit(made.stdout)
    for tests, filter_ in sorted({(mutant.tests, mutant.filter) for mutant in mutants}):
        passed, output = tree.test(Mutant("", "", "", "", "", tests, filter_))
        if not passed:
            sys.exit(f"{output}\nthe cases '{tests}' of '{filter_}' fail without a mutant")
    outcomes = []
    for mutant in mutants:
        outcome = try_mutant(tree, mutant)
        outcomes.append(outcome)
        results.add(outcome)
        print(f"{mutant.name:32} {outcome.state:14} {outcome.seconds:4.0f} s  {outcome.by}: {outcome.says}", flush=True)
    if options.page:
        options.page.write_text(page(results.of(MUTANTS)))
    bad = [outcome.mutant.name for outcome in outcomes if outcome.state != "noticed"]
    print(f"{len(outcomes) - len(bad)} of {len(outcomes)} mutants are noticed" + (f"; not: {', '.join(bad)}" if bad else ""))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
