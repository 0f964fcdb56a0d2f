"""What providers that speak HTTP themselves have in common: what a failed connection means."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache

import httpx

from model.errors import Ambiguous, ConfigurationError, HelixError, Transient


@dataclass(frozen=True)
class Row:
    """What an answer means, and what to do about it."""

    cls: type[HelixError]
    hint: str = ""


def from_transport(error: httpx.TransportError, method: str, doing: str, who: str) -> HelixError:
    """The error that a failed connection stands for: a write may have been carried out unless the
    connection was never made.

    Args:
        doing: what was attempted, as a clause: «create a machine».
        who: whom we spoke to.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ConfigurationError(
                f"cannot {doing}: the certificate is not trusted: {cause.verify_message}",
                hint="a proxy may be in between: set SSL_CERT_FILE to its authority's PEM file",
            )
        cause = cause.__cause__ or cause.__context__
    never_sent = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout)
    cls = Transient if method == "GET" or never_sent else Ambiguous
    return cls(f"cannot {doing}: {who} does not answer ({type(error).__name__})")


def authorities() -> ssl.SSLContext:
    """Whom we trust; read once, as it takes longer than a call."""
    return _trusting(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _trusting(*_where: str | None) -> ssl.SSLContext:
    return httpx.create_ssl_context()


def seconds_of(value: str) -> float | None:
    """A Retry-After header: seconds, or a date."""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
