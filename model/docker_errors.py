"""What an engine, a builder or a registry means by a sentence.

Docker reports most failures as text only: in a push stream that began with HTTP 200, on the
standard error of a build, or in the body of a 500. The first row whose pattern is found wins, so
the rows run from the precise to the vague. Sentences seen on engine 20.10, BuildKit 0.11 to 0.26
and registry 2.8.2.
"""

from __future__ import annotations

import re

from model.errors import (
    AuthExpired,
    BuildFailed,
    ConfigurationError,
    Conflict,
    HelixError,
    NotFound,
    PermissionDenied,
    PlatformUnhealthy,
    Throttled,
    Transient,
)

Rows = tuple[tuple[str, type[HelixError], str], ...]
"""Pattern, case ignored -> what it means, and what to do."""

TABLE: tuple[tuple[str, type[HelixError]], ...] = (
    (r"no space left on device|disk quota exceeded", PlatformUnhealthy),
    (r"did not complete successfully|executor failed|returned a non-zero code", BuildFailed),
    (r"unknown instruction|dockerfile parse error|failed to compute cache key", BuildFailed),
    (r"no active session", ConfigurationError),
    (r"port is already allocated|address already in use", Conflict),
    (r"docker daemon.{0,4} running|connect to the docker (api|daemon)", PlatformUnhealthy),
    (r"x509:|certificate signed by|server gave http response to https client", ConfigurationError),
    (r"invalid reference format|no matching manifest for|invalid mount config", ConfigurationError),
    (r"token (has|is) expired|expired ?token", AuthExpired),
    (r"toomanyrequests|too many requests|rate limit|status:? 429", Throttled),
    (
        r"unauthorized|authentication required|no basic auth credentials"
        r"|incorrect username or password",
        PermissionDenied,
    ),
    (r"denied|insufficient_scope|not allowed", PermissionDenied),
    (r"connection refused|connection reset|reset by peer|broken pipe|i/o timeout", Transient),
    (r"tls handshake timeout|client\.timeout|deadline exceeded|timed out", Transient),
    (r"no such host|server misbehaving|network is unreachable|no route to host", Transient),
    (r"\beof\b|blob upload (unknown|invalid)|upload resumable", Transient),
    (r"\b50[0234] |status(?: code)?:? 50[0234]|service unavailable|bad gateway", Transient),
    (r"immutable|already exists|update out of sequence", Conflict),
    (r"manifest unknown|not found|name unknown|repository does not exist|no such image", NotFound),
    (r"failed to solve|failed to build", BuildFailed),
)
"""Pattern, case ignored -> what it means."""

_ROWS = tuple((re.compile(pattern, re.IGNORECASE), cls) for pattern, cls in TABLE)


def classify(message: str, default: type[HelixError] = PlatformUnhealthy) -> type[HelixError]:
    """The class of the error a message tells of.

    Args:
        message: the sentence, as the tool gave it; several lines are fine.
        default: the answer where no row fits.
    """
    return next((cls for pattern, cls in _ROWS if pattern.search(message)), default)
