"""What Azure's errors mean, as data, for everything that talks to it with its SDK.

Sources: the error codes of Azure Resource Manager and of Container Apps, the exceptions of
azure-core 1.41 and azure-identity 1.27, and Entra's AADSTS codes. The SDK itself is not imported:
an error is known by the code in its answer, by its HTTP status, or by the name of its class.

The code goes before the status. A deployment that fails arrives with HTTP 200, from the status of
its operation; and 409 may mean «wait», «register the provider» or «taken».
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from model.errors import (
    Ambiguous,
    AuthExpired,
    Busy,
    ConfigurationError,
    Conflict,
    HealthCheckFailed,
    HelixError,
    NotFound,
    PermissionDenied,
    QuotaExceeded,
    Throttled,
    Transient,
)

CODES: dict[type[HelixError], tuple[str, ...]] = {
    Transient: (
        "ServerTimeout", "InternalServerError", "InternalError", "ServiceUnavailable",
        "GatewayTimeout", "BadGateway", "RequestTimeout", "OperationTimedOut",
        # Unknown to Azure for some minutes after it was created.
        "PrincipalNotFound",
    ),
    Throttled: (
        "TooManyRequests", "SubscriptionRequestsThrottled", "TenantRequestsThrottled",
        "ResourceRequestsThrottled", "ReadsThrottled", "WritesThrottled",
    ),
    QuotaExceeded: (
        "QuotaExceeded", "MaxNumberOfRegionalEnvironmentsInSubExceeded",
        "MaxNumberOfGlobalEnvironmentsInSubExceeded", "OperationNotAllowed",
        "ManagedEnvironmentCoresQuotaExceeded", "ContainerAppQuotaExceeded", "SkuNotAvailable",
        "ManagedEnvironmentCapacityHeavyUsageError", "AKSCapacityHeavyUsage",
    ),
    AuthExpired: ("ExpiredAuthenticationToken",),
    PermissionDenied: (
        "AuthorizationFailed", "LinkedAuthorizationFailed", "InvalidAuthenticationTokenTenant",
        "InvalidAuthenticationTokenAudience", "InvalidAuthenticationToken", "AuthenticationFailed",
        "RequestDisallowedByPolicy", "ScopeLocked", "DisallowedOperation",
        "ReadOnlyDisabledSubscription", "SubscriptionNotFound", "InvalidSubscriptionId",
    ),
    ConfigurationError: (
        "InvalidTemplate", "InvalidRequestContent", "InvalidRequestBody", "InvalidResource",
        "InvalidParameterValueInContainerTemplate", "MissingSubscriptionRegistration",
        "SubscriptionNotRegistered", "LocationNotAvailableForResourceType",
        "InvalidApiVersionParameter", "InvalidResourceLocation", "LinkedInvalidPropertyId",
        "NoRegisteredProviderFound", "ManagedEnvironmentNotProvisioned", "BadRequest",
    ),
    NotFound: (
        "ResourceNotFound", "ResourceGroupNotFound", "NotFound", "RevisionNotFound",
        "ContainerAppRevisionNotFound", "ContainerAppNotFound", "ManagedEnvironmentNotFound",
        "ParentResourceNotFound", "LinkedScopeNotFound",
    ),
    Conflict: (
        "ResourceAlreadyExists", "ContainerAppAlreadyExists", "RevisionAlreadyExists",
        "ContainerAppRevisionAlreadyExists",
    ),
    Busy: (
        "ContainerAppOperationInProgress", "AnotherOperationInProgress", "Conflict",
        "ResourceGroupBeingDeleted", "ResourceIsBeingDeleted", "ContainerAppBeingDeleted",
        "ManagedEnvironmentNotReadyForAppCreation", "ConcurrentUpdateError",
    ),
    # The platform's verdict on a revision.
    HealthCheckFailed: (
        "ContainerAppOperationError", "RevisionFailed", "ContainerAppRevisionFailed",
        "ContainerAppProvisioningFailed", "ContainerCrashing",
    ),
}  # fmt: skip
"""Class -> the codes of answers that mean it."""

PREFIXES: tuple[tuple[str, type[HelixError]], ...] = (
    ("ContainerAppInvalid", ConfigurationError),
    ("ContainerAppSecret", ConfigurationError),
    ("ContainerAppRegistry", ConfigurationError),
    ("InvalidParameter", ConfigurationError),
)
"""Families of codes, by how they begin."""

STATUS: dict[int, type[HelixError]] = {
    400: ConfigurationError,
    401: AuthExpired,
    402: QuotaExceeded,
    403: PermissionDenied,
    404: NotFound,
    408: Transient,
    # ARM says 409 for whatever is under way.
    409: Busy,
    412: Busy,
    429: Throttled,
}
"""HTTP status -> what it means, where the code is unknown. Others from 500 on are transient, and
the rest configuration errors."""

MESSAGES: tuple[tuple[str, str, type[HelixError]], ...] = (
    ("InvalidAuthenticationToken", r"expired|lifetime", AuthExpired),
    ("OperationNotAllowed", r"^(?!.*(quota|limit|exceed))", ConfigurationError),
    ("BadRequest", r"in progress", Busy),
)
"""Code, pattern and meaning, where the code alone says too little; case is ignored."""

EXCEPTIONS: dict[str, type[HelixError]] = {
    "CredentialUnavailableError": PermissionDenied,
    "ClientAuthenticationError": PermissionDenied,
    "ServiceRequestError": Transient,
    # The request went out, and may have been carried out.
    "ServiceResponseError": Ambiguous,
    "IncompleteReadError": Ambiguous,
    "DecodeError": Ambiguous,
}
"""The SDK's own exceptions, by name -> what they mean."""

ENTRA: dict[str, type[HelixError]] = {
    "AADSTS700024": AuthExpired,
    "AADSTS700082": AuthExpired,
    "AADSTS70043": AuthExpired,
    "AADSTS50173": AuthExpired,
    "AADSTS70008": AuthExpired,
    "AADSTS7000222": PermissionDenied,
    "AADSTS7000215": PermissionDenied,
    "AADSTS700016": ConfigurationError,
    "AADSTS90002": ConfigurationError,
    "AADSTS90033": Transient,
    "AADSTS50196": Throttled,
}
"""Why Entra gives no token -> what it means."""

DOCS = "see docs/providers/azure.md"
LOGIN = f"log in: az login, or set AZURE_CLIENT_ID and what belongs to it; {DOCS}"
HINTS: dict[type[HelixError], str] = {
    Transient: "Azure has trouble; it is tried again, and https://azure.status.microsoft may say "
    "more",
    Ambiguous: "the next attempt looks for what this one did",
    NotFound: f"correct its name in the instance's table, or make it; {DOCS}",
    Conflict: "something of this name is there already: remove it, or rename the instance",
    ConfigurationError: f"correct the setting that the message names; {DOCS}",
    Throttled: "Azure asks for fewer calls; it is tried again",
    QuotaExceeded: "ask for more under «Usage + quotas» of the subscription, or remove something",
    AuthExpired: LOGIN,
    PermissionDenied: f"see the permissions in {DOCS[4:]}",
    Busy: "Azure is still at work on it; it is tried again",
    HealthCheckFailed: "the container must start, and listen on 0.0.0.0 and the instance's port",
}
"""What to do, where the class alone says it."""
CODE_HINTS: dict[str, str] = {
    "MissingSubscriptionRegistration": "register it: az provider register --namespace {namespace}",
    "SubscriptionNotRegistered": "register it: az provider register --namespace {namespace}",
    "ResourceGroupNotFound": "make it: az group create, or correct resource_group",
    "SubscriptionNotFound": "correct subscription_id; az account list shows yours",
    "InvalidSubscriptionId": "correct subscription_id; az account list shows yours",
    "InvalidAuthenticationTokenTenant": "log in to the subscription's tenant: az login --tenant …",
    "RequestDisallowedByPolicy": "a policy of your organisation forbids it; ask who looks after it",
    "ScopeLocked": "a lock forbids changes: az lock list",
    "LocationNotAvailableForResourceType": "choose another location",
    "ContainerAppSecretInvalid": "run: helix doctor, and check the instance's secrets",
}
"""What to do about a code."""

REQUEST_IDS = ("x-ms-correlation-request-id", "x-ms-request-id")
"""Headers that name the call, for Azure's support."""

_BY_CODE = {code: cls for cls, codes in CODES.items() for code in codes}
_BY_MESSAGE = tuple(
    (code, re.compile(pattern, re.IGNORECASE | re.DOTALL), cls) for code, pattern, cls in MESSAGES
)
_ACTION = re.compile(r"action(?:\(s\))? '([\w.*]+(?:/[\w.*]+)+)'")
_NAMESPACE = re.compile(r"namespace '([\w.]+)'")
_ENTRA = re.compile(r"AADSTS\d+")


def classify(code: str, message: str = "", status: int = 0) -> type[HelixError]:
    """The class of an answer.

    Args:
        status: only looked at where the code is unknown.
    """
    for at, pattern, cls in _BY_MESSAGE:
        if at == code and pattern.search(message):
            return cls
    if code in _BY_CODE:
        return _BY_CODE[code]
    for prefix, cls in PREFIXES:
        if code.startswith(prefix):
            return cls
    if status in STATUS:
        return STATUS[status]
    # A failed operation is reported with 200: what it says about a revision is not worth a retry.
    if status == 200:
        return HealthCheckFailed
    return ConfigurationError if 400 < status < 500 else Transient


def translate(error: Exception, doing: str, *, reads: bool = False) -> HelixError:
    """The error that an exception of azure-core or azure-identity stands for.

    Args:
        doing: the permission that the call needs: `Microsoft.App/containerApps/write`.
        reads: the call changes nothing.
    """
    response = getattr(error, "response", None)
    if response is None or not getattr(response, "status_code", 0):
        return _of_exception(error, doing, reads=reads)
    code, message = _innermost(error)
    cls = classify(code, message, response.status_code)
    headers: Mapping[str, str] = response.headers
    return cls(
        f"{doing}: {f'{code}: ' if code else ''}{message}",
        hint=_hint(cls, code, message, doing),
        request_id=next((found for one in REQUEST_IDS if (found := headers.get(one))), ""),
        retry_after=_seconds(headers.get("retry-after", "")),
    )


def _of_exception(error: Exception, doing: str, *, reads: bool) -> HelixError:
    text = str(getattr(error, "message", "") or error)
    entra = _ENTRA.search(text)
    if entra and entra[0] in ENTRA:
        cls: type[HelixError] = ENTRA[entra[0]]
    else:
        names = [one.__name__ for one in type(error).__mro__]
        cls = next((EXCEPTIONS[name] for name in names if name in EXCEPTIONS), Transient)
    if cls is Ambiguous and reads:
        cls = Transient
    # What follows the first line repeats every credential that was tried.
    said = text[entra.start() :] if entra else text
    hint = LOGIN if cls in (PermissionDenied, AuthExpired, ConfigurationError) else HINTS[cls]
    return cls(f"{doing}: {said.splitlines()[0] if said else type(error).__name__}", hint=hint)


def _innermost(error: Exception) -> tuple[str, str]:
    """Code and message. ARM wraps the cause of a «DeploymentFailed» and the like in details."""
    said: Any = getattr(error, "error", None)
    if said is None:
        # The SDK's text begins with the phrase of the status line.
        return "", str(getattr(error, "message", error)).splitlines()[0]
    while str(said.code or "") not in _BY_CODE and (details := getattr(said, "details", None)):
        said = details[0]
    return str(said.code or ""), str(said.message or "").strip()


def _hint(cls: type[HelixError], code: str, message: str, doing: str) -> str:
    if code in CODE_HINTS:
        named = _NAMESPACE.search(message)
        return CODE_HINTS[code].format(namespace=named[1] if named else "Microsoft.App")
    if cls is PermissionDenied:
        # A sentence about two names what is lacking last.
        wanted = [doing, *_ACTION.findall(message)][-1]
        return f"grant {wanted} to these credentials: {DOCS}"
    return HINTS.get(cls, "")


def _seconds(value: str) -> float | None:
    """Of a Retry-After header, which ARM fills with seconds."""
    return float(value) if value.isdigit() else None
