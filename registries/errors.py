"""What a registry's answers mean, as data.

Sources: the error codes of the OCI distribution specification 1.1 and of registry 2.8.2, and HTTP.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from model.errors import (
    ConfigurationError,
    Conflict,
    HelixError,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    Throttled,
    Transient,
)


@dataclass(frozen=True)
class Row:
    """What one code means, and what to do about it."""

    cls: type[HelixError]
    hint: str = ""


_LOGIN = "check the user name and password, and what they may do there"
_TROUBLE = "the registry has trouble; it is tried again"
_AGAIN = Row(Transient, "the upload is begun again")

CODES: dict[str, Row] = {
    "UNAUTHORIZED": Row(PermissionDenied, _LOGIN),
    "DENIED": Row(PermissionDenied, _LOGIN),
    "NAME_UNKNOWN": Row(NotFound, "create the repository, or correct its name"),
    "MANIFEST_UNKNOWN": Row(NotFound, "check the tag or digest, or push it again"),
    "BLOB_UNKNOWN": Row(NotFound, "a layer is gone from the registry: push the image again"),
    "MANIFEST_BLOB_UNKNOWN": _AGAIN,
    "BLOB_UPLOAD_UNKNOWN": _AGAIN,
    "BLOB_UPLOAD_INVALID": _AGAIN,
    "DIGEST_INVALID": _AGAIN,
    "SIZE_INVALID": _AGAIN,
    "RANGE_INVALID": _AGAIN,
    "NAME_INVALID": Row(ConfigurationError, "correct the repository's name"),
    "TAG_INVALID": Row(Conflict, "the registry may keep tags immutable: use another tag"),
    "MANIFEST_INVALID": Row(ConfigurationError, "the registry does not take this kind of image"),
    "UNSUPPORTED": Row(ConfigurationError, "the registry does not offer this operation"),
    "TOOMANYREQUESTS": Row(Throttled, "wait, or log in for a higher limit"),
    "QUOTA_EXCEEDED": Row(QuotaExceeded, "free some space in the registry"),
    "UNAVAILABLE": Row(Transient, _TROUBLE),
}
"""The registry's own error code -> what it means. Goes before the HTTP status."""

STATUS: dict[int, Row] = {
    400: Row(ConfigurationError, "the registry did not understand the request"),
    401: Row(PermissionDenied, _LOGIN),
    402: Row(QuotaExceeded, "see the registry's billing page"),
    403: Row(PermissionDenied, _LOGIN),
    404: Row(NotFound, "check the repository's name"),
    405: Row(ConfigurationError, "the registry does not offer this operation"),
    408: Row(Transient, _TROUBLE),
    409: Row(Conflict, "something else changed it meanwhile, or it may not be changed"),
    413: Row(QuotaExceeded, "the registry, or a proxy before it, limits the size of a layer"),
    416: _AGAIN,
    425: Row(Transient, _TROUBLE),
    429: Row(Throttled, "wait, or log in for a higher limit"),
    507: Row(QuotaExceeded, "the registry's disk is full"),
}
"""HTTP status -> what it means, where the answer has no code of its own. Others from 500 on are
transient, and the rest configuration errors."""

REQUEST_IDS = (
    "x-github-request-id",
    "x-amzn-requestid",
    "x-ms-correlation-request-id",
    "x-request-id",
    "docker-request-id",
    "fly-request-id",
)
"""Headers in which a registry names the request, for its support."""


def from_response(response: httpx.Response, doing: str) -> HelixError:
    """The error that an answer stands for. Its body must have been read.

    Args:
        doing: what was attempted, as a clause: «push the manifest to 127.0.0.1:5000/shop».
    """
    code, message = _first_error(response)
    row = CODES.get(code) or STATUS.get(response.status_code)
    if row is None or (response.status_code >= 500 and response.status_code != 507):
        row = Row(Transient, _TROUBLE) if response.status_code >= 500 else STATUS[400]
    said = ": ".join(part for part in (code, message) if part) or response.reason_phrase
    if limit := response.headers.get("ratelimit-limit"):
        said += f" (limit {limit}, left {response.headers.get('ratelimit-remaining', 'unknown')})"
    return row.cls(
        f"cannot {doing}: {response.status_code} {said}",
        hint=row.hint,
        request_id=next((v for h in REQUEST_IDS if (v := response.headers.get(h))), ""),
        retry_after=retry_after(response.headers.get("retry-after", "")),
    )


def from_transport(error: httpx.TransportError | httpx.InvalidURL, host: str) -> HelixError:
    """The error that a failed connection stands for."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return ConfigurationError(
                f"the certificate of the registry {host} is not trusted: {cause.verify_message}",
                hint="set `ca` of the registry to the PEM file of the authority that signed it, "
                "or, for a loopback address only, `insecure = true`",
            )
    if speaks_http(error):
        return ConfigurationError(
            f"the registry {host} does not speak TLS",
            hint="plain HTTP is for loopback addresses only: give the registry a certificate",
        )
    if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
        return ConfigurationError(
            f"the registry {host} gave an address that cannot be used: {error}",
            hint="check the registry's own configuration",
        )
    return Transient(
        f"the registry {host} does not answer: {str(error) or type(error).__name__}",
        hint="check that it runs and can be reached from the worker's machine",
    )


_NOT_TLS = {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"}
"""What OpenSSL 1.1 to 3.5 say of an answer that is no TLS."""


def speaks_http(error: BaseException) -> bool:
    """Whether a TLS handshake failed because the other side talks plain HTTP."""
    return any(
        isinstance(cause, ssl.SSLError) and cause.reason in _NOT_TLS for cause in _causes(error)
    )


def retry_after(value: str, now: datetime | None = None) -> float | None:
    """Seconds to wait, from a Retry-After header: seconds, a Unix time, or an HTTP date."""
    if not value:
        return None
    now = now or datetime.now(UTC)
    try:
        seconds = float(value)
        # Docker Hub sends the moment rather than the duration.
        return max(0.0, seconds - now.timestamp() if seconds > 1e9 else seconds)
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (ValueError, TypeError):
        return None


def _first_error(response: httpx.Response) -> tuple[str, str]:
    """Code and message of the first error in a registry's answer, or of an OAuth2 one."""
    try:
        body = response.json()
    except ValueError:
        return "", ""
    if not isinstance(body, dict):
        return "", ""
    errors = body.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else body
    if not isinstance(first, dict):
        return "", str(first)
    code = str(first.get("code") or first.get("error") or "")
    message = first.get("message") or first.get("error_description") or first.get("details") or ""
    return code.upper(), str(message)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
