"""How well deployments went over a time: what `helix stats` shows."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Literal

from model.base import Record
from model.deployment import Failure, Outcome, StepRecord, StepState
from model.instance import Step

Period = Literal["day", "week", "month"]


class Sample(Record):
    """One deployment that has ended, as far as this is about it."""

    deployment: str
    instance: str
    """Its key."""
    started_at: datetime
    ended_at: datetime
    outcome: Outcome
    steps: tuple[StepRecord, ...] = ()
    failure: Failure | None = None

    @property
    def seconds(self) -> float:
        """How long it took, waiting for people included."""
        return (self.ended_at - self.started_at).total_seconds()


class Goals(Record):
    """What deployments are measured against."""

    success: float = 0.999
    """The share that must succeed."""
    seconds: float = 300
    """95 of 100 that succeed must take no longer."""


class Times(Record):
    """How long something took, in seconds."""

    count: int
    p50: float
    p95: float
    longest: float


class Cause(Record):
    """What made deployments fail."""

    step: str
    code: str
    count: int
    last: str
    """The last deployment of them."""
    message: str
    """What that one said."""


class Stats(Record):
    """Numbers of a set of deployments. None where there is nothing to divide."""

    deployments: int
    outcomes: dict[str, int]
    """Outcome -> how many; all four are there."""
    success_rate: float | None
    """Succeeded, of all that nobody cancelled."""
    in_time: float | None
    """Of those that succeeded, the share that took no longer than the goal."""
    times: Times | None
    """Of those that succeeded."""
    steps: dict[str, Times]
    """Step -> times of where it was done, all its attempts together."""
    causes: tuple[Cause, ...]
    """The most frequent first."""
    success_met: bool | None
    time_met: bool | None


class Span(Record):
    """One period, and what happened in it."""

    begins: date
    stats: Stats


class Report(Record):
    """All of `helix stats`."""

    since: datetime
    until: datetime
    goals: Goals
    total: Stats
    instances: dict[str, Stats]
    periods: tuple[Span, ...]


def report(
    samples: Sequence[Sample], since: datetime, until: datetime, goals: Goals, by: Period
) -> Report:
    """Put samples together: as a whole, by instance, and by period (UTC)."""
    of_instance: dict[str, list[Sample]] = defaultdict(list)
    of_period: dict[date, list[Sample]] = defaultdict(list)
    for sample in samples:
        of_instance[sample.instance].append(sample)
        of_period[beginning(sample.started_at.date(), by)].append(sample)
    return Report(
        since=since,
        until=until,
        goals=goals,
        total=summary(samples, goals),
        instances={key: summary(of_instance[key], goals) for key in sorted(of_instance)},
        periods=tuple(
            Span(begins=day, stats=summary(of_period[day], goals)) for day in sorted(of_period)
        ),
    )


def beginning(day: date, by: Period) -> date:
    """The first day of the period that a day is in; a week begins on Monday."""
    match by:
        case "day":
            return day
        case "week":
            return day - timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)


def summary(samples: Iterable[Sample], goals: Goals) -> Stats:
    """The numbers of a set of deployments."""
    samples = list(samples)
    outcomes = Counter(sample.outcome for sample in samples)
    good = [sample.seconds for sample in samples if sample.outcome is Outcome.SUCCEEDED]
    tried = len(samples) - outcomes[Outcome.CANCELLED]
    rate = len(good) / tried if tried else None
    times = times_of(good)
    return Stats(
        deployments=len(samples),
        outcomes={outcome.value: outcomes[outcome] for outcome in Outcome},
        success_rate=rate,
        in_time=sum(each <= goals.seconds for each in good) / len(good) if good else None,
        times=times,
        steps=_steps(samples),
        causes=tuple(_causes(samples)),
        success_met=None if rate is None else rate >= goals.success,
        time_met=None if times is None else times.p95 <= goals.seconds,
    )


def times_of(seconds: Sequence[float]) -> Times | None:
    """Their quantiles; None if there are none."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    return Times(
        count=len(ordered),
        p50=quantile(ordered, 0.5),
        p95=quantile(ordered, 0.95),
        longest=ordered[-1],
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which a share of the values is, between two by their distance."""
    at = share * (len(ordered) - 1)
    below = int(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (at - below) * (ordered[above] - ordered[below])


def _steps(samples: Iterable[Sample]) -> dict[str, Times]:
    took: dict[Step, list[float]] = defaultdict(list)
    for sample in samples:
        for one in sample.steps:
            if one.state is StepState.DONE and one.started_at and one.ended_at:
                took[one.step].append((one.ended_at - one.started_at).total_seconds())
    return {step.value: times for step in Step if (times := times_of(took[step]))}


def _causes(samples: Iterable[Sample]) -> Iterable[Cause]:
    found: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.failure is not None:
            found[sample.failure.step, sample.failure.code].append(sample)
    for (step, code), ones in sorted(found.items(), key=lambda item: (-len(item[1]), item[0])):
        last = max(ones, key=lambda one: one.started_at)
        assert last.failure is not None
        message = (last.failure.message.splitlines() or [""])[0]
        yield Cause(step=step, code=code, count=len(ones), last=last.deployment, message=message)
