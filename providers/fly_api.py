"""A client of Fly's Machines API, and its answers as those of `model.errors`.

Source: the published OpenAPI document of the Machines API, and what flyctl does where it is silent.
Nothing is repeated here: every attempt is one that Temporal shows.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

import httpx
from pydantic import SecretStr

from model.errors import (
    Ambiguous,
    AuthExpired,
    Busy,
    ConfigurationError,
    Conflict,
    HelixError,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    Throttled,
    Transient,
)
from model.fly import API_ADDRESS, API_VARIABLE, authorization
from providers.http import Row, authorities, from_transport, seconds_of

LOGS_VARIABLE = "FLY_API_BASE_URL"
"""Names another address of the API that has the logs; flyctl reads it too."""
LOGS_ADDRESS = "https://api.fly.io"
TIMEOUT = httpx.Timeout(9, connect=5)
NONCE = "fly-machine-lease-nonce"
REQUEST_ID = "fly-request-id"

Json = dict[str, Any]


_TOKEN = "make a token with `fly tokens create deploy --app <app>` and set FLY_API_TOKEN to it"

TROUBLE = "Fly.io has trouble; it is tried again, and https://status.flyio.net may say more"

SENTENCES: tuple[tuple[int, str, Row], ...] = (
    (401, "expired", Row(AuthExpired, _TOKEN)),
    (422, "name_taken", Row(Conflict, "app names are shared by all of Fly.io: rename the "
     "instance, or use a token of the organisation that has the app")),
    (422, "has already been taken", Row(Conflict, "something of this name is there already")),
    (0, "insufficient_capacity", Row(QuotaExceeded, "set another `region`, or a smaller "
     "`vm_size`")),
    (422, "payment", Row(QuotaExceeded, "add a credit card at https://fly.io/dashboard")),
    (422, "limit", Row(QuotaExceeded, "ask Fly.io for a higher limit, or remove machines")),
    (422, "manifest", Row(NotFound, "the image is not in the registry: push again")),
)  # fmt: skip
"""Status (0: any), and a part of what the answer says, in lower case -> what that means."""

STATUS: dict[int, Row] = {
    400: Row(ConfigurationError, "see the message, and [cloud.<instance>.fly]"),
    401: Row(PermissionDenied, _TOKEN),
    402: Row(QuotaExceeded, "see https://fly.io/dashboard for the account's billing"),
    403: Row(PermissionDenied, _TOKEN),
    404: Row(
        NotFound, "see that the app is there, and of the token's organisation: helix push makes it"
    ),
    408: Row(Transient, TROUBLE),
    409: Row(Busy, "someone else holds the machine's lease: it ends by itself"),
    412: Row(Busy, "the machine changed meanwhile: it is read again"),
    422: Row(ConfigurationError, "see the message, and [cloud.<instance>.fly]"),
    429: Row(Throttled, "Fly.io asks for fewer calls; it is tried again"),
}
"""HTTP status -> what it means, where no sentence says more. From 500 on: transient."""

MAYBE_DONE = frozenset({408, 500, 502, 503, 504})
"""What a write may answer although it was carried out."""


def from_response(answer: httpx.Response, doing: str) -> HelixError:
    """The error that an answer stands for.

    Args:
        doing: what was attempted, as a clause: «create a machine».
    """
    status, said = answer.status_code, _words(answer)
    row = next(
        (row for code, part, row in SENTENCES if code in (0, status) and part in said.lower()), None
    )
    if row is None and answer.request.method == "POST" and status in MAYBE_DONE:
        row = Row(Ambiguous, "the next attempt looks for what this one did")
    if row is None:
        row = STATUS.get(status) or (Row(Transient, TROUBLE) if status >= 500 else STATUS[400])
    return row.cls(
        f"cannot {doing}: Fly.io answers {status} {said}".rstrip(),
        hint=row.hint,
        request_id=answer.headers.get(REQUEST_ID, ""),
        retry_after=seconds_of(answer.headers.get("retry-after", "")),
    )


class FlyApi:
    """The calls a provider needs, for one app. Paths are relative to the app.

    Args:
        app: the app's name.
        token: what to say who we are with.
    """

    def __init__(self, app: str, token: SecretStr) -> None:
        self.app = app
        self._token = token

    @cached_property
    def _http(self) -> httpx.Client:
        return httpx.Client(
            headers={"authorization": authorization(self._token), "user-agent": "helix-deploy"},
            timeout=TIMEOUT,
            verify=authorities(),
        )

    def call(
        self,
        method: str,
        path: str,
        doing: str,
        body: Json | None = None,
        *,
        nonce: str = "",
        query: Json | None = None,
        timeout: float = 0,
    ) -> Any:
        """One request to the app's part of the API; the answer's JSON, or None if it has none.

        Args:
            path: below /v1/apps/<app>; from /v1 on if it begins with `//`.
            doing: what it is for, as a clause; goes into the error.
            nonce: of the lease that we hold on the machine.
            timeout: seconds, where a call takes longer than most.
        """
        base = os.environ.get(API_VARIABLE, API_ADDRESS).rstrip("/")
        where = path[1:] if path.startswith("//") else f"/apps/{self.app}{path}"
        return self._request(method, f"{base}/v1{where}", doing, body, nonce, query, timeout)

    def find(self, path: str, doing: str, query: Json | None = None) -> Any:
        """As a GET by `call`; None if it is not there."""
        try:
            return self.call("GET", path, doing, query=query)
        except NotFound:
            return None

    def logs(self, query: Json) -> tuple[list[Json], str]:
        """One page of the app's log lines, and the token of the next."""
        base = os.environ.get(LOGS_VARIABLE, LOGS_ADDRESS).rstrip("/")
        url = f"{base}/api/v1/apps/{self.app}/logs"
        page = self._request("GET", url, f"read the logs of {self.app}", query=query) or {}
        lines = [one.get("attributes") or {} for one in page.get("data") or []]
        return lines, str((page.get("meta") or {}).get("next_token") or "")

    def close(self) -> None:
        """Give back the connections."""
        if "_http" in self.__dict__:
            self._http.close()

    def _request(
        self,
        method: str,
        url: str,
        doing: str,
        body: Json | None = None,
        nonce: str = "",
        query: Json | None = None,
        timeout: float = 0,
    ) -> Any:
        headers = {NONCE: nonce} if nonce else {}
        try:
            answer = self._http.request(
                method, url, json=body, headers=headers, params=query, timeout=timeout or TIMEOUT
            )
        except httpx.TransportError as error:
            raise from_transport(error, method, doing, "Fly.io") from None
        except httpx.InvalidURL:
            raise ConfigurationError(
                f"cannot {doing}: {url} is no address",
                hint=f"correct {API_VARIABLE} or {LOGS_VARIABLE}",
            ) from None
        if answer.is_error:
            raise from_response(answer, doing)
        try:
            return answer.json() if answer.content else None
        except ValueError:
            return None  # some calls answer «OK»


def _words(answer: httpx.Response) -> str:
    """What an answer says, by its `status` and `error`; bodies of other shapes are not repeated."""
    try:
        body = answer.json()
    except ValueError:
        return answer.reason_phrase
    if not isinstance(body, dict):
        return answer.reason_phrase
    parts = [str(body.get(key) or "") for key in ("status", "error", "message")]
    return ": ".join(part for part in parts if part and part != "unknown")[:500]
