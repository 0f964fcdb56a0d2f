"""`helix logs`: what the running release prints, or what a build printed."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import output

if TYPE_CHECKING:
    from ledger.ledger import Ledger

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def logs(
    context: typer.Context,
    instance: Annotated[
        str, typer.Argument(help="The instance; with --build also a deployment's id.")
    ] = "",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on printing what comes; Ctrl-C ends it.")
    ] = False,
    build: Annotated[
        bool, typer.Option("--build", help="The output of the build, not of the release.")
    ] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", min=0, help="Only the last N lines.")
    ] = None,
    since: Annotated[
        str, typer.Option("--since", help="Only what is newer: 30s, 10m, 2h, 1d.")
    ] = "",
    json: output.Json = False,
) -> None:
    """Print what the running release logs, or with --build what its build printed.

    \b
    Examples:
      helix logs
      helix logs production --follow --tail 20
      helix logs --since 10m
      helix logs --build                 the last deployment's build
      helix logs --build 3f2a9c1b        that deployment's build
    """
    from ledger.ledger import Ledger
    from worker.settings import load

    moment = _moment(since)
    ledger = Ledger(load().ledger_url)
    lines = (
        build_lines(ledger, instance, load().logs_dir, tail=tail, follow=follow)
        if build
        else release_lines(ledger, instance, since=moment, tail=tail, follow=follow)
    )
    try:
        for text in lines:
            if json:
                output.line({"line": text})
            else:
                output.say(text)
                if follow:
                    sys.stdout.flush()
    except KeyboardInterrupt:
        raise typer.Exit(0 if follow else 130) from None


def release_lines(
    ledger: Ledger,
    named: str,
    *,
    since: datetime | None,
    tail: int | None,
    follow: bool,
) -> Iterator[str]:
    """Lines of the release that runs.

    Raises:
        Usage, ConfigurationError, NotFound: it cannot be told which instance.
        HelixError: the platform does not tell.
    """
    from cli.find import find_instance
    from cli.platform import open_provider

    known = find_instance(ledger, named)
    with open_provider(known.instance) as provider:
        yield from provider.logs(since=since, tail=tail, follow=follow)


def build_lines(
    ledger: Ledger, named: str, logs_dir: Path, *, tail: int | None, follow: bool
) -> Iterator[str]:
    """Lines of a deployment's build log, while it grows or long after.

    Raises:
        NotFound: there is none: the build was skipped, or its log was cleared.
    """
    from cli.find import find_deployment
    from model.errors import NotFound
    from model.names import short_id
    from project.store import Store

    record = find_deployment(ledger, named)
    id, grown = record.deployment, logs_dir / record.deployment / "build.log"
    artifact = record.progress.artifact
    url = artifact.log_url if artifact else ""
    if grown.exists() or (follow and record.ended_at is None):
        over = lambda: ledger.get(id).ended_at is not None  # noqa: E731
        return _tailed(_growing(grown, over) if follow else _file_lines(grown), tail, follow)
    if url:
        return _tailed(iter(Store(url).read_text(url).splitlines()), tail, False)
    why = "nothing was built" if artifact and artifact.reused else "it has no build log"
    raise NotFound(
        f"deployment {short_id(id)} of {record.request.instance.key}: {why}",
        hint="name an earlier one: helix history, then helix logs --build DEPLOYMENT",
    )


def _file_lines(path: Path) -> Iterator[str]:
    with path.open(errors="replace") as file:
        for text in file:
            yield text.rstrip("\n")


def _growing(path: Path, over: Callable[[], bool]) -> Iterator[str]:
    """Lines of a file as they are written, until its deployment is over."""
    position, partial = 0, ""
    while True:
        last = over()
        if path.exists():
            with path.open(errors="replace") as file:
                file.seek(position)
                partial += file.read()
                position = file.tell()
            *whole, partial = partial.split("\n")
            yield from whole
        if last:
            if partial:
                yield partial
            return
        time.sleep(0.3)


def _tailed(lines: Iterator[str], tail: int | None, follow: bool) -> Iterator[str]:
    if tail is None or follow:
        return lines
    from collections import deque

    return iter(deque(lines, maxlen=tail))


def _moment(since: str) -> datetime | None:
    """How long ago, as a moment.

    Raises:
        Usage: it is no duration.
    """
    from cli.exits import Usage

    if not since:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", since.strip())
    if match is None:
        raise Usage(f"«{since}» is not a duration", hint="write 30s, 10m, 2h or 1d")
    return datetime.now(UTC) - timedelta(seconds=float(match[1]) * UNITS[match[2]])
