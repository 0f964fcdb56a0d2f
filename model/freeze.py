"""When not to deploy: windows of the week, or of the calendar, in which deployments are refused.

window = Window(days=("fri",), begins="16:00", reason="nobody is here on Saturday")
frozen([window], datetime.now(UTC))
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from model.base import Record
from model.errors import ConfigurationError, Frozen

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MIDNIGHT = "24:00"
"""The end of a day."""


class Window(Record):
    """A stretch of time that comes back on some days of the week."""

    days: tuple[str, ...] = ()
    """Of `DAYS`: those on which it begins; every day if empty."""
    begins: str = "00:00"
    """The time of day, HH:MM."""
    ends: str = MIDNIGHT
    """The time of day. At or before `begins`: on the next day."""
    first: date | None = None
    """The first day on which it may begin; None: it always could."""
    last: date | None = None
    """The last one."""
    timezone: str = "UTC"
    """An IANA name: Europe/Berlin."""
    reason: str = ""

    def until(self, moment: datetime) -> datetime | None:
        """When the window ends that a moment lies in, in UTC; None if it lies in none.

        Args:
            moment: with a time zone.

        Raises:
            ConfigurationError: the time zone is not known on this machine.
        """
        zone = zone_of(self.timezone)
        today = moment.astimezone(zone).date()
        for day in (today, today - timedelta(days=1)):
            if not self._begins_on(day):
                continue
            begin, end = _at(day, self.begins, zone), _at(day, self.ends, zone)
            if end <= begin:
                end = _at(day + timedelta(days=1), self.ends, zone)
            if begin <= moment < end:
                return end
        return None

    def _begins_on(self, day: date) -> bool:
        if self.days and DAYS[day.weekday()] not in self.days:
            return False
        return (self.first is None or day >= self.first) and (self.last is None or day <= self.last)


def frozen(windows: Iterable[Window], moment: datetime) -> Frozen | None:
    """The refusal of a deployment that starts at a moment; None if none of the windows holds then.

    Raises:
        ConfigurationError: a time zone is not known on this machine.
    """
    holding = [(end, one) for one in windows if (end := one.until(moment)) is not None]
    if not holding:
        return None
    end, last = max(holding, key=lambda each: each[0])
    reasons = dict.fromkeys(one.reason for _, one in holding if one.reason)
    why = f": {', '.join(reasons)}" if reasons else ""
    return Frozen(
        f"deployments are frozen until {end.astimezone(zone_of(last.timezone)):%Y-%m-%d %H:%M %Z}"
        f"{why}",
        hint='wait, or: helix push --override-freeze "why it cannot wait"',
    )


def zone_of(name: str) -> ZoneInfo:
    """A time zone by its IANA name.

    Raises:
        ConfigurationError: it is not known on this machine.
    """
    with suppress(KeyError, ValueError, OSError):
        return ZoneInfo(name)
    raise ConfigurationError(
        f"there is no time zone «{name}» on this machine",
        hint="write an IANA name such as Europe/Berlin, America/New_York or UTC",
    )


def _at(day: date, clock: str, zone: ZoneInfo) -> datetime:
    """A time of day as a moment in UTC: two moments of one zone are compared by their clocks, which
    is wrong in the nights when those are changed."""
    if clock == MIDNIGHT:
        day, clock = day + timedelta(days=1), "00:00"
    return datetime.combine(day, time.fromisoformat(clock), tzinfo=zone).astimezone(UTC)
