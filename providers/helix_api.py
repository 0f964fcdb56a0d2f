"""A client of Helix Cloud's API, as far as HelixDB's open-source CLIs use it.

Source: HelixDB/helix-db, `helix-cli/src/commands/{integrations/helix,sync,logs}` (standard
clusters, until May 2026) and `crates/cli/src/commands/{enterprise_deploy,sync}.rs` (enterprise
clusters). No list of versions, no id of an operation and no way to delete is known. Nothing is
repeated here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from model.errors import Ambiguous, ConfigurationError, HelixError, NotFound
from model.helix_errors import EVENTS, PROGRESS, SUCCESSES, from_status
from providers.http import authorities, from_transport, seconds_of

ADDRESS = "https://cloud.helix-db.com"
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
TIMEOUT = httpx.Timeout(15, connect=5)
DEPLOY_TIMEOUT = httpx.Timeout(30, connect=5, read=300)
"""Between two events; the CLI knows no limit."""
WHO = "Helix Cloud"

Json = dict[str, Any]


def base_url(endpoint: str, authority: str) -> str:
    """Where the API is.

    Args:
        endpoint: what the settings name, if anything.
        authority: CLOUD_AUTHORITY, as the CLI has it: a host with or without scheme and port.

    Raises:
        ConfigurationError: the key would go over the network in the clear.
    """
    named = (endpoint or authority or ADDRESS).rstrip("/")
    if "://" not in named:
        scheme = "http" if urlsplit(f"//{named}").hostname in LOOPBACK else "https"
        named = f"{scheme}://{named}"
    parts = urlsplit(named)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK):
        return named
    raise ConfigurationError(
        f"«{named}» is not an address that a key may be sent to", hint="write https://…"
    )


class HelixApi:
    """The calls for one cluster.

    Args:
        base: from `base_url`.
        cluster: the cluster's id.
        enterprise: whether it is an enterprise cluster.
        key: the user's key.
    """

    def __init__(self, base: str, cluster: str, enterprise: bool, key: SecretStr) -> None:
        self._base = base
        self._cluster = f"/api/cli/{'enterprise-' if enterprise else ''}clusters/{cluster}"
        self._key = key

    @cached_property
    def _http(self) -> httpx.Client:
        return httpx.Client(
            base_url=self._base,
            headers={"x-api-key": self._key.get_secret_value(), "user-agent": "helix-deploy"},
            timeout=TIMEOUT,
            verify=authorities(),
        )

    def close(self) -> None:
        """Give back the connections."""
        if "_http" in self.__dict__:
            self._http.close()

    def workspaces(self) -> list[Json]:
        """Those that the key may see."""
        found = self._get("/api/cli/workspaces", "ask Helix Cloud who we are")
        return found if isinstance(found, list) else []

    def project(self) -> Json:
        """Whose the cluster is: an error if it is not there, or not ours to see."""
        return self._object(self._get(f"{self._cluster}/project", "look for the cluster"))

    def snapshot(self) -> Json | None:
        """What was deployed last: source_files, helix_toml; None if nothing ever was."""
        try:
            return self._object(self._get(f"{self._cluster}/sync", "read what is deployed"))
        except NotFound:
            return None

    def indexes(self) -> Json:
        """Which database machines are ready."""
        return self._object(self._get(f"{self._cluster}/indexes", "ask whether it is ready"))

    def logs(self, begin: int, end: int) -> list[str]:
        """The lines between two moments: Unix time."""
        found = self._object(
            self._get(
                f"{self._cluster}/logs/range",
                "read the logs",
                {"start_time": begin, "end_time": end},
            )
        )
        return [str(one.get("message", "")) for one in found.get("logs") or []]

    def deploy(self, body: Json, report: Callable[[str], None]) -> str:
        """Deploy, and return when Helix Cloud says how that ended: the address, if it names one.

        Raises:
            BuildFailed: a query is wrong.
            Ambiguous: the answer was lost, or the stream ended before it told.
        """
        doing = "deploy the queries"
        with (
            self._sent("POST", doing),
            self._http.stream(
                "POST", f"{self._cluster}/deploy", json=body, timeout=DEPLOY_TIMEOUT
            ) as answer,
        ):
            if answer.is_error:
                answer.read()
                raise self._error(answer, doing)
            if "event-stream" in answer.headers.get("content-type", ""):
                return self._follow(answer.iter_lines(), report)
            answer.read()
            return str(self._object(self._json(answer)).get("url") or "")

    def _follow(self, lines: Iterator[str], report: Callable[[str], None]) -> str:
        """Read the events of a standard cluster. `deployed` carries the cluster's own key, which
        goes nowhere from here."""
        for line in lines:
            if not line.startswith("data:"):
                continue
            name, about = event_of(line.removeprefix("data:"))
            said = str(about.get("message") or about.get("error") or "")
            if name in SUCCESSES:
                return str(about.get("url") or "")
            if name in EVENTS:
                cls, hint = EVENTS[name]
                raise cls(f"Helix Cloud refuses the deployment: {said or name}", hint=hint)
            if name in PROGRESS:
                done = about.get("estimated_percentage") or about.get("percentage")
                share = f" ({done:.0f} %)" if isinstance(done, int | float) else ""
                report(f"{said or PROGRESS[name] or name}{share}"[:200])
        raise Ambiguous("Helix Cloud's stream ended before it told how the deployment went")

    def _get(self, path: str, doing: str, query: Json | None = None) -> Any:
        with self._sent("GET", doing):
            answer = self._http.get(path, params=query)
        if answer.is_error:
            raise self._error(answer, doing)
        return self._json(answer)

    @contextmanager
    def _sent(self, method: str, doing: str) -> Iterator[None]:
        try:
            yield
        except httpx.TransportError as error:
            raise from_transport(error, method, doing, WHO) from None

    def _error(self, answer: httpx.Response, doing: str) -> HelixError:
        said = " ".join(answer.text.split())[:300]
        cls, hint = from_status(answer.status_code, said)
        if answer.request.method == "POST" and answer.status_code >= 500:
            cls = Ambiguous
        return cls(
            f"cannot {doing}: Helix Cloud answers {answer.status_code} {said}".rstrip(),
            hint=hint,
            request_id=answer.headers.get("x-request-id", ""),
            retry_after=seconds_of(answer.headers.get("retry-after", "")),
        )

    @staticmethod
    def _json(answer: httpx.Response) -> Any:
        try:
            return answer.json() if answer.content else {}
        except ValueError:
            return {}

    @staticmethod
    def _object(found: Any) -> Json:
        return found if isinstance(found, dict) else {}


def event_of(data: str) -> tuple[str, Json]:
    """One event: a bare word, or an object whose only key names it. Empty if it is neither."""
    try:
        found = json.loads(data)
    except ValueError:
        return "", {}
    if isinstance(found, str):
        return found, {}
    if isinstance(found, dict) and len(found) == 1:
        name, about = next(iter(found.items()))
        return str(name), about if isinstance(about, dict) else {"message": about}
    return "", {}
