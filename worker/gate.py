"""Who may read what is encrypted: the codec server's authentication.

Any of these opens it: the shared secret as a bearer token; a session cookie, which a browser gets
for the shared secret; a JSON Web Token of the identity provider that the Temporal UI logs in with.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from model.errors import ConfigurationError

SHORTEST_SECRET = 16
"""Characters. There is no other defence against guessing."""
SESSION_SECONDS = 12 * 3600
ALGORITHMS = [f"{family}{bits}" for family in ("RS", "PS", "ES") for bits in (256, 384, 512)]
"""Signatures by a key pair. Those by a shared key would let the public key sign."""


class Refused(Exception):
    """Not let in. The message is for the log, and holds nothing of what was presented."""


class SharedSecret:
    """One secret for everybody.

    Raises:
        ConfigurationError: it is too short.
    """

    def __init__(self, secret: SecretStr) -> None:
        self._secret = secret.get_secret_value().encode()
        if len(self._secret) < SHORTEST_SECRET:
            raise ConfigurationError(
                f"the codec server's shared secret is shorter than {SHORTEST_SECRET} characters",
                hint="make one: openssl rand -base64 32",
            )

    def fits(self, presented: str) -> bool:
        """Whether it is the secret; takes as long either way."""
        return hmac.compare_digest(presented.encode(), self._secret)

    def session(self, now: float | None = None) -> str:
        """What a browser keeps instead of the secret."""
        until = str(int((time.time() if now is None else now) + SESSION_SECONDS))
        return f"{until}.{self._signed(until)}"

    def is_session(self, cookie: str) -> bool:
        """Whether `session` made it, less than SESSION_SECONDS ago."""
        until, _, signature = cookie.partition(".")
        ours = hmac.compare_digest(signature.encode(), self._signed(until).encode())
        return ours and until.isdecimal() and int(until) > time.time()

    def _signed(self, until: str) -> str:
        return hmac.new(self._secret, f"codec session {until}".encode(), "sha256").hexdigest()


@dataclass(frozen=True)
class Issuer:
    """An identity provider whose tokens open the gate.

    Args:
        jwks: the URL of its public keys.
        issuer: what `iss` must be.
        audience: what `aud` must hold: the UI's client id, or the API it asks tokens for.
    """

    jwks: str
    issuer: str
    audience: str

    def __post_init__(self) -> None:
        from jwt import PyJWKClient

        # Not a field: it is no part of what an issuer is. It keeps the keys for five minutes.
        object.__setattr__(self, "_keys", PyJWKClient(self.jwks, timeout=10))

    async def subject(self, token: str) -> str:
        """Whose valid token this is.

        Raises:
            Refused: it is none.
        """
        return await asyncio.to_thread(self._subject, token)

    def _subject(self, token: str) -> str:
        import jwt

        keys: jwt.PyJWKClient = self._keys  # type: ignore[attr-defined]
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                keys.get_signing_key_from_jwt(token),
                algorithms=ALGORITHMS,
                issuer=self.issuer,
                audience=self.audience,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise Refused(f"the token is not good: {type(error).__name__}") from None
        return str(claims.get("email") or claims.get("sub") or "somebody")


@dataclass(frozen=True)
class Gate:
    """Lets in by any of its ways.

    Raises:
        ConfigurationError: it has none.
    """

    secret: SharedSecret | None = None
    issuer: Issuer | None = None

    def __post_init__(self) -> None:
        if self.secret is None and self.issuer is None:
            raise ConfigurationError(
                "the codec server would decrypt for everybody",
                hint="name a shared secret (--secret env:HELIX_CODEC_KEY), or the UI's identity "
                "provider (--jwks, --issuer, --audience)",
            )

    async def admit(self, authorization: str, cookie: str) -> str:
        """Who asks, for the log.

        Args:
            authorization: the request's header.
            cookie: the session cookie, if there is one.

        Raises:
            Refused: nothing that was presented is good.
        """
        if self.secret is not None and cookie and self.secret.is_session(cookie):
            return "a browser session"
        kind, _, token = authorization.partition(" ")
        if kind.lower() != "bearer" or not token:
            raise Refused("no bearer token")
        if self.secret is not None and self.secret.fits(token.strip()):
            return "the shared secret"
        if self.issuer is not None:
            return await self.issuer.subject(token.strip())
        raise Refused("the token is not the shared secret")
