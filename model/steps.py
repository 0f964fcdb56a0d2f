"""What each activity is given and what it returns. One argument in, one value out."""

from __future__ import annotations

from datetime import datetime

from model.artifact import Artifact
from model.base import Record
from model.deployment import Decision, DeployRequest, Progress
from model.instance import HealthCheck, Instance, Step
from model.platform import Identity, Release, Revision

STEP_OF = {
    "validate": Step.VALIDATE,
    "build": Step.BUILD,
    "authenticate": Step.AUTHENTICATE,
    "push": Step.PUSH,
    "start_release": Step.DEPLOY,
    "await_release": Step.DEPLOY,
    "check_health": Step.HEALTH_CHECK,
}
"""Activity -> the step it belongs to. The others keep the books."""


class StartInput(Record):
    """`record_start`: opens the deployment in the ledger. Returns its number."""

    deployment: str
    request: DeployRequest


class ValidateInput(Record):
    """`validate`."""

    deployment: str
    number: int
    request: DeployRequest


class Validated(Record):
    """What `validate` found out."""

    queue: str
    """The task queue of the worker that validated: it has the engine to build with."""
    builder: str = ""
    previous: Revision | None = None
    """What runs now."""
    previous_health: HealthCheck | None = None
    """How the previous release was checked; None if the ledger does not know it."""
    notes: tuple[str, ...] = ()
    """Warnings for the person."""


class BuildInput(Record):
    """`build`: source → artifact."""

    deployment: str
    request: DeployRequest


class AuthenticateInput(Record):
    """`authenticate`: with the registry and the provider."""

    request: DeployRequest


class Identities(Record):
    """Who we are, everywhere the deployment goes."""

    identities: tuple[Identity, ...] = ()


class PushInput(Record):
    """`push`: artifact → registry."""

    deployment: str
    request: DeployRequest
    artifact: Artifact


class PolicyInput(Record):
    """`check_policy`: may this artifact run?"""

    deployment: str
    request: DeployRequest
    artifact: Artifact


class Checked(Record):
    """What `check_policy` found, for the record."""

    notes: tuple[str, ...] = ()


class DecisionInput(Record):
    """`record_decision`: what a person, or nobody in time, has answered."""

    deployment: str
    request: DeployRequest
    about: str
    decision: Decision


class ReleaseInput(Record):
    """`start_release`. Returns the provider's handle."""

    release: Release
    previous: Revision | None = None


class HandleInput(Record):
    """`await_release`, `check_health` and `promote_release`."""

    instance: Instance
    deployment: str
    handle: str


class BakeInput(Record):
    """`bake`: watch the promoted release."""

    instance: Instance
    deployment: str
    handle: str
    until: datetime


class Promoted(Record):
    """What serves from now on, and where."""

    revision: Revision
    url: str = ""


class RestoreInput(Record):
    """`restore_release`. Returns the previous revision's handle, empty if there was none."""

    instance: Instance
    deployment: str
    previous: Revision | None = None


class EndInput(Record):
    """`record_end`: the deployment's last word, into the ledger."""

    deployment: str
    request: DeployRequest
    progress: Progress


class PruneInput(Record):
    """`prune`: removes what no rollback needs any more."""

    instance: Instance
    deployment: str


class DestroyInput(Record):
    """`destroy`: removes the instance from its platform."""

    deployment: str
    instance: Instance
    data: bool = False
