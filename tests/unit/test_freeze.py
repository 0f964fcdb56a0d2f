"""Freeze windows: when they hold, through midnight, the calendar and changes of the clock."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from model.errors import ConfigurationError
from model.freeze import Window, frozen


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


FRIDAY = Window(days=("fri",), begins="16:00", timezone="Europe/Berlin", reason="weekend")
NIGHT = Window(days=("mon",), begins="22:00", ends="06:00")
HOLIDAYS = Window(first=date(2026, 12, 20), last=date(2027, 1, 3))
CLOCKS = Window(begins="01:00", ends="04:00", timezone="Europe/Berlin")


@pytest.mark.parametrize(
    ("window", "moment", "end"),
    [
        (FRIDAY, "2026-11-27T14:59", None),
        (FRIDAY, "2026-11-27T15:00", "2026-11-27T23:00"),  # 16:00 in Berlin
        (FRIDAY, "2026-11-27T23:00", None),
        (FRIDAY, "2026-11-26T15:00", None),
        (NIGHT, "2026-11-23T22:00", "2026-11-24T06:00"),
        (NIGHT, "2026-11-24T05:59", "2026-11-24T06:00"),
        (NIGHT, "2026-11-24T06:00", None),
        (NIGHT, "2026-11-23T05:00", None),
        (HOLIDAYS, "2026-12-19T23:59", None),
        (HOLIDAYS, "2027-01-03T23:59", "2027-01-04T00:00"),
        (HOLIDAYS, "2027-01-04T00:00", None),
        (CLOCKS, "2026-10-25T02:30", "2026-10-25T03:00"),  # the hour that comes twice
    ],
)
def test_a_window_holds_from_its_beginning_to_before_its_end(
    window: Window, moment: str, end: str | None
) -> None:
    assert window.until(at(moment)) == (at(end) if end else None)


def test_the_refusal_says_until_when_why_and_how_to_override_it() -> None:
    refusal = frozen([FRIDAY, NIGHT], at("2026-11-27T18:00"))
    assert refusal is not None
    assert "until 2026-11-28 00:00 CET: weekend" in refusal.message
    assert "--override-freeze" in refusal.hint
    assert frozen([FRIDAY], at("2026-11-28T18:00")) is None


def test_an_unknown_time_zone_is_named() -> None:
    with pytest.raises(ConfigurationError, match="Mars/Base"):
        Window(timezone="Mars/Base").until(at("2026-11-27T18:00"))
