"""Cron expressions, as Temporal reads them.

Five fields (minute, hour, day of the month, month, day of the week), six (and the year) or seven
(seconds first); or @hourly, @daily, @weekly, @monthly, @yearly, or @every with a duration. Unlike
in a crontab, a day must match both the day of the month and the day of the week.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from model.errors import ConfigurationError

MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december",
)  # fmt: skip
WEEK = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
SHORT = ("@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")
EXAMPLE = "such as «0 4 * * *», every day at 4, or «30 2 * * sun», Sundays at 2:30"

_EVERY = re.compile(r"@every\s+((?=.*[1-9])(\d+(\.\d+)?(d|h|m|s))+)")


@dataclass(frozen=True)
class _Field:
    name: str
    least: int
    most: int
    names: tuple[str, ...] = ()
    first: int = 0
    """What the first of the names stands for."""

    def value(self, text: str) -> int:
        """A number or a name.

        Raises:
            ValueError: it is neither, or out of bounds.
        """
        for number, name in enumerate(self.names, self.first):
            if text.lower() in (name, name[:3]):
                return number
        if not re.fullmatch(r"\d{1,4}", text) or not self.least <= int(text) <= self.most:
            raise ValueError(f"«{text}» is no {self.name}: expected {self.least} to {self.most}")
        return int(text)

    def check(self, text: str) -> None:
        """A whole field: a list of `*`, values and ranges, each with a step if it has one.

        Raises:
            ValueError: what is wrong with it.
        """
        for part in text.split(","):
            span, slash, step = part.partition("/")
            if slash and not (step.isdecimal() and int(step)):
                raise ValueError(f"«{part}»: the step after «/» is a whole number from 1")
            if span == "*":
                continue
            low, dash, high = span.partition("-")
            begin = self.value(low)
            if dash and self.value(high) < begin:
                raise ValueError(f"«{span}» ends before it begins")


_SECOND = _Field("second", 0, 59)
_FIVE = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, MONTHS, 1),
    _Field("day of the week", 0, 7, WEEK),
)
_YEAR = _Field("year", 2000, 2100)
FIELDS = {5: _FIVE, 6: (*_FIVE, _YEAR), 7: (_SECOND, *_FIVE, _YEAR)}


def check(text: str) -> str:
    """A cron expression without surplus space.

    Raises:
        ConfigurationError: Temporal would not take it; says which part, and what is expected.
    """
    words = text.split()
    try:
        if text.strip().startswith("@"):
            _check_short(" ".join(words))
        elif len(words) not in FIELDS:
            raise ValueError(f"it has {len(words)} fields, expected 5")
        else:
            for field, word in zip(FIELDS[len(words)], words, strict=True):
                field.check(word)
    except ValueError as error:
        raise ConfigurationError(
            f"cron «{text}»: {error}", hint=f"write five fields, {EXAMPLE}"
        ) from None
    return " ".join(words)


def _check_short(text: str) -> None:
    if text.startswith("@every"):
        if not _EVERY.fullmatch(text):
            raise ValueError("expected a duration after @every, such as 6h or 1h30m")
    elif text not in SHORT:
        raise ValueError(f"expected one of {', '.join(SHORT)}, @every")
