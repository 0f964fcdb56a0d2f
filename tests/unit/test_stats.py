"""The numbers of `helix stats`, from deployments that are known exactly."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from cli.exits import Usage
from cli.plot import draw
from cli.stats import moment, percent
from model.deployment import Failure, Outcome, StepRecord, StepState
from model.instance import Step
from model.stats import Goals, Report, Sample, beginning, quantile, report, summary

START = datetime(2026, 11, 2, 10, 0, tzinfo=UTC)  # a Monday
GOALS = Goals()


def sample(
    seconds: float,
    outcome: Outcome = Outcome.SUCCEEDED,
    *,
    day: int = 0,
    code: str = "",
    instance: str = "shop/prod",
) -> Sample:
    began = START + timedelta(days=day)
    built = StepRecord(
        step=Step.BUILD,
        state=StepState.DONE,
        started_at=began,
        ended_at=began + timedelta(seconds=seconds / 2),
    )
    failed = Failure(step="push", code=code, message=f"{code} on day {day}\nand more")
    return Sample(
        deployment=f"0190-{day}",
        instance=instance,
        started_at=began,
        ended_at=began + timedelta(seconds=seconds),
        outcome=outcome,
        steps=(built, StepRecord(step=Step.PUSH, state=StepState.SKIPPED)),
        failure=failed if code else None,
    )


def test_a_cancelled_deployment_counts_for_neither_side() -> None:
    found = summary(
        [sample(1), sample(1), sample(1, Outcome.ROLLED_BACK), sample(1, Outcome.CANCELLED)], GOALS
    )
    assert found.success_rate == pytest.approx(2 / 3) and found.success_met is False
    assert found.outcomes == {
        "succeeded": 2, "rolled-back": 1, "cancelled": 1, "needs-attention": 0,
    }  # fmt: skip


def test_times_are_those_of_what_succeeded() -> None:
    good = [sample(each) for each in (10, 20, 30, 301)]
    found = summary([*good, sample(9999, Outcome.ROLLED_BACK)], GOALS)
    assert found.in_time == 0.75
    assert found.times is not None
    assert (found.times.p50, found.times.longest) == (25, 301)
    assert found.time_met is True and found.times.p95 == pytest.approx(260.35)
    assert found.steps["build"].count == 5 and "push" not in found.steps


def test_without_deployments_there_is_nothing_to_say() -> None:
    found = summary([], GOALS)
    assert (found.success_rate, found.in_time, found.times, found.success_met) == (None,) * 4


@pytest.mark.parametrize(("share", "value"), [(0, 1), (0.5, 2.5), (0.95, 3.85), (1, 4)])
def test_quantiles_lie_between_values(share: float, value: float) -> None:
    assert quantile([1, 2, 3, 4], share) == pytest.approx(value)
    assert quantile([7], share) == 7


def test_the_most_frequent_cause_comes_first_with_its_last_deployment() -> None:
    rolled = Outcome.ROLLED_BACK
    found = summary(
        [
            sample(1, rolled, day=3, code="Conflict"),
            sample(1, rolled, day=1, code="Transient"),
            sample(1, rolled, day=2, code="Transient"),
        ],
        GOALS,
    )
    assert [(one.code, one.count, one.last, one.message) for one in found.causes] == [
        ("Transient", 2, "0190-2", "Transient on day 2"),
        ("Conflict", 1, "0190-3", "Conflict on day 3"),
    ]


@pytest.mark.parametrize(
    ("by", "first"),
    [("day", date(2026, 11, 8)), ("week", date(2026, 11, 2)), ("month", date(2026, 11, 1))],
)
def test_a_period_begins_on_its_first_day(by: str, first: date) -> None:
    assert beginning(date(2026, 11, 8), by) == first  # type: ignore[arg-type]


def whole() -> Report:
    samples = [sample(10, day=day, instance=f"shop/{day % 2}") for day in range(10)]
    samples.append(sample(400, Outcome.ROLLED_BACK, day=9, code="Transient"))
    return report(samples, START, START + timedelta(days=10), GOALS, "week")


def test_a_report_is_by_instance_and_by_period() -> None:
    found = whole()
    assert list(found.instances) == ["shop/0", "shop/1", "shop/prod"]
    assert [one.stats.deployments for one in found.periods] == [7, 4]
    assert found.total.deployments == 11


def test_a_rate_is_never_rounded_up_to_the_goal() -> None:
    assert percent(0.99949) == "99.9 %" and percent(0.9989999) == "99.8 %"
    assert percent(1) == "100 %" and percent(None) == "-"


def test_since_is_a_duration_or_a_date() -> None:
    assert moment("2d", START) == START - timedelta(days=2)
    assert moment("2026-01-31", START) == datetime(2026, 1, 31, tzinfo=UTC)
    for wrong in ("yesterday", "-3d", "0d"):
        with pytest.raises(Usage, match="--since"):
            moment(wrong, START)


@pytest.mark.parametrize(
    ("name", "magic"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.PDF", b"%PDF")]
)
def test_a_picture_is_drawn(tmp_path: Path, name: str, magic: bytes) -> None:
    draw(whole(), "week", tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(magic)


def test_a_picture_of_nothing_is_drawn_too(tmp_path: Path) -> None:
    draw(report([], START, START, GOALS, "day"), "day", tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_a_picture_that_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Usage, match="cannot draw"):
        draw(whole(), "week", tmp_path / "a.gif")
    with pytest.raises(Usage, match="cannot write"):
        draw(whole(), "week", tmp_path / "absent" / "a.png")
