"""Logging of the worker: one line an event, as text or JSON, each naming what it is about. What
Temporal's own core says comes out in the same form (`worker.metrics.runtime`)."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from model.names import short_id
from worker.about import About, about, of_core
from worker.settings import Settings

FIELDS = About._fields
"""What every line carries if it is about a deployment."""


def configure_logging(settings: Settings, redact: Callable[[str], str] = lambda text: text) -> None:
    """Send all logging of this process to the standard error. Replaces an earlier set-up.

    Args:
        redact: takes secrets out of a finished line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(subject)
    handler.setFormatter(FORMATS[settings.log_format](redact))
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)
    # They tell every request or statement, and nobody asked.
    for name in ("httpx", "httpcore", "urllib3", "docker", "alembic", "sqlalchemy", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.root.level))


def subject(record: logging.LogRecord) -> bool:
    """A filter that keeps every record and notes which deployment it is about."""
    from_core = getattr(record, "temporal_log", None)
    found = about() if from_core is None else of_core(from_core.fields)
    for name, value in found._asdict().items():
        setattr(record, name, value)
    return True


class TextFormat(logging.Formatter):
    """`2026-11-24T10:00:00.000Z INFO [acme/shop build 1f2c9ab0] cli: message`"""

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback if there is one; each with the same beginning."""
        deployment, instance, step = (getattr(record, name, "") for name in FIELDS)
        subject = " ".join(part for part in (instance, step, short_id(deployment)) if part)
        head = f"{_time(record)} {record.levelname:<7} " + (f"[{subject}] " if subject else "")
        text = f"{record.name}: {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        # Each line stands for itself: nothing that a program printed can pass for another entry.
        return "\n".join(head + line for line in self._redact(text).splitlines())


class JsonFormat(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """The object; fields without a value are left out."""
        found: dict[str, str] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._redact(record.getMessage()),
        }
        found |= {name: value for name in FIELDS if (value := getattr(record, name, ""))}
        if record.exc_info:
            found["error"] = self._redact(self.formatException(record.exc_info))
        return json.dumps(found, ensure_ascii=False)


FORMATS: dict[str, Callable[[Callable[[str], str]], logging.Formatter]] = {
    "text": TextFormat,
    "json": JsonFormat,
}


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
