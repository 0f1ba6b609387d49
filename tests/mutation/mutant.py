"""What a mutant is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    name: str
    file: str  # from the repository root
    old: str  # once in the file
    new: str
    breaks: str  # in words
    tests: str  # regular expression of ctest's names: at least one of these cases fails
    filter: str = "*"  # GTEST_FILTER
