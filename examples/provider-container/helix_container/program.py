"""Runs `docker`, `podman` or `nerdctl`, and says in the pipeline's words what went wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from helix_deploy import (
    ConfigurationError,
    Conflict,
    HelixError,
    NotFound,
    PermissionDenied,
    PlatformUnhealthy,
    QuotaExceeded,
    Transient,
)

PATIENCE = 600
"""Seconds for one call: a pull may take that long."""

ERRORS: tuple[tuple[str, type[HelixError], str], ...] = (
    (r"no such|not found|does not exist", NotFound, "push again"),
    (r"port is already allocated|address already in use", Conflict, "choose another publish"),
    (r"already in use|already exists", Conflict, "see what it is: {program} ps --all"),
    (r"no space left", QuotaExceeded, "make room: {program} system df"),
    (r"unauthorized|denied", PermissionDenied, "may this user use {program}, and pull the image?"),
    (r"timeout|timed out|connection reset|too ?many ?requests", Transient, ""),
)
"""What a program says, the class of it, and what to do. The first that fits counts."""


class Program:
    """One engine's program, found in PATH."""

    def __init__(self, name: str) -> None:
        path = shutil.which(name)
        if path is None:
            raise ConfigurationError(
                f"there is no program {name} here", hint=f"install {name} where the worker runs"
            )
        self.name, self.path = name, path

    def run(self, *words: str, env: Mapping[str, str] | None = None) -> str:
        """Run it to its end and return what it printed.

        Args:
            env: more environment variables: how a secret reaches it, since everyone can read the
                arguments of a process.

        Raises:
            HelixError: it failed; which class, `ERRORS` says.
        """
        try:
            done = subprocess.run(
                [self.path, *words],
                env={**os.environ, **(env or {})},
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
        except subprocess.TimeoutExpired:
            raise Transient(f"{self.name} {words[0]} did not end in {PATIENCE} s") from None
        if done.returncode:
            raise self._error(words[0], done.stderr.strip())
        return done.stdout.strip()

    def lines(self, *words: str) -> Iterator[str]:
        """What it prints, line by line, both streams; it is ended with the iterator."""
        with subprocess.Popen(
            [self.path, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as running:
            assert running.stdout is not None
            try:
                for line in running.stdout:
                    yield line.rstrip("\r\n")
            finally:
                running.kill()

    def containers(self, label: str) -> list[dict[str, Any]]:
        """Everything that it knows of the containers with a label, running or not."""
        ids = self.run("ps", "--all", "--no-trunc", "--quiet", "--filter", f"label={label}").split()
        found = []
        for one in ids:
            try:
                found.append(self.inspect(one))
            except NotFound:
                continue  # removed since
        return found

    def inspect(self, container: str) -> dict[str, Any]:
        """Everything that it knows of a container.

        Raises:
            NotFound: it does not know the container.
        """
        text = self.run("inspect", "--type", "container", "--format", "{{json .}}", container)
        found: dict[str, Any] = json.loads(text)
        return found

    def _error(self, verb: str, said: str) -> HelixError:
        last = said.splitlines()[-1] if said else "it said nothing"
        for pattern, error, hint in ERRORS:
            if re.search(pattern, said, re.IGNORECASE):
                return error(f"{self.name} {verb}: {last}", hint=hint.format(program=self.name))
        return PlatformUnhealthy(f"{self.name} {verb}: {last}", hint=f"try: {self.name} info")


def options(name: str, values: Sequence[str]) -> list[str]:
    """An option that is given once for each value."""
    return [word for value in values for word in (name, value)]
