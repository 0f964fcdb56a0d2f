"""What Google Cloud's errors mean, as data, for everything that talks to it with its SDK.

Sources: the canonical codes of gRPC, the reasons of `google.api.ErrorReason`, the exceptions of
google-api-core 2.44 and google-auth 2.62. The SDK itself is not imported: an error is known by its
gRPC code, by the reason in its `ErrorInfo`, or by the name of its class.
"""

from __future__ import annotations

import re
from typing import Any

from model.errors import (
    Ambiguous,
    AuthExpired,
    Busy,
    ConfigurationError,
    Conflict,
    HelixError,
    NotFound,
    PermissionDenied,
    PlatformUnhealthy,
    QuotaExceeded,
    Throttled,
    Transient,
)

CODES: dict[str, type[HelixError]] = {
    "UNAVAILABLE": Transient,
    "INTERNAL": Transient,
    "UNKNOWN": Transient,
    "CANCELLED": Transient,
    "DEADLINE_EXCEEDED": Ambiguous,
    # A stale etag: the next attempt reads it anew.
    "ABORTED": Busy,
    "RESOURCE_EXHAUSTED": QuotaExceeded,
    "UNAUTHENTICATED": AuthExpired,
    "PERMISSION_DENIED": PermissionDenied,
    "NOT_FOUND": NotFound,
    "ALREADY_EXISTS": Conflict,
    "INVALID_ARGUMENT": ConfigurationError,
    "OUT_OF_RANGE": ConfigurationError,
    "UNIMPLEMENTED": ConfigurationError,
    "FAILED_PRECONDITION": ConfigurationError,
    "DATA_LOSS": PlatformUnhealthy,
}
"""gRPC code -> what it means. `DEADLINE_EXCEEDED` of a read is only transient."""

REASONS: dict[str, type[HelixError]] = {
    "RATE_LIMIT_EXCEEDED": Throttled,
    "RESOURCE_QUOTA_EXCEEDED": QuotaExceeded,
    "SERVICE_DISABLED": ConfigurationError,
    "BILLING_DISABLED": ConfigurationError,
    "CONSUMER_INVALID": ConfigurationError,
    "LOCATION_ORG_POLICY_VIOLATED": ConfigurationError,
    "CONSUMER_SUSPENDED": PermissionDenied,
    "ACCESS_TOKEN_EXPIRED": AuthExpired,
    "CREDENTIALS_MISSING": PermissionDenied,
    "ACCESS_TOKEN_SCOPE_INSUFFICIENT": PermissionDenied,
    "ACCESS_TOKEN_TYPE_UNSUPPORTED": PermissionDenied,
    "ACCOUNT_STATE_INVALID": PermissionDenied,
    "IAM_PERMISSION_DENIED": PermissionDenied,
}
"""The reason in an error's `ErrorInfo` -> what it means. Goes before the code."""

MESSAGES: tuple[tuple[str, str, type[HelixError]], ...] = (
    ("RESOURCE_EXHAUSTED", r"per (second|minute)|rate limit|too many requests", Throttled),
    ("PERMISSION_DENIED", r"has not been used in project|it is disabled", ConfigurationError),
)
"""Code, pattern and meaning, where an older API gives no reason; case is ignored."""

EXCEPTIONS: dict[str, type[HelixError]] = {
    # google-api-core's, of an API that is asked by HTTP.
    "BadRequest": ConfigurationError,
    "Conflict": Conflict,
    "Forbidden": PermissionDenied,
    "PreconditionFailed": Conflict,
    "TooManyRequests": Throttled,
    "Unauthorized": AuthExpired,
    "DefaultCredentialsError": PermissionDenied,
    "MalformedError": ConfigurationError,
    "MutualTLSChannelError": ConfigurationError,
    "OAuthError": AuthExpired,
    "ReauthFailError": AuthExpired,
    "RefreshError": AuthExpired,
    "TransportError": Transient,
    "RetryError": Transient,
}
"""Exceptions that carry no gRPC code, google-auth's above all, by name -> what they mean. One that
says it is retryable is transient."""

LOGIN = (
    "log in: gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS; "
    "see docs/providers/gcp.md"
)
_STATUS_PAGE = "and https://status.cloud.google.com may say more"
HINTS: dict[type[HelixError], str] = {
    Transient: f"Google Cloud has trouble; it is tried again, {_STATUS_PAGE}",
    Ambiguous: "the next attempt looks for what this one did",
    PlatformUnhealthy: f"Google Cloud cannot carry it out, {_STATUS_PAGE}",
    NotFound: "correct project_id, region or the name in the instance's table, or make it",
    Conflict: "something of this name is there already: remove it, or rename the instance",
    ConfigurationError: "correct the setting that the message names; see docs/providers/gcp.md",
    Throttled: "Google asks for fewer calls; it is tried again",
    QuotaExceeded: "ask for more under «Quotas» in the console, or remove what is not needed",
    AuthExpired: LOGIN,
    PermissionDenied: "see the permissions in docs/providers/gcp.md",
    Busy: "something else is changing it; it is tried again",
}
"""What to do, where the class alone says it."""
REASON_HINTS = {
    "SERVICE_DISABLED": "enable the API: gcloud services enable {service}",
    "BILLING_DISABLED": "link a billing account: gcloud billing projects link",
    "CREDENTIALS_MISSING": LOGIN,
    "LOCATION_ORG_POLICY_VIOLATED": "choose a region that your organisation allows",
}
"""What to do about a reason."""

HTTP_REQUEST_ID = "x-guploader-uploadid"
"""The header that names a request to Cloud Storage, for Google's support."""

_BY_MESSAGE = tuple(
    (code, re.compile(pattern, re.IGNORECASE), cls) for code, pattern, cls in MESSAGES
)
_PERMISSION = re.compile(r"[Pp]ermission '([\w.]+)'")


def classify(code: str, reason: str = "", message: str = "") -> type[HelixError]:
    """The class of an answer.

    Args:
        code: the name of the gRPC code.
        reason: the reason of its `ErrorInfo`, if it has one.
        message: only looked at where there is no known reason.
    """
    if reason in REASONS:
        return REASONS[reason]
    for at, pattern, cls in _BY_MESSAGE:
        if at == code and pattern.search(message):
            return cls
    return CODES.get(code, Transient)


def translate(error: Exception, doing: str, *, reads: bool = False) -> HelixError:
    """The error that an exception of google-api-core, grpc or google-auth stands for.

    Args:
        doing: the permission that the call needs: `run.services.update`.
        reads: the call changes nothing.
    """
    status = getattr(error, "grpc_status_code", None)
    if status is None:
        return _of_exception(error, doing)
    reason = getattr(error, "reason", None) or ""
    message = str(getattr(error, "message", error))
    cls = classify(status.name, reason, message)
    if cls is Ambiguous and reads:
        cls = Transient
    return cls(
        f"{doing}: {message}",
        hint=_hint(error, cls, reason, message, doing),
        request_id=_request_id(error),
        retry_after=_retry_after(error),
    )


def _of_exception(error: Exception, doing: str) -> HelixError:
    names = [cls.__name__ for cls in type(error).__mro__]
    cls = next((EXCEPTIONS[name] for name in names if name in EXCEPTIONS), Transient)
    if getattr(error, "retryable", False):
        cls = Transient
    # The arguments of google-auth's errors may hold a whole answer: only its sentence goes on.
    said = str(error.args[0]) if error.args else type(error).__name__
    hint = LOGIN if cls is PermissionDenied else HINTS[cls]
    if "Forbidden" in names:
        hint = f"grant {doing} to these credentials: see docs/providers/gcp.md"
    return cls(f"{doing}: {said}", hint=hint, request_id=_request_id(error))


def _hint(error: Exception, cls: type[HelixError], reason: str, message: str, doing: str) -> str:
    if reason in REASON_HINTS:
        about = getattr(error, "metadata", None) or {}
        return REASON_HINTS[reason].format(service=about.get("service", "the API"))
    if cls is PermissionDenied:
        named = _PERMISSION.search(message)
        wanted = named[1] if named else doing
        return f"grant {wanted} to these credentials: see docs/providers/gcp.md"
    return HINTS.get(cls, "")


def _detail(error: Exception, field: str) -> Any:
    """A field of the first of the error's details that has it."""
    for detail in getattr(error, "details", None) or ():
        if (value := getattr(detail, field, None)) is not None:
            return value
    return None


def _request_id(error: Exception) -> str:
    """What Google calls the request: among the details of gRPC's errors, a header of HTTP's."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    return str(_detail(error, "request_id") or headers.get(HTTP_REQUEST_ID, ""))


def _retry_after(error: Exception) -> float | None:
    delay = _detail(error, "retry_delay")
    return float(delay.seconds + delay.nanos / 1e9) if delay is not None else None
