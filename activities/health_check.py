"""The step `health-check`: N good answers in a row, within a deadline."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from activities import beat
from activities.boundary import step_activity
from activities.deploy import look
from model.errors import HealthCheckFailed
from model.instance import HealthCheck
from model.platform import Endpoint, Phase
from model.steps import BakeInput, HandleInput

if TYPE_CHECKING:
    from activities.services import Services
    from providers.base import CloudProvider

FAILURES_IN_A_ROW = 3
"""How many bad answers during the bake mean that the release went bad."""

Probe = Callable[[], str]
"""Probes once: the empty string if healthy, else what was wrong, in one line."""


class HealthCheckActivities:
    """Reads only."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @step_activity("check_health")
    def check_health(self, given: HandleInput) -> str:
        """Probe the release until it is healthy.

        Returns:
            One line that says what was seen.

        Raises:
            HealthCheckFailed: it exited, or was not healthy within the deadline; with the last
                answer and the last log lines.
        """
        check = given.instance.health_check
        with self._services.provider(given.instance) as provider:
            if check.kind == "none" or not provider.capabilities.runtime:
                return "not checked"
            probe = probe_for(check, provider, given.handle)
            return watch(check, probe, provider, given.handle)

    @step_activity("bake")
    def bake(self, given: BakeInput) -> None:
        """Watch the promoted release until a moment, and find it good.

        Raises:
            HealthCheckFailed: it exited, or failed `FAILURES_IN_A_ROW` probes.
        """
        check = given.instance.health_check
        with self._services.provider(given.instance) as provider:
            probe = probe_for(check, provider, given.handle)
            failures = 0
            while (left := (given.until - datetime.now(UTC)).total_seconds()) > 0:
                wrong = fault(provider, given.handle) or probe()
                failures = failures + 1 if wrong else 0
                if failures >= FAILURES_IN_A_ROW:
                    raise HealthCheckFailed(
                        f"the release went bad after it was promoted: {wrong}",
                        hint="mend it and push again; what ran before is being restored",
                        evidence=look(provider, given.handle).logs,
                    )
                beat.report(wrong or f"healthy, {left:.0f} s to go")
                beat.pause(max(check.interval, 1))


def fault(provider: CloudProvider, handle: str) -> str:
    """What the platform says is wrong with the revision; empty if nothing."""
    rollout = look(provider, handle)
    return rollout.detail or "it failed" if rollout.phase is Phase.FAILED else ""


def watch(check: HealthCheck, probe: Probe, provider: CloudProvider, handle: str) -> str:
    """Probe until the check is satisfied; a release that exits fails it at once."""
    started = time.monotonic()
    passed, last = 0, "no answer yet"
    while True:
        elapsed = time.monotonic() - started
        rollout = look(provider, handle)
        if rollout.phase is Phase.FAILED:
            raise HealthCheckFailed(
                f"the release does not run any more: {rollout.detail}",
                hint="mend it and push again; what ran before still runs",
                evidence=rollout.logs,
            )
        wrong = probe()
        passed = 0 if wrong else passed + 1
        if passed >= check.successes:
            return f"{passed} good answers in a row after {elapsed:.1f} s"
        last = wrong or last
        if elapsed > check.deadline:
            raise HealthCheckFailed(
                f"not healthy after {check.deadline:g} s: {last}",
                hint="see [deploy.<instance>.health_check] for what is probed and how long",
                evidence=look(provider, handle).logs,
            )
        beat.report(wrong if wrong else f"{passed} of {check.successes} good answers")
        # The first moments decide how long every deploy takes: look more often then.
        beat.pause(min(check.interval, 0.05 + elapsed / 4))


def probe_for(check: HealthCheck, provider: CloudProvider, handle: str) -> Probe:
    """How the check's kind looks at this revision.

    Raises:
        ConfigurationError, when it is called: the platform offers no way to look.
    """
    if check.kind == "none":
        return lambda: ""  # nothing is wrong that only a probe could tell
    if check.kind == "command":
        return lambda: run_command(check, provider, handle)
    endpoint = provider.endpoint(handle)
    if endpoint is None:
        return lambda: provider.probe(handle)
    return (lambda: dial(check, endpoint)) if check.kind == "tcp" else http_probe(check, endpoint)


def run_command(check: HealthCheck, provider: CloudProvider, handle: str) -> str:
    """A probe by a command beside the release."""
    code, output = provider.run_check(handle, check.command, check.timeout)
    last = output.strip().splitlines()[-1:] or [""]
    return "" if code == 0 else f"{check.command[0]} exited with {code} {last[0]}".rstrip()


def dial(check: HealthCheck, endpoint: Endpoint) -> str:
    """A probe by opening a TCP connection."""
    url = urlsplit(endpoint.url)
    address = (url.hostname or "", url.port or 80)
    try:
        socket.create_connection(address, timeout=check.timeout).close()
    except OSError as error:
        return f"port {address[1]} does not accept connections: {error.strerror or error}"
    return ""


def http_probe(check: HealthCheck, endpoint: Endpoint) -> Probe:
    """A probe by an HTTP GET."""
    import httpx

    from providers.http import authorities

    url = endpoint.url.rstrip("/") + check.path
    pattern = re.compile(check.body) if check.body else None

    def probe() -> str:
        try:
            answer = httpx.get(
                url,
                headers=endpoint.headers,
                timeout=check.timeout,
                follow_redirects=False,
                verify=authorities(),
            )
        except httpx.HTTPError as error:
            return f"GET {check.path}: {type(error).__name__}: {error}"
        good = answer.status_code in (check.status or range(200, 400))
        if not good:
            return f"GET {check.path} answers {answer.status_code}"
        if pattern is not None and not pattern.search(answer.text):
            return f"GET {check.path} answers {answer.status_code}, but not with {check.body!r}"
        return ""

    return probe
