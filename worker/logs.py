"""Logging of the worker: one line an event, as text or JSON, each naming what it is about."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from temporalio import activity, workflow

from worker.settings import Settings

FIELDS = ("deployment", "instance", "step")
"""What every line carries if it is about a deployment."""


def configure_logging(settings: Settings, redact: Callable[[str], str] = lambda text: text) -> None:
    """Send all logging of this process to the standard error. Replaces an earlier set-up.

    Args:
        redact: takes secrets out of a finished line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(about)
    handler.setFormatter(FORMATS[settings.log_format](redact))
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)
    # They tell every request or statement, and nobody asked.
    for name in ("httpx", "httpcore", "urllib3", "docker", "alembic", "sqlalchemy", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.root.level))


def about(record: logging.LogRecord) -> bool:
    """A filter that keeps every record and notes which deployment it is about."""
    for name, value in zip(FIELDS, _where(), strict=True):
        setattr(record, name, value)
    return True


def _where() -> tuple[str, str, str]:
    if activity.in_activity():
        running = activity.info()
        # The run is the deployment, and the workflow's id is the lock «deploy:<instance>».
        instance = (running.workflow_id or "").partition(":")[2]
        return running.workflow_run_id or "", instance, running.activity_type
    if workflow.in_workflow():
        info = workflow.info()
        return info.run_id, info.workflow_id.partition(":")[2], ""
    return "", "", ""


class TextFormat(logging.Formatter):
    """`2026-11-24T10:00:00.000Z INFO [acme/shop build 1f2c9ab0] cli: message`"""

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback if there is one."""
        deployment, instance, step = (getattr(record, name, "") for name in FIELDS)
        subject = " ".join(part for part in (instance, step, deployment[-12:][:8]) if part)
        line = f"{_time(record)} {record.levelname:<7} "
        line += f"[{subject}] " if subject else ""
        line += f"{record.name}: {record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return self._redact(line)


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
