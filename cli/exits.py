"""How a command can end: the exit codes, and which error leads to which."""

from __future__ import annotations

from enum import IntEnum

from model.errors import HelixError


class Exit(IntEnum):
    """What the shell, and every script, gets to see. Documented in docs/cli.md."""

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    """Wrong usage, or a configuration that cannot work."""
    ROLLED_BACK = 3
    """The deployment failed, and what ran before still serves."""
    NEEDS_ATTENTION = 4
    """The deployment failed and could not be undone completely."""
    ALREADY_DEPLOYING = 5
    UNREACHABLE = 6
    """Temporal does not answer, or no worker does."""
    CANCELLED = 7
    """The deployment was cancelled, and what ran before still serves."""
    CHANGES = 10
    """`helix plan`: a push would change something."""
    DETACHED = 130
    """Ctrl-C: the deployment goes on without us."""


BY_OUTCOME = {
    "succeeded": Exit.DONE,
    "rolled-back": Exit.ROLLED_BACK,
    "needs-attention": Exit.NEEDS_ATTENTION,
    "cancelled": Exit.CANCELLED,
}
"""By `model.deployment.Outcome`; as text, since pydantic is slow to import."""

BY_CODE = {
    "ConfigurationError": Exit.USAGE,
    "NotFound": Exit.USAGE,
    "Unreachable": Exit.UNREACHABLE,
    "NoWorker": Exit.UNREACHABLE,
    "AlreadyDeploying": Exit.ALREADY_DEPLOYING,
}


class Usage(HelixError):
    """What was typed cannot be done; nothing was changed."""

    code = "ConfigurationError"


class AlreadyDeploying(HelixError):
    """Another deployment of the instance is running."""

    code = "AlreadyDeploying"


def exit_of(error: HelixError) -> Exit:
    """The exit code of an error that ends a command."""
    return BY_CODE.get(error.code, Exit.UNEXPECTED)
