"""What a Cloud Run service says, and what we ask of it: names, templates, traffic, reasons.

Everything here is a function of the SDK's own messages; nothing calls anything.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from google.cloud import run_v2
from pydantic import BaseModel, ConfigDict, Field

from model import names
from model.errors import ConfigurationError
from model.instance import Instance
from model.platform import Release, Revision
from providers import revisions
from providers.gcp_secrets import Version

CANDIDATE = "candidate"
"""The traffic tag of a revision that is not promoted yet. It gives the revision an address."""
MANAGED = {"managed-by": "helix-deploy"}
"""Labels for people and bills. Ours proper are annotations: a label takes no dots or capitals."""
SERVICE_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,47}[a-z0-9])?")
RESERVED = {"PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION"}
"""Environment names that Cloud Run sets itself and refuses."""
LONGEST_START = 240
"""Seconds: Cloud Run gives a container no longer to start."""

State = run_v2.Condition.State
BY_NAME = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION
LATEST = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST

REASONS: dict[str, str] = {
    "CONTAINER_MISSING": "the image is not where the release says: push again",
    "CONTAINER_PERMISSION_DENIED": "give Cloud Run's service agent "
    "roles/artifactregistry.reader on the repository of the image",
    "CONTAINER_IMAGE_UNAUTHORIZED": "Binary Authorization refuses the image: see its policy",
    "SECRETS_ACCESS_CHECK_FAILED": "give the service's account "
    "roles/secretmanager.secretAccessor on its secrets",
    "HEALTH_CHECK_CONTAINER_ERROR": "the container must listen on 0.0.0.0 and the instance's port",
    "PROGRESS_DEADLINE_EXCEEDED": "the container took too long to start",
    "ACTIVE_REVISION_LIMIT_REACHED": "remove tags from revisions nobody needs",
    "ENCRYPTION_KEY_PERMISSION_DENIED": "give Cloud Run's service agent the use of the key",
    "VPC_NETWORK_NOT_FOUND": "correct the network",
}
"""The platform's reason for a failed revision -> what to do."""
PASSING = {"IMMEDIATE_RETRY", "POSTPONED_RETRY", "WAITING_FOR_OPERATION"}
"""Reasons with which the platform goes on by itself."""


class GcpSettings(BaseModel):
    """`[cloud.<instance>.gcp]`."""

    model_config = ConfigDict(extra="ignore")

    project_id: str
    """The Google Cloud project."""
    region: str
    """The region, such as europe-west1."""
    service: str | None = None
    """The Cloud Run service; helix-<project>-<instance> if absent."""
    cpu: str = "1"
    """Processors."""
    memory: str = "512Mi"
    """Memory."""
    min_instances: int = Field(0, ge=0)
    """0 lets it scale to zero."""
    max_instances: int = Field(1, ge=1)
    """The most containers."""
    public: bool = False
    """Anyone may call it."""
    service_account: str | None = None
    """The account the containers run as; the project's default one if absent."""
    endpoint: str | None = None
    """Another address of Google's APIs: Cloud Run, Secret Manager and Logging. With http:// before
    it, a stand-in on loopback, without TLS and credentials."""


class Handle(BaseModel):
    """What any worker needs to go on with a revision."""

    revision: str
    release: int
    """The newest release when the handle was made: a newer one since then supersedes it."""
    operation: str = ""
    """Google's name for the change, if its answer arrived."""
    undo: str = ""
    """The revision that this one replaces after a failure."""
    public: bool
    targets: list[Target]
    """The traffic once it is promoted."""


class Target(BaseModel):
    """A revision's share of the traffic."""

    revision: str
    percent: int = 0
    tag: str = ""


@dataclass(frozen=True)
class Marks:
    """What the annotations of a template or a revision say."""

    instance: str
    release: int
    deployment: str
    artifact: str
    config: str

    @classmethod
    def of(cls, what: run_v2.RevisionTemplate | run_v2.Revision) -> Marks:
        """Read them; empty where we did not make it."""
        said = what.annotations
        number = said.get(names.LABEL_RELEASE, "")
        return cls(
            said.get(names.LABEL_INSTANCE, ""),
            int(number) if number.isdigit() else 0,
            said.get(names.LABEL_DEPLOYMENT, ""),
            said.get(names.LABEL_ARTIFACT, ""),
            said.get(names.LABEL_CONFIG, ""),
        )


def short(name: str) -> str:
    """The last part of a resource's name."""
    return name.rsplit("/", 1)[-1]


def service_name(settings: GcpSettings, instance: Instance) -> str:
    """The service's id: what is set, else our name for it without what Cloud Run refuses."""
    if settings.service:
        return settings.service
    name = names.base_name(instance.project, instance.name).lower()
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


def revision_name(service: str, deployment: str) -> str:
    """The one name of the revision that a deployment makes."""
    tail = re.sub(r"[^a-z0-9]+", "", names.short_id(deployment).lower())
    return f"{service}-h{tail}"


# What we ask for ----------------------------------------------------------------------------------


def template(
    release: Release, settings: GcpSettings, name: str, secrets: dict[str, Version]
) -> run_v2.RevisionTemplate:
    """The revision that runs the release.

    Args:
        name: the revision's.
        secrets: environment name -> version of a secret.

    Raises:
        ConfigurationError: the release has no image in a registry.
    """
    image, instance = release.artifact.image, release.instance
    if image is None or not image.digest:
        raise ConfigurationError(
            f"the release of «{instance.name}» has no image in a registry",
            hint=f'add [deploy.{instance.name}.registry] with kind = "gar"',
        )
    return run_v2.RevisionTemplate(
        revision=name,
        labels=MANAGED,
        annotations={
            names.LABEL_INSTANCE: instance.key,
            names.LABEL_DEPLOYMENT: release.deployment,
            names.LABEL_RELEASE: str(release.number),
            names.LABEL_ARTIFACT: release.artifact.identity,
            names.LABEL_CONFIG: instance.config_digest,
        },
        containers=[
            run_v2.Container(
                image=image.reference,
                args=list(instance.command),
                env=_environment(instance.env, secrets),
                ports=[run_v2.ContainerPort(container_port=instance.port)],
                resources=run_v2.ResourceRequirements(
                    limits={"cpu": settings.cpu, "memory": settings.memory},
                    cpu_idle=True,
                    startup_cpu_boost=True,
                ),
                startup_probe=_startup_probe(instance),
            )
        ],
        scaling=run_v2.RevisionScaling(
            min_instance_count=settings.min_instances, max_instance_count=settings.max_instances
        ),
        service_account=settings.service_account or "",
    )


def _environment(plain: dict[str, str], secrets: dict[str, Version]) -> list[run_v2.EnvVar]:
    values = [run_v2.EnvVar(name=name, value=value) for name, value in plain.items()]
    for name, (secret, version) in secrets.items():
        selector = run_v2.SecretKeySelector(secret=secret, version=version)
        source = run_v2.EnvVarSource(secret_key_ref=selector)
        values.append(run_v2.EnvVar(name=name, value_source=source))
    return values


def _startup_probe(instance: Instance) -> run_v2.Probe:
    """The port must open in the time that the health check allows; the rest is the check's."""
    return run_v2.Probe(
        tcp_socket=run_v2.TCPSocketAction(port=instance.port),
        period_seconds=1,
        timeout_seconds=1,
        failure_threshold=min(LONGEST_START, math.ceil(instance.health_check.deadline)),
    )


def messages(targets: Iterable[Target]) -> list[run_v2.TrafficTarget]:
    """Targets as the API takes them."""
    return [
        run_v2.TrafficTarget(type_=BY_NAME, revision=one.revision, percent=one.percent, tag=one.tag)
        for one in targets
    ]


# What it says -------------------------------------------------------------------------------------


def asked(service: run_v2.Service) -> list[Target]:
    """The traffic that was last asked for."""
    return [_target(one, service) for one in service.traffic]


def observed(service: run_v2.Service) -> list[Target]:
    """The traffic as it flows."""
    return [_target(one, service) for one in service.traffic_statuses]


def _target(
    one: run_v2.TrafficTarget | run_v2.TrafficTargetStatus, service: run_v2.Service
) -> Target:
    latest = short(service.latest_ready_revision)
    # «The latest» would soon be another one: written down by name, it stays what it is.
    revision = latest if one.type_ == LATEST or not one.revision else short(one.revision)
    return Target(revision=revision, percent=one.percent, tag=one.tag)


def serving(service: run_v2.Service) -> list[Target]:
    """What has traffic and is promoted: a first release has traffic before that, as Cloud Run has
    no service without."""
    return [
        Target(revision=one.revision, percent=one.percent)
        for one in observed(service)
        if one.percent and one.revision and one.tag != CANDIDATE
    ]


def others_tags(service: run_v2.Service) -> list[Target]:
    """The addresses that people gave to revisions."""
    return [
        Target(revision=one.revision, tag=one.tag)
        for one in asked(service)
        if one.revision and one.tag not in ("", CANDIDATE)
    ]


def same(some: Iterable[Target], others: Iterable[Target]) -> bool:
    """Whether two lists mean the same traffic."""

    def meaning(targets: Iterable[Target]) -> tuple[dict[str, int], set[tuple[str, str]]]:
        shares: dict[str, int] = {}
        tags = set()
        for one in targets:
            if one.percent:
                shares[one.revision] = shares.get(one.revision, 0) + one.percent
            if one.tag:
                tags.add((one.revision, one.tag))
        return shares, tags

    return meaning(some) == meaning(others)


def address(service: run_v2.Service, revision: str) -> str:
    """Where this very revision answers: by its tag, or by the service if all traffic is its own."""
    for one in service.traffic_statuses:
        if one.tag == CANDIDATE and short(one.revision) == revision and one.uri:
            return str(one.uri)
    alone = {one.revision for one in observed(service) if one.percent} == {revision}
    return str(service.uri) if alone else ""


def readiness(what: run_v2.Revision) -> run_v2.Condition:
    """The revision's own word on itself. Its other conditions do not count: one that has no traffic
    lacks its minimum of instances, which is no failure."""
    return next((one for one in what.conditions if one.type_ == "Ready"), run_v2.Condition())


def reason(condition: run_v2.Condition) -> str:
    """The name of a condition's reason; empty if it gives none."""
    which = run_v2.Condition.pb(condition).WhichOneof("reasons")
    return getattr(condition, which).name if which else ""


def failed(condition: run_v2.Condition) -> bool:
    """Whether it is the platform's last word, and a bad one."""
    return condition.state == State.CONDITION_FAILED and reason(condition) not in PASSING


def explain(condition: run_v2.Condition) -> str:
    """Why it failed, and what to do, in one line."""
    why = reason(condition)
    parts = (f"{why}: {condition.message}" if why else condition.message, REASONS.get(why, ""))
    return "; ".join(part.strip(" .") for part in parts if part)


def revision_of(what: run_v2.Revision, service: run_v2.Service) -> Revision:
    """It by its identity, with what else the service needs to be as it is now."""
    return revisions.remembered(
        short(what.name),
        Marks.of(what),
        public=service.invoker_iam_disabled,
        shares=[(one.revision, one.percent) for one in serving(service)],
    )


def shares_of(previous: Revision) -> list[Target]:
    """The traffic as it was while `previous` was current."""
    return [Target(revision=name, percent=part) for name, part in revisions.shares_of(previous)]
