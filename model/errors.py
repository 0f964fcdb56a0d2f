"""Every way a deployment can go wrong, as classes.

Each SDK's errors are translated into these at the edge of a provider, a registry or a builder.
Whether an attempt is repeated follows from the class alone (`retryable`); nobody decides again.

    raise PermissionDenied(
        "the token may not push to ghcr.io/acme/shop",
        hint="give it the scope write:packages",
        request_id="C0FE:1A2B",
    )
"""

from __future__ import annotations

from typing import ClassVar


class HelixError(Exception):
    """What went wrong, what to do about it, and what the platform calls the request.

    Args:
        message: one sentence, lower case, naming the thing it is about. Never a secret.
        hint: what to do now, as a command or a setting where there is one.
        request_id: the provider's id for the failed call, for its support.
        retry_after: seconds the platform asked us to wait before the next attempt.
        evidence: the last lines of a log that show the cause; at most `EVIDENCE_LINES` are kept.
    """

    EVIDENCE_LINES: ClassVar[int] = 20
    code: ClassVar[str] = "error"
    """The stable name a script can match, also the failure type seen in the Temporal UI."""
    retryable: ClassVar[bool] = False
    """Whether the same call may succeed if it is made again."""
    hint_default: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        request_id: str = "",
        retry_after: float | None = None,
        evidence: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.hint_default
        self.request_id = request_id
        self.retry_after = retry_after
        self.evidence = "\n".join(evidence.splitlines()[-self.EVIDENCE_LINES :])

    def __str__(self) -> str:
        text = self.message
        if self.hint:
            text += f"; {self.hint}"
        if self.request_id:
            text += f" (request {self.request_id})"
        if self.evidence:
            text += f"\n{self.evidence}"
        return text


class Transient(HelixError):
    """The network or the platform hiccuped: the same call is likely to succeed soon."""

    code = "Transient"
    retryable = True


class Throttled(Transient):
    """Too many calls; `retry_after` says how many seconds the platform asks us to wait."""

    code = "Throttled"


class Ambiguous(Transient):
    """A write whose answer was lost. The next attempt looks for its result before repeating it."""

    code = "Ambiguous"


class AuthExpired(HelixError):
    """Credentials were good and are no more: the workflow authenticates again, then goes on."""

    code = "AuthExpired"


class PermissionDenied(HelixError):
    """Wrong credentials, or right ones that lack a permission."""

    code = "PermissionDenied"


class ConfigurationError(HelixError):
    """A setting, a file or a name that cannot work as it is."""

    code = "ConfigurationError"


class QuotaExceeded(HelixError):
    """A limit of the account, the region or the disk."""

    code = "QuotaExceeded"


class NotFound(HelixError):
    """Something the deployment refers to is not there."""

    code = "NotFound"


class Conflict(HelixError):
    """Something else holds the name, the port or the version."""

    code = "Conflict"


class Busy(Conflict):
    """The platform is still carrying out an earlier operation on the same thing: wait for it."""

    code = "Busy"
    retryable = True


class Frozen(HelixError):
    """Deployments are refused for now: a freeze window holds."""

    code = "Frozen"


class PolicyViolation(HelixError):
    """The instance's policy does not let this release run. `evidence` holds every finding."""

    code = "PolicyViolation"


class PlatformUnhealthy(HelixError):
    """The platform or the machine cannot carry out the work: full disk, dead engine, outage."""

    code = "PlatformUnhealthy"


class BuildFailed(HelixError):
    """The build ran and failed; building the same source again fails the same way."""

    code = "BuildFailed"


class HealthCheckFailed(HelixError):
    """The release ran but did not become, or stay, healthy."""

    code = "HealthCheckFailed"


class NothingToRestore(HelixError):
    """The previous release is gone, so the rollback cannot bring it back."""

    code = "NothingToRestore"


def error_classes() -> list[type[HelixError]]:
    """All classes of the taxonomy, in this module's order. What other modules derive from them is
    not a part of it: it never crosses the boundary of an activity."""
    return [
        found
        for found in globals().values()
        if isinstance(found, type) and issubclass(found, HelixError) and found is not HelixError
    ]


def fatal_codes() -> list[str]:
    """The failure types that Temporal must never retry."""
    return [cls.code for cls in error_classes() if not cls.retryable]
