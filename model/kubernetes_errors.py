"""What a Kubernetes API server's errors mean, as data.

Sources: `StatusReason` in k8s.io/apimachinery/pkg/apis/meta/v1/types.go, the admission plug-ins of
Kubernetes 1.36, and the exceptions of kubernetes-client 37 and urllib3 2. Neither is imported: an
error is known by the reason in its `Status`, by its HTTP status, or by the name of its class.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
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
    QuotaExceeded,
    Throttled,
    Transient,
)

REASONS: dict[str, type[HelixError]] = {
    "Unauthorized": AuthExpired,
    "Forbidden": PermissionDenied,
    "NotFound": NotFound,
    "AlreadyExists": Conflict,
    # Somebody else changed it since it was read: the next attempt reads it anew.
    "Conflict": Busy,
    "Gone": Transient,
    "Expired": Transient,
    "Invalid": ConfigurationError,
    "BadRequest": ConfigurationError,
    "MethodNotAllowed": ConfigurationError,
    "NotAcceptable": ConfigurationError,
    "UnsupportedMediaType": ConfigurationError,
    "RequestEntityTooLarge": ConfigurationError,
    "TooManyRequests": Throttled,
    "Timeout": Ambiguous,
    "ServerTimeout": Transient,
    "StoreReadError": Transient,
    "InternalError": Transient,
    "ServiceUnavailable": Transient,
}
"""The reason in an answer's `Status` -> what it means. `Timeout` of a read is only transient."""

STATUSES: dict[int, type[HelixError]] = {
    400: ConfigurationError,
    401: AuthExpired,
    403: PermissionDenied,
    404: NotFound,
    405: ConfigurationError,
    406: ConfigurationError,
    408: Ambiguous,
    409: Busy,
    410: Transient,
    413: ConfigurationError,
    415: ConfigurationError,
    422: ConfigurationError,
    429: Throttled,
    504: Ambiguous,
}
"""HTTP status -> what it means, where there is no known reason, such as from a proxy."""

MESSAGES: tuple[tuple[str, type[HelixError], str], ...] = (
    (
        r"exceeded quota|maximum .* usage per|minimum .* usage per",
        QuotaExceeded,
        "free something in the namespace, raise its ResourceQuota or LimitRange, or set cpu and "
        "memory",
    ),
    (
        r"must specify (limits|requests)|failed quota",
        ConfigurationError,
        "the namespace has a quota on them: set cpu and memory",
    ),
    (r"is being terminated", Busy, "the namespace is being deleted: wait, or use another"),
    (
        r"violates PodSecurity",
        ConfigurationError,
        "the namespace's pod-security level refuses the image as it is: use a namespace with the "
        "level «baseline»",
    ),
    (
        r"error looking up service account|serviceaccount .* not found",
        ConfigurationError,
        "create the account, or correct service_account",
    ),
    (r"object has been modified|precondition failed|UID in precondition", Busy, ""),
    (r"field is immutable|updates to .* are forbidden", ConfigurationError, ""),
    (r"failed calling webhook|failed to call webhook", Transient, "the webhook does not answer"),
    (r"etcdserver: (request timed out|leader changed|too many requests)", Ambiguous, ""),
    (r"etcdserver: (mvcc: )?database space exceeded", QuotaExceeded, "the cluster's etcd is full"),
)
"""What a sentence tells beyond its reason, and what to do; case is ignored. The first counts."""

EXCEPTIONS: dict[str, type[HelixError]] = {
    "ConfigException": ConfigurationError,
    "ValidationError": ConfigurationError,
    "LocationParseError": ConfigurationError,
    "SSLError": ConfigurationError,
    "NewConnectionError": Transient,
    "NameResolutionError": Transient,
    "ConnectTimeoutError": Transient,
    "ReadTimeoutError": Ambiguous,
    "ProtocolError": Ambiguous,
    "IncompleteRead": Ambiguous,
    "HTTPError": Transient,
}
"""Exceptions of the client and of urllib3, by name -> what they mean; the precise first. After an
ambiguous one the call may have happened."""

DOCUMENT = "docs/providers/kubernetes.md"
HINTS: dict[type[HelixError], str] = {
    Throttled: "the API server asks for fewer calls; it is tried again",
    AuthExpired: "renew the token or the exec plug-in's login of this context; see: kubectl "
    "auth whoami",
    PermissionDenied: f"see the Role in {DOCUMENT}",
    Busy: "something else is changing it; it is tried again",
    Transient: "the API server has trouble; it is tried again; see: kubectl get --raw /readyz",
    Ambiguous: "the next attempt looks for what this one did",
    NotFound: "see that context and namespace are the right ones: kubectl get namespaces",
    Conflict: "something of this name is there already: remove it, or rename the instance",
    ConfigurationError: f"correct the setting that the message names; see {DOCUMENT}",
}
"""What to do, where the class alone says it."""

_BY_MESSAGE = tuple(
    (re.compile(pattern, re.IGNORECASE), cls, hint) for pattern, cls, hint in MESSAGES
)
_HANDSHAKE = re.compile(r"Handshake status (?P<status>\d{3})(?P<rest>.*)", re.DOTALL)
_STATUS = re.compile(r'\{"kind":"Status".*\}')
_FORBIDDEN = re.compile(
    r'User "(?P<who>[^"]+)" cannot (?P<verb>\w+) resource "(?P<what>[^"]+)"'
    r' in API group "(?P<group>[^"]*)"(?: in the namespace "(?P<where>[^"]+)")?'
)


def classify(status: int, reason: str = "", message: str = "") -> tuple[type[HelixError], str]:
    """The class of an answer, and what to do if its message says so.

    Args:
        status: the HTTP status.
        reason: of the answer's `Status`, if it is one.
        message: of the same.
    """
    for pattern, cls, hint in _BY_MESSAGE:
        if pattern.search(message):
            return cls, hint
    if reason in REASONS:
        return REASONS[reason], ""
    return STATUSES.get(status, Transient if status >= 500 else ConfigurationError), ""


def translate(error: Exception, doing: str, *, reads: bool = False) -> HelixError:
    """The error that an exception of the client or of urllib3 stands for.

    Args:
        doing: verb, resource and name: `patch deployments helix-shop-prod`.
        reads: the call changes nothing.
    """
    status = getattr(error, "status", None)
    said = _status_of(error)
    if not status:
        refused = _HANDSHAKE.search(str(getattr(error, "reason", "")))
        if refused is None:
            return _of_exception(error, doing, reads)
        status, said = refused["status"], _quoted(refused["rest"])
    reason, message = str(said.get("reason") or ""), str(said.get("message") or "")
    cls, hint = classify(int(status), reason, message)
    if cls is Ambiguous and reads:
        cls = Transient
    headers = {key.lower(): value for key, value in (getattr(error, "headers", None) or {}).items()}
    wait = str(headers.get("retry-after", ""))
    return cls(
        f"{doing}: {message or getattr(error, 'reason', '') or status}",
        hint=hint or _hint(cls, message),
        request_id=str(headers.get("audit-id", "")),
        retry_after=float(wait) if wait.isdigit() else None,
    )


def _quoted(text: str) -> Mapping[str, Any]:
    """The `Status` that the client's error for a refused WebSocket has in its text."""
    found = _STATUS.search(text)
    with suppress(ValueError):
        return json.loads(found[0]) if found else {}
    return {}


def _status_of(error: Exception) -> Mapping[str, Any]:
    """The `Status` that the API server answered with; a proxy before it may answer anything."""
    body = getattr(error, "body", None) or getattr(error, "data", None) or b""
    try:
        found = json.loads(body)
    except (TypeError, ValueError):
        return {}
    return found if isinstance(found, Mapping) else {}


def _hint(cls: type[HelixError], message: str) -> str:
    refused = _FORBIDDEN.search(message) if cls is PermissionDenied else None
    if refused is None:
        return HINTS.get(cls, "")
    what, group = refused["what"], refused["group"]
    resource = f"{what} of {group}" if group else what
    where = f" in the namespace {refused['where']}" if refused["where"] else ""
    return f"allow {refused['who']} to {refused['verb']} {resource}{where}: see {DOCUMENT}"


def _of_exception(error: Exception, doing: str, reads: bool) -> HelixError:
    names = _names(error)
    cls = next((EXCEPTIONS[name] for name in names if name in EXCEPTIONS), Transient)
    if cls is Ambiguous and reads:
        cls = Transient
    # Only its first line: a validation error would go on with the values that it refuses.
    said = (str(getattr(error, "reason", "") or error).splitlines() or [type(error).__name__])[0]
    hint = "see that certificate-authority in the kubeconfig is the cluster's"
    return cls(f"{doing}: {said}", hint=hint if "SSLError" in names else HINTS[cls])


def _names(error: Exception) -> list[str]:
    """The class of an exception, of what it wraps, and their bases, the precise first. The client
    names the class of some in the first line of its own."""
    found = [cls.__name__ for cls in type(error).__mro__]
    wrapped = getattr(error, "reason", None)
    if isinstance(wrapped, Exception):
        return [*_names(wrapped), *found]
    if isinstance(wrapped, str) and wrapped:
        return [wrapped.splitlines()[0], *found]
    return found
