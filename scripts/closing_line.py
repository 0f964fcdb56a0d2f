"""Prints the one line that closes a run of the tests: `N passed, N failed, N skipped`."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree


def closing_line(report: Path) -> tuple[str, bool]:
    """The line, and whether the run is good: something passed, nothing failed.

    Args:
        report: what pytest wrote for `--junitxml`; without one, the tests did not run.
    """
    text = report.read_text() if report.exists() else ""
    suites = ElementTree.fromstring(text).iter("testsuite") if text else ()
    total = failed = skipped = 0
    for suite in suites:
        total += int(suite.get("tests", 0))
        failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped += int(suite.get("skipped", 0))
    passed = max(total - failed - skipped, 0)
    return f"{passed} passed, {failed} failed, {skipped} skipped", passed > 0 and failed == 0


if __name__ == "__main__":
    line, good = closing_line(Path(sys.argv[1]))
    print(line)
    sys.exit(0 if good else 1)
