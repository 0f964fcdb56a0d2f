"""`helix stats`: how well deployments went, against the goals."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import output
from cli.exits import Usage

if TYPE_CHECKING:
    from model.stats import Period, Report, Stats, Times

PERIODS = ("day", "week", "month")


def stats(
    context: typer.Context,
    instance: Annotated[
        str, typer.Argument(help="One instance; all of the project if left out.")
    ] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Every instance in the ledger, of all projects.")
    ] = False,
    since: Annotated[
        str, typer.Option("--since", help="How far back, such as 12h or 30d; or a date.")
    ] = "30d",
    by: Annotated[str, typer.Option("--by", help="Periods: day, week or month.")] = "week",
    goal_success: Annotated[
        float, typer.Option("--goal-success", min=0, max=100, help="Percent that must succeed.")
    ] = 99.9,
    goal_time: Annotated[
        str, typer.Option("--goal-time", help="95 of 100 must take no longer.")
    ] = "5m",
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw it: a .png, .svg or .pdf file.")
    ] = None,
    json: output.Json = False,
) -> None:
    """Success rate, times and causes, from the ledger. Needs no Temporal.

    A deployment that somebody cancelled counts for neither side. Steps count where they were done,
    all their attempts together.

    \b
    Examples:
      helix stats                          the project's last 30 days
      helix stats production --by day      one instance, day by day
      helix stats --all --since 2026-01-01 everything in the ledger since then
      helix stats --plot deploys.png       a picture too
    """
    from ledger.ledger import Ledger
    from model.stats import Goals, report
    from worker.settings import load

    now = datetime.now(UTC)
    begin, period = moment(since, now), _period(by)
    goals = Goals(success=goal_success / 100, seconds=_duration("--goal-time", goal_time))
    keys = _keys(instance, everything)
    samples = Ledger(load().ledger_url).samples(begin, now, keys)
    found = report(samples, begin, now, goals, period)
    if plot is not None:
        from cli.plot import draw

        draw(found, period, plot)
        output.note(f"drawn: {plot}")
    if json:
        output.document({"by": period, **found.model_dump(mode="json")})
        return
    for text in _lines(found):
        output.say(text)
    _tables(found, period)


def _keys(instance: str, everything: bool) -> list[str] | None:
    """The instances that are meant; None for all that the ledger knows."""
    from cli.choose import choose
    from cli.find import key_of
    from cli.project import open_project

    if everything:
        if instance:
            raise Usage("an instance and --all do not go together", hint="leave one of them out")
        return None
    project = open_project()
    names = [choose(project, instance)] if instance else [one.name for one in project.instances]
    return [key_of(project, name) for name in names]


def moment(text: str, now: datetime) -> datetime:
    """The moment that `--since` means.

    Raises:
        Usage: it means none.
    """
    try:
        day = datetime.fromisoformat(text)
        return day if day.tzinfo else day.replace(tzinfo=UTC)
    except ValueError:
        return now - timedelta(seconds=_duration("--since", text, "or a date such as 2026-01-31"))


def _duration(option: str, text: str, more: str = "") -> float:
    from project.deploy import seconds

    try:
        found = float(seconds(text))
    except ValueError:
        found = 0
    if found <= 0 or found > 100 * 365 * 86400:
        expected = f"a duration such as 30s, 5m or 30d {more}".strip()
        raise Usage(f"{option} is «{text}»", hint=f"write {expected}")
    return found


def _period(text: str) -> Period:
    for period in PERIODS:
        if period == text:
            return period  # type: ignore[return-value]
    raise Usage(f"--by is «{text}»", hint=f"write one of {', '.join(PERIODS)}")


def percent(share: float | None) -> str:
    """A share for people, never rounded up to a goal that was missed."""
    return "-" if share is None else f"{int(share * 1000) / 10:g} %"


def _lines(found: Report) -> Iterator[str]:
    total, goals = found.total, found.goals
    yield f"{found.since:%Y-%m-%d} to {found.until:%Y-%m-%d}: {total.deployments} deployments"
    if total.success_rate is not None:
        yield (
            f"  succeeded: {percent(total.success_rate)}"
            f"  (goal {percent(goals.success)}: {_verdict(total.success_met)})"
        )
    if total.times is not None:
        limit = output.seconds(goals.seconds)
        yield f"  in {limit} or less: {percent(total.in_time)}"
        yield (f"  took: {_times(total.times)}  (goal p95 {limit}: {_verdict(total.time_met)})")
    others = [f"{count} {name}" for name, count in total.outcomes.items() if count]
    if others:
        yield f"  ended: {', '.join(others)}"


def _verdict(met: bool | None) -> str:
    return "met" if met else "missed"


def _times(times: Times | None) -> str:
    if times is None:
        return "-"
    return f"p50 {output.seconds(times.p50)}, p95 {output.seconds(times.p95)}"


def _tables(found: Report, period: Period) -> None:
    from model.names import short_id

    total = found.total
    if total.steps:
        output.say()
        output.table(
            ("step", "done", "p50", "p95", "longest"),
            [
                (name, str(one.count), *map(output.seconds, (one.p50, one.p95, one.longest)))
                for name, one in total.steps.items()
            ],
        )
    if total.causes:
        output.say()
        output.table(
            ("failed", "step", "code", "last", ""),
            [
                (str(one.count), one.step, one.code, short_id(one.last), one.message)
                for one in total.causes
            ],
        )
    if len(found.instances) > 1:
        _numbers("instance", found.instances)
    if len(found.periods) > 1:
        _numbers(f"{period} of", {str(one.begins): one.stats for one in found.periods})


def _numbers(title: str, rows: dict[str, Stats]) -> None:
    output.say()
    output.table(
        (title, "deployments", "succeeded", "in time", "took"),
        [
            (name, str(one.deployments), percent(one.success_rate), percent(one.in_time),
             _times(one.times))
            for name, one in rows.items()
        ],
    )  # fmt: skip
