"""Prints the one line that closes a run of the tests: `N passed, N failed, N skipped`."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree


def counts(report: Path) -> tuple[int, int, int]:
    """How many tests a report of `pytest --junitxml` has: in all, failed, skipped."""
    text = report.read_text() if report.exists() else ""
    suites = ElementTree.fromstring(text).iter("testsuite") if text else ()
    total = failed = skipped = 0
    for suite in suites:
        total += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
    return total, failed, skipped


def closing_line(report: Path, again: Path | None = None) -> tuple[str, bool]:
    """The line, and whether the run is good: something passed, nothing failed.

    Args:
        report: of the run; if there is none, the tests did not run.
        again: of a second run of what failed in the first; then that decides what failed.
    """
    total, failed, skipped = counts(report)
    if again is not None and (second := counts(again))[0]:
        failed = second[1]
    passed = max(total - failed - skipped, 0)
    return f"{passed} passed, {failed} failed, {skipped} skipped", passed > 0 and failed == 0


if __name__ == "__main__":
    line, good = closing_line(*map(Path, sys.argv[1:3]))
    print(line)
    sys.exit(0 if good else 1)
