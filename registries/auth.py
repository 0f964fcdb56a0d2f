"""How a client proves who it is to a registry: not at all, by Basic, or by a Bearer token.

A registry answers 401 and names the way in `WWW-Authenticate`. For Bearer the token comes from the
server that `realm` names, for the scopes we ask, against a user name and password or an identity
token (the distribution project's «token authentication» and «OAuth2 token» pages).
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field

import httpx

from model.errors import AuthExpired, ConfigurationError, HelixError, PermissionDenied
from registries.base import Credentials
from registries.credentials import IDENTITY_TOKEN
from registries.errors import from_response
from registries.reference import is_loopback

CLIENT_ID = "helix-deploy"
DEFAULT_LIFE = 60.0
"""Seconds a token lives if its server does not say (distribution's token specification)."""
MARGIN = 10.0
"""Seconds before its end from which on a token is no longer used, so that it survives the way."""


@dataclass(frozen=True)
class Challenge:
    """One way in, as `WWW-Authenticate` names it."""

    scheme: str
    """Lower case: `bearer`, `basic`."""
    parameters: Mapping[str, str] = field(default_factory=dict)


_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))')
_SCHEME = re.compile(rf"({_TOKEN})(?=\s|,|$)")


def challenges(header: str) -> list[Challenge]:
    """Take a WWW-Authenticate header apart; several may stand in one, parted by commas (RFC 9110,
    section 11.6.1)."""
    found: list[tuple[str, dict[str, str]]] = []
    position = 0
    while position < len(header):
        if match := _PARAMETER.match(header, position):
            value = match[3] if match[2] is None else re.sub(r"\\(.)", r"\1", match[2])
            if found:
                found[-1][1][match[1].lower()] = value
        elif match := _SCHEME.match(header, position):
            found.append((match[1].lower(), {}))
        position = match.end() if match else position + 1
    return [Challenge(scheme, parameters) for scheme, parameters in found]


class RegistryAuth(httpx.Auth):
    """Answers a registry's challenge, for all requests of one client.

    Args:
        host: the registry, for messages.
        scopes: what the tokens are for: `repository:acme/shop:pull,push`.
        credentials: asked whenever a new token is needed; None means anonymous.
    """

    def __init__(
        self, host: str, scopes: Sequence[str], credentials: Callable[[], Credentials | None]
    ) -> None:
        self.host = host
        self.scopes = tuple(scopes)
        self.token = ""
        """The Bearer token in use; empty before the first challenge and with Basic."""
        self.user = ""
        """Who the last credentials named; empty if anonymous."""
        self._credentials = credentials
        self._header = ""
        self._until = float("inf")
        self._challenge: Challenge | None = None
        self._accepted = False
        self._why = ""

    def sync_auth_flow(
        self, request: httpx.Request
    ) -> Generator[httpx.Request, httpx.Response, None]:
        """Send with what we have; on a 401 get what is asked for and, if the request can be sent
        twice, send it once more. An old token is replaced before it is refused."""
        if self._challenge is not None and time.monotonic() > self._until:
            yield from self._renew(self._challenge)
        if sent := self._header:
            request.headers["Authorization"] = sent
        response = yield request
        if response.status_code != 401:
            self._accepted = self._accepted or bool(sent)
            return
        response.read()
        challenge = self._choose(response)
        if challenge is None:
            return
        if not isinstance(request.stream, httpx.ByteStream):
            # The body of a stream is spent: its owner begins again, with a new token.
            self._challenge, self._until = challenge, 0
            return
        yield from self._renew(challenge)
        if not self._header:
            return
        request.headers["Authorization"] = self._header
        response = yield request
        if response.status_code == 401:
            self._choose(response)
        else:
            self._accepted = True

    def refused(self, error: HelixError) -> HelixError:
        """What a refusal means: credentials that were good a moment ago have expired, others are
        wrong or may not do this."""
        who = f"user «{self.user}»" if self.user else "an anonymous client"
        if self._accepted and self.user and self._why != "insufficient_scope":
            return AuthExpired(
                f"the registry {self.host} no longer accepts the credentials of {who}",
                hint=f"log in again: docker login {self.host}, or renew the password in "
                "[deploy.<instance>.registry]",
                request_id=error.request_id,
            )
        return PermissionDenied(
            f"the registry {self.host} refused {who}: {error.message}",
            hint=login_hint(self.host),
            request_id=error.request_id,
        )

    def _choose(self, response: httpx.Response) -> Challenge | None:
        """The best way in that the registry offers and we know."""
        offered = challenges(", ".join(response.headers.get_list("www-authenticate")))
        by_scheme = {challenge.scheme: challenge for challenge in offered}
        chosen = by_scheme.get("bearer") or by_scheme.get("basic")
        self._why = chosen.parameters.get("error", "") if chosen else ""
        return chosen

    def _renew(self, challenge: Challenge) -> Generator[httpx.Request, httpx.Response, None]:
        credentials = self._credentials()
        self.user = _name(credentials)
        self._challenge = challenge
        if challenge.scheme == "basic":
            self._header = _basic(credentials) if credentials else ""
            return
        response = yield self._token_request(challenge, credentials)
        response.read()
        if response.status_code in (401, 403):
            raise self.refused(from_response(response, f"log in at {response.request.url.host}"))
        if response.is_error:
            raise from_response(response, f"get a token for {self.host}")
        self._keep(response)

    def _token_request(
        self, challenge: Challenge, credentials: Credentials | None
    ) -> httpx.Request:
        """GET with Basic, or POST for an identity token, which knows no other way."""
        realm = challenge.parameters.get("realm", "")
        try:
            url = httpx.URL(realm)
        except httpx.InvalidURL:
            url = httpx.URL()
        if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.host)):
            raise ConfigurationError(
                f"the registry {self.host} sends clients to «{realm}» for a token",
                hint="credentials go over TLS only: the registry's realm must begin with https://",
            )
        service = challenge.parameters.get("service", "")
        if credentials is not None and credentials.username == IDENTITY_TOKEN:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": credentials.password.get_secret_value(),
                "service": service,
                "client_id": CLIENT_ID,
                "scope": " ".join(self.scopes),
            }
            return httpx.Request("POST", url, data=form)
        query: dict[str, str | list[str]] = {"scope": list(self.scopes)}
        if service:
            query["service"] = service
        headers = {}
        if credentials is not None:
            query["client_id"] = CLIENT_ID
            headers["Authorization"] = _basic(credentials)
        return httpx.Request("GET", url.copy_merge_params(query), headers=headers)

    def _keep(self, response: httpx.Response) -> None:
        try:
            answer = response.json()
            token = str(answer.get("token") or answer["access_token"])
            life = float(answer.get("expires_in") or DEFAULT_LIFE)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ConfigurationError(
                f"the token server of {self.host} gave an answer without a token",
                hint="check the realm of the registry's configuration",
            ) from None
        self.token = token
        self._header = f"Bearer {token}"
        self._until = time.monotonic() + max(life - MARGIN, life / 2)


def login_hint(host: str) -> str:
    """What to do about refused credentials."""
    return f"run: docker login {host}, or set username and password in [deploy.<instance>.registry]"


def _name(credentials: Credentials | None) -> str:
    """Who the credentials name; an identity token names nobody."""
    if credentials is None:
        return ""
    return "identity token" if credentials.username == IDENTITY_TOKEN else credentials.username


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.password.get_secret_value()}"
    return "Basic " + base64.b64encode(pair.encode()).decode()
