"""The picture of `helix stats --plot`. Imported only when one is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.exits import Usage
from model.errors import ConfigurationError

if TYPE_CHECKING:
    from model.stats import Period, Report

FORMATS = (".png", ".svg", ".pdf")
GOOD, GOAL, SLOW = "#2e7d32", "#b71c1c", "#1565c0"


def draw(report: Report, by: Period, path: Path) -> None:
    """Write the picture: success and times by period, and times by step.

    Raises:
        Usage: the file's name has another ending, or it cannot be written.
        ConfigurationError: matplotlib is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise Usage(
            f"cannot draw «{path.name}»", hint=f"end its name with one of {', '.join(FORMATS)}"
        )
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ConfigurationError(
            "a picture needs matplotlib, which is not installed",
            hint="pip install 'helix-deploy[plot]'",
        ) from None
    figure = Figure(figsize=(10, 9), layout="constrained")
    success, times, steps = figure.subplots(3, 1)
    figure.suptitle(f"Deployments, {report.since:%Y-%m-%d} to {report.until:%Y-%m-%d}")
    _success(success, report, by)
    _times(times, report, by)
    _steps(steps, report)
    try:
        figure.savefig(path, metadata={} if path.suffix.lower() == ".png" else None)
    except OSError as error:
        raise Usage(f"cannot write {path}: {error.strerror}") from None


def _success(axes: Any, report: Report, by: Period) -> None:
    days = [str(one.begins) for one in report.periods]
    rates = [100 * (one.stats.success_rate or 0) for one in report.periods]
    axes.bar(days, rates, color=GOOD)
    for day, rate, one in zip(days, rates, report.periods, strict=True):
        axes.annotate(f"{one.stats.deployments}", (day, rate), ha="center", va="bottom")
    goal = 100 * report.goals.success
    axes.axhline(goal, color=GOAL, linestyle="--", label=f"goal {goal:g} %")
    axes.set(ylabel="succeeded, %", ylim=(0, 112), title=f"Success by {by} (and how many)")
    axes.legend(loc="lower right")


def _times(axes: Any, report: Report, by: Period) -> None:
    spans = [(str(one.begins), one.stats.times) for one in report.periods if one.stats.times]
    days = [day for day, _ in spans]
    axes.plot(days, [one.p50 for _, one in spans], marker="o", color=GOOD, label="p50")
    axes.plot(days, [one.p95 for _, one in spans], marker="o", color=SLOW, label="p95")
    axes.axhline(report.goals.seconds, color=GOAL, linestyle="--", label="goal (p95)")
    axes.set(ylabel="seconds", ylim=(0, None), title=f"How long deployments took, by {by}")
    axes.legend(loc="upper right")


def _steps(axes: Any, report: Report) -> None:
    names = list(report.total.steps)
    places = range(len(names))
    found = report.total.steps.values()
    axes.barh([at - 0.2 for at in places], [one.p50 for one in found], 0.4, color=GOOD, label="p50")
    axes.barh([at + 0.2 for at in places], [one.p95 for one in found], 0.4, color=SLOW, label="p95")
    axes.set_yticks(list(places), names)
    axes.invert_yaxis()
    axes.set(xlabel="seconds", title="How long each step took")
    axes.legend(loc="lower right")
