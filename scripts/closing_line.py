"""Prints the one line that closes a run of the tests: `N passed, N failed, N skipped`.

python3 -m scripts.closing_line REPORT.xml            of one report
python3 -m scripts.closing_line FOLDER NAME [NAME …]  of the reports NAME.xml; where NAME-again.xml
                                                      is there, that decides what failed
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree


@dataclass(frozen=True)
class Counts:
    """How many tests ran, and how they ended."""

    total: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.total + other.total, self.failed + other.failed, self.skipped + other.skipped
        )

    @property
    def passed(self) -> int:
        """Those that neither failed nor were skipped."""
        return max(self.total - self.failed - self.skipped, 0)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def counts(report: Path, again: Path | None = None) -> Counts:
    """What a report of `pytest --junitxml` says; a report that is not there is a failure.

    Args:
        again: of a second run of what failed in the first, if there was one; then that decides what
            failed.
    """
    if not report.exists() or not (text := report.read_text()):
        return Counts(total=1, failed=1)
    found = Counts()
    for suite in ElementTree.fromstring(text).iter("testsuite"):
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        found += Counts(int(suite.get("tests", 0)), failed, int(suite.get("skipped", 0)))
    if found.failed and again is not None and (second := counts(again)).total:
        found = Counts(found.total, second.failed, found.skipped)
    return found


def main(words: list[str]) -> int:
    """Print the line. The exit code is 0 if something passed and nothing failed."""
    first, *names = words
    if names:
        folder = Path(first)
        pairs = [(folder / f"{name}.xml", folder / f"{name}-again.xml") for name in names]
        found = sum((counts(*pair) for pair in pairs), Counts())
    else:
        found = counts(Path(first))
    print(found)
    return 0 if found.passed and not found.failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
