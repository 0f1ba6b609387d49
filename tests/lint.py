#!/usr/bin/env python3
"""What a machine can check of the house rules: arrows between folders, sizes, listed tests, READMEs, format.

usage: tests/lint.py [--format]     (--format also runs clang-format-14 --dry-run, where it is installed)
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 400
HEADERS = (".h", ".cuh")
COMPILED = (".cc", ".cu")

# Folder -> folders it may include from (itself always). The order of docs: leaves first.
ARROWS = {
    "base": [],
    "proto": [],
    "text": ["base"],
    "kernels": ["base"],
    "worker/nn": ["base", "kernels"],
    "worker/comm": ["base", "kernels"],
    "worker/moe": ["base", "kernels", "worker/nn", "worker/comm"],
    "worker/model": ["base", "kernels", "worker/nn", "worker/comm", "worker/moe"],
    "worker/device": ["base", "kernels", "worker/comm"],
    "worker/checkpoint": ["base", "kernels", "worker/model"],
    "worker/serve": ["base", "kernels", "proto", "worker/comm", "worker/moe", "worker/model", "worker/checkpoint"],
    "worker/train": ["base", "kernels", "proto", "worker/nn", "worker/comm", "worker/moe", "worker/model", "worker/checkpoint"],
    "worker/service": ["base", "kernels", "proto", "worker/device", "worker/comm", "worker/moe", "worker/model", "worker/checkpoint",
                       "worker/serve", "worker/train"],
    "worker": ["base", "kernels", "proto", "worker/comm", "worker/moe", "worker/model", "worker/checkpoint",
               "worker/serve", "worker/train", "worker/service"],
    "coordinator": ["base", "proto", "text"],
    "client/data": ["base", "proto", "text"],
    "client": ["base", "proto", "text", "client/data"],
    "launch": ["base", "proto", "text", "kernels", "worker", "worker/device", "worker/comm", "worker/moe", "worker/model",
               "worker/checkpoint", "worker/serve", "worker/train", "worker/service", "coordinator", "client", "client/data"],
}


def folder_of(path: str) -> str | None:
    """The longest folder of ARROWS that `path` lies in."""
    matches = [folder for folder in ARROWS if path.startswith(folder + "/")]
    return max(matches, key=len, default=None)


def sources() -> list[Path]:
    patterns = ["*" + suffix for suffix in HEADERS + COMPILED]
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0:
        return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).exists()]
    # Not a checkout: everything but build folders.
    found = [path for pattern in patterns for path in ROOT.rglob(pattern)]
    return [path for path in sorted(found) if not path.relative_to(ROOT).parts[0].startswith("build")]


def check_arrows(path: Path) -> list[str]:
    name = str(path.relative_to(ROOT))
    folder = folder_of(name)
    if folder is None:
        return []
    problems = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        match = re.match(r'#include "([^"]+)"', line)
        target = folder_of(match.group(1)) if match else None
        if match and match.group(1).startswith("tests/"):
            problems.append(f"{name}:{number}: includes {match.group(1)}: nothing may depend on tests")
        elif target and target != folder and target not in ARROWS[folder]:
            problems.append(f"{name}:{number}: {folder} may not include from {target} ({match.group(1)})")
    return problems


def check_seams(path: Path) -> list[str]:
    """Outside things stay behind their seam."""
    name = str(path.relative_to(ROOT))
    text = path.read_text()
    problems = []
    if "<mpi.h>" in text and not name.startswith(("worker/comm/mpi/", "tests/", "launch/")):
        problems.append(f"{name}: only worker/comm/mpi may include mpi.h")
    if re.search(r"\bgetenv\(", text) and not name.startswith(("launch/", "tests/", "worker/comm/mpi/")):
        problems.append(f"{name}: getenv belongs to option parsing (launch/)")
    return problems


def check_size(path: Path) -> list[str]:
    lines = path.read_text().count("\n")
    if lines <= MAX_LINES:
        return []
    return [f"{path.relative_to(ROOT)}: {lines} lines, at most {MAX_LINES}"]


def check_listed(paths: list[Path]) -> list[str]:
    """Every source is named in a CMakeLists.txt of its folder or one above, or in a function of cmake/."""
    problems = []
    shared = (ROOT / "cmake" / "OctetTargets.cmake").read_text()
    for path in paths:
        if path.suffix not in COMPILED or str(path.relative_to(ROOT)) in shared:
            continue
        folder = path.parent
        while True:
            cmake = folder / "CMakeLists.txt"
            relative = str(path.relative_to(folder))
            if cmake.exists() and relative in cmake.read_text():
                break
            if folder == ROOT:
                problems.append(f"{path.relative_to(ROOT)}: in no CMakeLists.txt, so it is never built")
                break
            folder = folder.parent
    return problems


def readme_above(folder: Path) -> Path:
    """The README.md of `folder` or the nearest one above it."""
    while not (folder / "README.md").exists():
        folder = folder.parent
    return folder / "README.md"


def check_readmes(paths: list[Path]) -> list[str]:
    """Every folder of the product has a README.md, and the nearest one names each header."""
    problems = [f"{folder}: has no README.md" for folder in ARROWS
                if (ROOT / folder).exists() and not (ROOT / folder / "README.md").exists()]
    for path in paths:
        if path.suffix not in HEADERS or folder_of(str(path.relative_to(ROOT))) is None:
            continue
        readme = readme_above(path.parent)
        text = readme.read_text()
        wildcards = re.findall(r"`([\w./-]*\*)`", text)  # such as `gemm_*`
        if path.stem not in text and not any(fnmatch(path.name, wildcard) for wildcard in wildcards):
            problems.append(f"{readme.relative_to(ROOT)}: does not name {path.name}")
    return problems


def check_format(paths: list[Path]) -> list[str]:
    tool = shutil.which("clang-format-14") or shutil.which("clang-format")
    if tool is None:
        return ["clang-format is not installed: ./launch/setup --sanitizers installs it"]
    result = subprocess.run([tool, "--dry-run", "-Werror", *map(str, paths)], cwd=ROOT, capture_output=True, text=True)
    return sorted({line.split(":")[0] + ": is not clang-formatted" for line in result.stderr.splitlines()
                   if "error:" in line})


def main() -> int:
    paths = sources()
    problems = [p for path in paths for check in (check_arrows, check_seams, check_size) for p in check(path)]
    problems += check_listed(paths) + check_readmes(paths)
    if "--format" in sys.argv:
        problems += check_format(paths)
    for problem in problems:
        print(problem)
    print(f"{len(paths)} files, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
