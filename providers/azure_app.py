"""What a container app says, and what we ask of it: names, templates, traffic, reasons.

Everything here is a function of the SDK's own models; nothing calls anything.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping

from azure.mgmt.appcontainers import models as az
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model import names
from model.errors import ConfigurationError
from model.instance import Instance
from model.platform import Release, Revision
from providers import revisions

CANDIDATE = "candidate"
"""The traffic label of a revision that is not promoted yet."""
MARK = "HELIX_DEPLOY"
"""The environment variable that says which release a revision is: a revision has no tags."""
RESERVED = "CONTAINER_APP_"
"""How the variables begin that Azure sets itself."""
APP_NAME = re.compile(r"(?!.*--)[a-z][a-z0-9-]{0,30}[a-z0-9]")
LONGEST_GRACE = 600
"""Seconds: Azure gives a container no longer to stop."""
RESTARTS = 2
"""How often a container may be started again before it counts as broken."""

MOST_INACTIVE = 100
"""Stopped revisions that Azure remembers of an app at most, the latest ones."""

RUNS = {"Running", "RunningAtMaxScale", "ScaledToZero", "Ready"}
"""What a revision says of itself that runs, or would at the next request."""
BROKEN = {"Failed", "ActivationFailed"}


class AzureSettings(BaseModel):
    """`[cloud.<instance>.azure]`."""

    model_config = ConfigDict(extra="ignore")

    subscription_id: str
    """The subscription."""
    resource_group: str
    """The resource group."""
    location: str
    """The region, such as westeurope."""
    environment: str | None = None
    """The Container Apps environment; helix-<project> if absent."""
    app: str | None = None
    """The container app; helix-<project>-<instance> if absent."""
    cpu: float = 0.5
    """Processors."""
    memory: str = "1Gi"
    """Memory."""
    min_replicas: int = Field(0, ge=0)
    """0 lets it scale to zero."""
    max_replicas: int = Field(1, ge=1)
    """The most containers."""
    public: bool = False
    """Reachable from outside its environment."""
    storage: str | None = None
    """The environment's storage that holds the volumes."""
    identity: str | None = None
    """The managed identity that pulls images from acr and reads secrets from a vault: the resource
    id of a user-assigned one, `system`, or `system-environment`."""
    endpoint: str | None = None
    """Another address of Azure Resource Manager."""


class Target(BaseModel):
    """A revision's share of the traffic."""

    revision: str
    weight: int = 0
    label: str = ""


class Handle(BaseModel):
    """What any worker needs to go on with a revision. Names only: Azure's own token for a running
    operation holds the app's whole configuration."""

    revision: str
    release: int
    """The newest release when the handle was made: a newer one since then supersedes it."""
    public: bool
    targets: list[Target]
    """The traffic once it is promoted."""


class Marks(BaseModel):
    """What a revision says of the release that it is; empty where we did not make it."""

    instance: str = ""
    release: int = 0
    deployment: str = ""
    artifact: str = ""
    config: str = ""
    previous: str = ""
    """The revision that was stopped for it."""

    @classmethod
    def of(cls, template: az.Template | None) -> Marks:
        """Read them."""
        for container in (template.containers if template else None) or ():
            for variable in container.env or ():
                if variable.name == MARK and variable.value:
                    try:
                        return cls.model_validate_json(variable.value)
                    except ValidationError:
                        return cls()
        return cls()


# Names --------------------------------------------------------------------------------------------


def app_name(settings: AzureSettings, instance: Instance) -> str:
    """The app's name: what is set, else our name for it without what Azure refuses."""
    if settings.app:
        return settings.app
    name = names.base_name(instance.project, instance.name).lower()
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


def environment_name(settings: AzureSettings, instance: Instance) -> str:
    """The environment's name."""
    return settings.environment or re.sub(
        r"[^a-z0-9]+", "-", f"helix-{instance.project}".lower()
    ).strip("-")


def suffix(deployment: str) -> str:
    """The end of the name of the one revision that a deployment makes."""
    return "h" + re.sub(r"[^a-z0-9]+", "", names.short_id(deployment).lower())


def revision_name(app: str, deployment: str) -> str:
    """The one name of the revision that a deployment makes."""
    return f"{app}--{suffix(deployment)}"


def secret_stem(name: str) -> str:
    """How the secrets of an environment variable begin. Azure takes lower-case letters, digits and
    hyphens: four digits keep apart what would look the same."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "secret"
    return f"{slug}-{hashlib.sha256(name.encode()).hexdigest()[:4]}"


# What we ask for ----------------------------------------------------------------------------------


def template(
    release: Release, settings: AzureSettings, secrets: Mapping[str, str], previous: str
) -> az.Template:
    """The revision that runs the release.

    Args:
        secrets: environment name -> name of a secret of the app.
        previous: the revision that is stopped for it; empty if none is.

    Raises:
        ConfigurationError: the release has no image in a registry.
    """
    image, instance = release.artifact.image, release.instance
    if image is None or not image.digest:
        raise ConfigurationError(
            f"the release of «{instance.name}» has no image in a registry",
            hint=f'add [deploy.{instance.name}.registry] with kind = "acr"',
        )
    marks = Marks(
        instance=instance.key,
        release=release.number,
        deployment=release.deployment,
        artifact=release.artifact.identity,
        config=instance.config_digest,
        previous=previous,
    )
    variables = {**instance.env, MARK: marks.model_dump_json(exclude_defaults=True)}
    app = app_name(settings, instance)
    return az.Template(
        revision_suffix=suffix(release.deployment),
        termination_grace_period_seconds=min(LONGEST_GRACE, math.ceil(instance.stop_grace)),
        containers=[
            az.Container(
                name="app",
                image=image.reference,
                args=list(instance.command),
                env=[
                    *(az.EnvironmentVar(name=key, value=value) for key, value in variables.items()),
                    *(az.EnvironmentVar(name=key, secret_ref=ref) for key, ref in secrets.items()),
                ],
                resources=az.ContainerResources(cpu=settings.cpu, memory=settings.memory),
                volume_mounts=[
                    az.VolumeMount(
                        volume_name=f"volume-{number}",
                        mount_path=volume.mount,
                        sub_path=f"{app}/{volume.name or f'volume-{number}'}",
                    )
                    for number, volume in enumerate(instance.volumes)
                ],
            )
        ],
        scale=az.Scale(
            min_replicas=settings.min_replicas,
            # A second replica would have the same volume open.
            max_replicas=1 if instance.single_writer else settings.max_replicas,
        ),
        volumes=[
            az.Volume(
                name=f"volume-{number}",
                storage_type=az.StorageType.NFS_AZURE_FILE,
                storage_name=settings.storage,
            )
            for number, _ in enumerate(instance.volumes)
        ],
    )


def weights(targets: Iterable[Target]) -> list[az.TrafficWeight]:
    """Targets as the API takes them: by name, never «the latest», which would give a revision its
    traffic before anyone has looked at it."""
    return [
        az.TrafficWeight(
            revision_name=one.revision,
            weight=one.weight,
            latest_revision=False,
            **({"label": one.label} if one.label else {}),
        )
        for one in targets
    ]


# What it says -------------------------------------------------------------------------------------


def plain(value: str | None) -> str:
    """A state as Azure writes it. The SDK knows some as members of an enumeration, which neither
    print nor hash as that."""
    return str(getattr(value, "value", value) or "")


def configuration(app: az.ContainerApp) -> az.Configuration:
    """What holds for all of an app's revisions."""
    found = app.properties.configuration if app.properties else None
    return found or az.Configuration()


def newest(app: az.ContainerApp) -> Marks:
    """Of the last revision that was asked for."""
    return Marks.of(app.properties.template if app.properties else None)


def provisioning(app: az.ContainerApp) -> str:
    """How the last change of the app goes: InProgress, Succeeded, Failed, Canceled, Deleting."""
    return plain(app.properties.provisioning_state if app.properties else None)


def is_public(app: az.ContainerApp) -> bool:
    """Whether it can be reached from outside its environment."""
    ingress = configuration(app).ingress
    return bool(ingress and ingress.external)


def asked(app: az.ContainerApp) -> list[Target]:
    """The traffic that was last asked for, one entry a revision. An app without ingress serves by
    its last revision."""
    properties = app.properties or az.ContainerAppProperties()
    latest = properties.latest_ready_revision_name or properties.latest_revision_name or ""
    ingress = configuration(app).ingress
    if ingress is None:
        return [Target(revision=latest, weight=100)] if latest else []
    found: dict[str, Target] = {}
    for one in ingress.traffic or ():
        # «The latest» would soon be another one: written down by name, it stays what it is.
        name = latest if one.latest_revision or not one.revision_name else one.revision_name
        if name:
            known = found.setdefault(name, Target(revision=name))
            known.weight += one.weight or 0
            known.label = known.label or one.label or ""
    return list(found.values())


def serving(app: az.ContainerApp) -> list[Target]:
    """What has traffic and is promoted. A first release has traffic before that, as the weights of
    an app must add up to 100."""
    return [one for one in asked(app) if one.weight and one.label != CANDIDATE]


def labelled(app: az.ContainerApp) -> list[Target]:
    """The addresses that people gave to revisions, without their traffic."""
    return [
        one.model_copy(update={"weight": 0})
        for one in asked(app)
        if one.label not in ("", CANDIDATE)
    ]


def joined(*lists: Iterable[Target]) -> list[Target]:
    """Targets with one entry a revision, and what each list says of it."""
    found: dict[str, Target] = {}
    for targets in lists:
        for one in targets:
            known = found.get(one.revision, Target(revision=one.revision))
            found[one.revision] = Target(
                revision=one.revision,
                weight=known.weight or one.weight,
                label=known.label or one.label,
            )
    return list(found.values())


def same(some: Iterable[Target], others: Iterable[Target]) -> bool:
    """Whether two lists mean the same traffic."""

    def meaning(targets: Iterable[Target]) -> set[tuple[str, int, str]]:
        return {(one.revision, one.weight, one.label) for one in targets if one.weight or one.label}

    return meaning(some) == meaning(others)


def state(revision: az.Revision) -> az.RevisionProperties:
    """How a revision is."""
    return revision.properties or az.RevisionProperties()


def runs(revision: az.Revision) -> bool:
    """Whether it runs, by its own word. That it is provisioned says little: Azure says that too of
    one whose container has just crashed."""
    its = state(revision)
    return (
        bool(its.active)
        and plain(its.provisioning_state) == "Provisioned"
        and plain(its.running_state) in RUNS
        and plain(its.health_state) != "Unhealthy"
    )


def broken(revision: az.Revision) -> str:
    """Why it will not run any more; empty if it may."""
    its = state(revision)
    failed = plain(its.provisioning_state) == "Failed"
    if not failed and plain(its.running_state) not in BROKEN:
        return ""
    return its.provisioning_error or (
        "the revision could not be provisioned" if failed else "its containers do not start"
    )


def crash(replicas: Iterable[az.Replica]) -> str:
    """What ended a container that was started again and again; empty if none was."""
    for replica in replicas:
        for one in (replica.properties.containers if replica.properties else None) or ():
            if not one.ready and (one.restart_count or 0) >= RESTARTS:
                why = one.running_state_details or plain(one.running_state) or "it ended"
                return f"the container {one.name} ended {one.restart_count} times: {why}"
    return ""


def revision_of(what: az.Revision, app: az.ContainerApp) -> Revision:
    """It by its identity, with what else the app needs to be as it is now."""
    return revisions.remembered(
        str(what.name),
        Marks.of(state(what).template),
        public=is_public(app),
        shares=[(one.revision, one.weight) for one in serving(app)],
    )


def shares_of(previous: Revision) -> list[Target]:
    """The traffic as it was while `previous` was current."""
    return [Target(revision=name, weight=weight) for name, weight in revisions.shares_of(previous)]
