"""Resolves one instance of helix.toml: everything a deployment must know about it, as one value.

project = load_project()
instance = resolve(project, "dev")
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue

from model.artifact import BuildSettings
from model.errors import ConfigurationError, NotFound
from model.fly import REGISTRY_HOST, fly_app
from model.freeze import Window
from model.instance import (
    Approval,
    Channel,
    Guidance,
    HealthCheck,
    Instance,
    ObjectStorage,
    RegistryTarget,
    Step,
    StepPolicy,
    Target,
    Volume,
)
from model.names import base_name, docker_name
from model.schedule import ScheduleSettings
from project import policy
from project.config import LocalTable
from project.database import DbConfig, S3Storage
from project.deploy import (
    ApprovalTable,
    BuildTable,
    DeploySettings,
    FreezeTable,
    HealthCheckTable,
    ObjectStorageTable,
    OnFailureTable,
    RegistryTable,
    StepTable,
    VolumeTable,
)
from project.kinds import KINDS, Fly, Kind, Runtime
from project.load import Entry, Project
from project.problems import ConfigErrors, Problem, dotted
from project.reading import fields, nearest
from project.table import Table

DEFAULT_PORT = 6969
"""The port on the host of a HelixDB that names none."""
V3_PORT = 8080
"""The port a HelixDB v3 listens on inside its container, always."""
V3_IMAGE = "ghcr.io/helixdb/helixdb"
V3_TAG = "v0.0.4"
V3_DATA = "/var/lib/helix"
V2_DATA = "/data"

PLACEHOLDERS = {"", "YOUR_CLUSTER_ID"}
"""What HelixDB's CLI writes as `cluster_id` until there is a cluster."""

Nature = Literal["v2", "v3", "container", "bundle"]
"""What a project is made of: HelixDB v2 queries to compile, a prebuilt HelixDB v3, any other
container, or queries for Helix Cloud."""


def resolve(project: Project, name: str) -> Instance:
    """The instance of a name, with the defaults of its kind, of [deploy] and of [deploy.<name>].

    Reads the project's folder (is there a Dockerfile, are there .hx files?), but nothing else, and
    no secret.

    Args:
        project: from `load_project`.
        name: the instance; a local one wins over one elsewhere of the same name.

    Raises:
        NotFound: there is no such instance.
        ConfigErrors: its part of the file is wrong; carries every problem of it.
        ConfigurationError: there is nothing to run: no Dockerfile, no image, no queries.
    """
    entry = project.entry(name)
    if entry is None:
        names = [each.name for each in project.instances]
        near = nearest(name, names)
        raise NotFound(
            f"there is no instance «{name}» in {project.path}",
            hint=f"did you mean «{near}»?" if near else f"known: {', '.join(names) or 'none'}",
        )
    if entry.errors or entry.table is None or project.table is None:
        raise ConfigErrors(entry.errors or project.problems)
    what = nature(project, entry)
    refused = [
        problem.model_copy(update={"severity": "error"})
        for problem in entry.problems
        if problem.accepted_by and what in _READERS and not _READERS[what] & {*problem.accepted_by}
    ]
    if refused:
        raise ConfigErrors(refused)
    cluster = getattr(entry.table, "cluster_id", None)
    if cluster is not None and cluster.strip() in PLACEHOLDERS:
        raise ConfigurationError(
            f"«{name}» has no cluster yet: cluster_id is «{cluster}»",
            hint=f'helix set {name}.cluster_id "…" with the id of your cluster',
        )
    for key, value in unfilled(entry):
        raise ConfigurationError(
            f"«{name}» is not filled in yet: {key} is «{value}»",
            hint=f'helix set {name}.{key} "…"',
        )
    return assemble(project, entry, what)


def unfilled(entry: Entry) -> list[tuple[str, str]]:
    """The keys whose value is still what `helix init` wrote for a person to replace."""
    return [
        (key, value)
        for key, value in entry.value.items()
        if isinstance(value, str) and key != "cluster_id" and _TO_FILL_IN.search(value)
    ]


_TO_FILL_IN = re.compile(r"\bYOUR_[A-Z_]+\b")
_READERS = {"v2": {"v2.0", "v2.1", "v2.3"}, "v3": {"v3"}}
"""The CLI generations whose settings count for what an instance is made of."""


def assemble(project: Project, entry: Entry, what: Nature) -> Instance:
    """The instance of a right entry, given what it is made of.

    Raises:
        ConfigurationError: its settings contradict each other.
    """
    assert entry.table is not None
    settings = merged(project.deploy, entry.deploy)
    make = {"v2": _helix_v2, "v3": _helix_v3, "bundle": _bundle, "container": _container}[what]
    values: dict[str, Any] = {
        "project": project.name,
        "name": entry.name,
        "target": _target(entry),
        "build_mode": _build_mode(entry, what),
        "registry": _registry(project, entry, settings),
        **make(project, entry, settings),
    }
    if settings.object_storage is not None:
        values |= _object_storage(entry, what, settings.object_storage, values)
    if entry.is_local:
        values |= {"host": socket.gethostname(), "project_dir": str(project.folder)}
    _overlay(values, settings, project.folder if entry.is_local else None)
    if settings.object_storage is not None and "HELIX_DATA_DIR" in values["env"]:
        raise ConfigurationError(
            f"«{entry.name}» has both object storage and HELIX_DATA_DIR: HelixDB refuses to start",
            hint="remove one of them",
        )
    values["policy"] = policy.resolved(settings.policy, project.folder)
    return Instance.model_validate(values)


def _build_mode(entry: Entry, what: Nature) -> str:
    """The build mode, which only HelixDB v2 has unless the file says one."""
    if what == "v2" or "build_mode" in entry.value:
        return str(getattr(entry.table, "build_mode", ""))
    return ""


def nature(project: Project, entry: Entry) -> Nature:
    """What the instance is made of.

    In this order: what [deploy] says under build; what the kind's table says (`image`, v3's keys,
    Helix Cloud); .hx files; a Dockerfile; for a local instance v2 if its table has v2's keys, and
    else HelixDB v3's own image.

    Raises:
        ConfigurationError: none of these.
    """
    build = merged(project.deploy, entry.deploy).build
    if entry.kind in ("helix", "enterprise"):
        return "bundle"
    if build is not None and build.kind is not None:
        return {"helix": "v2", "bundle": "bundle"}.get(build.kind, "container")  # type: ignore[return-value]
    if build is not None and build.image:
        return "container"
    if build is not None and (build.dockerfile or build.context or build.target):
        return "container"
    if isinstance(entry.table, Runtime) and entry.table.image:
        return "container"
    said = set(entry.value)
    if entry.is_local and said & {"image", "tag", "storage", "s3"}:
        return "v3"
    if has_queries(project):
        return "v2"
    if (project.folder / "Dockerfile").is_file():
        return "container"
    if entry.is_local:
        return "v2" if said & {"build_mode", *fields(DbConfig)} else "v3"
    raise ConfigurationError(
        f"there is nothing to run on «{entry.name}»: no Dockerfile, no .hx files, no image",
        hint=f'add a Dockerfile, or [{dotted(("deploy", entry.name, "build"))}] with image = "…"',
    )


def queries_folder(project: Project) -> Path:
    """The folder of the project's .hx files."""
    return project.folder / _queries(project)


def _queries(project: Project) -> str:
    """It as the file has it, relative to the project. Windows paths work too."""
    written = project.table.queries if project.table is not None else None
    return (written or "./db/").replace("\\", "/")


def has_queries(project: Project) -> bool:
    """Whether the project has .hx files, as HelixDB v2 looks for them."""
    return next(_hx_files(queries_folder(project)), None) is not None


def _hx_files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != ".helix"]
        yield from (Path(parent) / name for name in names if name.endswith(".hx"))


# --- what the instance is made of ----------------------------------------------------------------


def _helix_v2(project: Project, entry: Entry, settings: DeploySettings) -> dict[str, Any]:
    """A HelixDB v2: compiled from the queries, one port inside and out, data under /data."""
    table = entry.table
    local = isinstance(table, LocalTable)
    port = settings.port or getattr(table, "port", None) or DEFAULT_PORT
    volume = Volume(mount=V2_DATA, name=f"{docker_name(project.name, entry.name)}-data")
    if local:
        volume = Volume(
            mount=V2_DATA, path=str(project.folder / ".helix" / ".volumes" / entry.name)
        )
    return {
        "build": BuildSettings(kind="helix"),
        "port": port,
        "publish": (port if local else None) or getattr(table, "publish", None),
        "env": {
            "HELIX_PORT": str(port),
            "HELIX_DATA_DIR": V2_DATA,
            "HELIX_INSTANCE": entry.name,
            "HELIX_PROJECT": project.name,
        },
        "volumes": _kind_volumes(project, entry) or (volume,),
        "health_check": HealthCheck(path="/introspect"),
    }


def _helix_v3(project: Project, entry: Entry, settings: DeploySettings) -> dict[str, Any]:
    """A HelixDB v3: a prebuilt image that listens on 8080, with its storage set by environment."""
    table = entry.table
    assert isinstance(table, LocalTable)
    env: dict[str, str] = {}
    volumes: tuple[Volume, ...] = ()
    if table.storage == "disk":
        env["HELIX_DATA_DIR"] = V3_DATA
        name = f"{docker_name(project.name, entry.name)}-data"
        volumes = (Volume(mount=V3_DATA, name=name),)
    secrets: dict[str, str] = {}
    if table.storage == "s3" and table.s3 is None:
        raise ConfigurationError(
            f"«{entry.name}» keeps its data in object storage, but does not say where",
            hint=f'add [{dotted(("local", entry.name, "s3"))}] with bucket = "…"',
        )
    if table.s3 is not None and table.storage == "s3":
        env |= _s3_env(table.s3)
        secrets = {name: f"env:{name}" for name in _AWS_CREDENTIALS if os.environ.get(name)}
    return {
        "build": BuildSettings(
            kind="image", image=f"{table.image or V3_IMAGE}:{table.tag or V3_TAG}"
        ),
        "port": V3_PORT,
        "publish": table.port or DEFAULT_PORT,
        "env": env,
        "secrets": secrets,
        "volumes": volumes,
        "health_check": HealthCheck(path="/readyz"),
    }


def _object_storage(
    entry: Entry, what: Nature, table: ObjectStorageTable, values: dict[str, Any]
) -> dict[str, Any]:
    """What a HelixDB v3 is told that keeps its data in a bucket; it then has no folder for it.

    Raises:
        ConfigurationError: it is no HelixDB v3, or lacks half of the key.
    """
    where = dotted(("deploy", entry.name, "object_storage"))
    if what in ("v2", "bundle"):
        raise ConfigurationError(
            f"only a HelixDB v3 keeps its data in object storage, and «{entry.name}» is none",
            hint=f"remove [{where}], or name the image of a HelixDB v3",
        )
    if bool(table.access_key) != bool(table.secret_key):
        lacks = "secret_key" if table.access_key else "access_key"
        raise ConfigurationError(
            f"[{where}] has half of a key", hint=f'add {lacks} = "env:…", a secret reference'
        )
    own = getattr(entry.table, "STORAGE", {})
    region = table.region or own.get("region") or getattr(entry.table, "region", None)
    storage = ObjectStorage(
        bucket=table.bucket,
        prefix=_prefix(table),
        region=region or "us-east-1",
        endpoint_url=table.endpoint_url or "",
        create=table.create,
        grant=table.grant,
    )
    told = S3Storage(
        bucket=storage.bucket,
        prefix=storage.prefix,
        region=storage.region,
        endpoint_url=table.endpoint_url or own.get("endpoint_url"),
        allow_http=table.allow_http,
    )
    keys = zip(_AWS_CREDENTIALS, (table.access_key, table.secret_key), strict=False)
    return {
        "object_storage": storage,
        "env": {**values.get("env", {}), **_s3_env(told)},
        "secrets": {name: reference for name, reference in keys if reference},
        "health_check": HealthCheck(path="/readyz"),
    }


_AWS_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def _s3_env(storage: S3Storage) -> dict[str, str]:
    env = {
        "S3_BUCKET": storage.bucket,
        "S3_REGION": storage.region,
        "DB_PATH": _prefix(storage),
    }
    if storage.endpoint_url:
        env["AWS_ENDPOINT"] = storage.endpoint_url
    if storage.allow_http:
        env["AWS_ALLOW_HTTP"] = "true"
    return env


def _prefix(storage: S3Storage) -> str:
    """Where in the bucket, with a slash at the end and none before it."""
    return f"{storage.prefix.strip('/') or 'db'}/"


def _bundle(project: Project, entry: Entry, settings: DeploySettings) -> dict[str, Any]:
    """Queries for a HelixDB that someone else runs."""
    return {
        "build": BuildSettings(kind="bundle", context=_queries(project)),
        "env": dict(getattr(entry.table, "env_vars", {})),
        "health_check": HealthCheck(kind="none"),
    }


def _container(project: Project, entry: Entry, settings: DeploySettings) -> dict[str, Any]:
    """Any other container."""
    table = entry.table
    build = settings.build or BuildTable()
    image = build.image
    if not (build.dockerfile or build.context or build.target or build.kind == "dockerfile"):
        image = image or getattr(table, "image", None)
    if build.kind == "image" and not image:
        raise ConfigurationError(
            f"«{entry.name}» is to run a prebuilt image, but none is named",
            hint=f'add image = "…" to [{dotted(("deploy", entry.name, "build"))}]',
        )
    port = None if isinstance(table, LocalTable) else getattr(table, "port", None)
    publish = getattr(table, "publish", None)
    if isinstance(table, LocalTable):
        publish = table.port or None
    values: dict[str, Any] = {
        "build": BuildSettings(kind="image" if image else "dockerfile", image=image or ""),
        "publish": publish,
        "volumes": _kind_volumes(project, entry),
    }
    if port is not None:
        values["port"] = port
    return values


def _kind_volumes(project: Project, entry: Entry) -> tuple[Volume, ...]:
    """The volume that the kind's own table names."""
    table = entry.table
    if isinstance(table, Fly):
        written = table.volume or f"{fly_volume(project.name, entry.name)}:{V2_DATA}"
        name, _, mount = written.partition(":")
        return (Volume(name=name, mount=mount or V2_DATA, size_gb=table.volume_initial_size),)
    written = getattr(table, "volume", None) or ""
    if not written:
        return ()
    place, _, mount = written.rpartition(":")
    if not place or not mount.startswith("/"):
        raise ConfigurationError(
            f"«{entry.name}»: the volume «{written}» is not understood",
            hint="write <name>:<mount>, such as data:/data",
        )
    where = "path" if place.startswith("/") else "name"
    return (Volume.model_validate({where: place, "mount": mount}),)


def fly_volume(project: str, instance: str) -> str:
    """The name HelixDB's CLI gives the Fly volume of an instance."""
    return f"{base_name(project, instance).replace('-', '_')}_data"


# --- where it runs, where its image is -----------------------------------------------------------

_CONSUMED = {"port", "publish", "image", "volume", "build_mode", "env_vars", *DbConfig.model_fields}
"""Keys of a kind's table that are a part of `Instance` itself, and so not of its target."""


def _target(entry: Entry) -> Target:
    table = entry.table
    if table is None or isinstance(table, LocalTable):
        return Target(kind="local")
    keeps = table.KEEPS if isinstance(table, Kind) else frozenset()
    kept = set(type(table).model_fields) - (_CONSUMED - keeps)
    settings: dict[str, JsonValue] = table.model_dump(
        mode="json", by_alias=True, include=kept & table.model_fields_set
    )
    return Target(kind=entry.kind, settings=settings)


def _registry(project: Project, entry: Entry, settings: DeploySettings) -> RegistryTarget | None:
    table = settings.registry
    if table is not None and (table.repository or table.kind != "oci"):
        if not table.repository:
            raise ConfigErrors([_no_repository(project, entry, table.kind)])
        return RegistryTarget(
            kind=table.kind, repository=table.repository, settings=_registry_settings(table)
        )
    kind = entry.table
    if isinstance(kind, Fly):
        whose = kind.model_dump(
            mode="json", include={"auth_type", "token", "org"}, exclude_none=True
        )
        repository = f"{REGISTRY_HOST}/{fly_app(project.name, entry.name)}"
        return RegistryTarget(kind="fly", repository=repository, settings=whose)
    if isinstance(kind, Kind) and not kind.RUNTIME:
        return RegistryTarget(
            kind=entry.kind,
            repository=str(getattr(kind, "repository", "")),
            settings={
                name: value
                for name, value in _target(entry).settings.items()
                if name != "repository"
            },
        )
    return None


ECR = "<account>.dkr.ecr.<region>.amazonaws.com/<name>"
"""A repository of ECR, which its own table names in parts."""


def _no_repository(project: Project, entry: Entry, registry: str) -> Problem:
    """A kind of registry is named, and no repository in it."""
    kind = KINDS.get(registry)
    field = kind.model_fields.get("repository") if kind is not None else None
    shape = str(field.description).rstrip(".") if field is not None else ""
    own = ("deploy", entry.name, "registry", "kind")
    return project.document.problem(
        own if own in project.document.places else ("deploy", "registry", "kind"),
        f"the registry of kind «{registry}» names no repository",
        severity="error",
        code="repository",
        fix=f'write repository = "{shape or {"ecr": ECR}.get(registry, "…")}" beside it',
    )


def _registry_settings(table: RegistryTable) -> dict[str, JsonValue]:
    settings: dict[str, JsonValue] = table.model_dump(
        mode="json", exclude={"kind", "repository"}, exclude_none=True
    )
    return settings


# --- what [deploy] says --------------------------------------------------------------------------


def merged(defaults: DeploySettings, own: DeploySettings) -> DeploySettings:
    """The settings of [deploy.<instance>] on top of those of [deploy]: tables are merged key by
    key, anything else is replaced."""

    def merge(below: Table, above: Table) -> Table:
        values: dict[str, Any] = {name: getattr(below, name) for name in below.model_fields_set}
        for name in above.model_fields_set:
            old, new = values.get(name), getattr(above, name)
            if isinstance(old, Table) and isinstance(new, Table):
                new = merge(old, new)
            elif isinstance(old, dict) and isinstance(new, dict):
                new = {**old, **new}
            values[name] = new
        return type(above).model_construct(set(values), **values)

    merged = merge(defaults, own)
    assert isinstance(merged, DeploySettings)
    return merged


_PLAIN = (
    "strategy", "port", "publish", "stop_grace", "keep_releases", "throw_away", "bake",
)  # fmt: skip
"""Settings that are fields of `Instance` under the same name."""


def _overlay(values: dict[str, Any], settings: DeploySettings, folder: Path | None) -> None:
    """Put the settings of [deploy] over what the kind gave."""
    values |= {
        name: getattr(settings, name) for name in _PLAIN if getattr(settings, name) is not None
    }
    values["env"] = {**values.get("env", {}), **settings.env}
    values["secrets"] = {**values.get("secrets", {}), **settings.secrets}
    if settings.command is not None:
        values["command"] = tuple(settings.command)
    if settings.build is not None:
        said = settings.build.model_dump(exclude_none=True, exclude_unset=True)
        values["build"] = values["build"].model_copy(
            update={name: said[name] for name in said if name in BuildSettings.model_fields}
        )
    if settings.volumes is not None:
        own = [_volume(volume, folder) for volume in settings.volumes]
        mounts = {volume.mount for volume in own}
        kept = [volume for volume in values.get("volumes", ()) if volume.mount not in mounts]
        values["volumes"] = (*kept, *own)
    if settings.health_check is not None:
        values["health_check"] = _health_check(
            values.get("health_check", HealthCheck()), settings.health_check
        )
    if settings.freeze is not None:
        values["freeze"] = tuple(_windows(settings.freeze))
    values["approval"] = _approval(settings.approval)
    values["guidance"] = _guidance(settings.on_failure)
    values["notifications"] = tuple(_channels(settings))
    values["steps"] = {
        Step(name): StepPolicy.model_validate(table.model_dump(exclude_none=True))
        for name, table in _steps(settings)
    }


def _windows(table: FreezeTable) -> Iterator[Window]:
    for each in table.windows or ():
        yield Window(
            days=tuple(each.days),
            begins=each.from_,
            ends=each.to,
            first=date.fromisoformat(each.first) if each.first else None,
            last=date.fromisoformat(each.last) if each.last else None,
            timezone=each.timezone or table.timezone or "UTC",
            reason=each.reason,
        )


def schedule(project: Project, name: str) -> ScheduleSettings | None:
    """When helix.toml wants an instance deployed by itself: what [deploy.<name>.schedule] says, on
    top of the defaults of [deploy.schedule]. None if it has no such table.

    Raises:
        NotFound: there is no such instance.
        ConfigErrors: its tables are wrong.
        ConfigurationError: it says no time, or things that contradict each other.
    """
    entry = project.entry(name)
    if entry is None:
        raise NotFound(f"there is no instance «{name}» in {project.path}")
    if entry.errors:
        raise ConfigErrors(entry.errors)
    if entry.deploy.schedule is None:
        return None
    table = merged(project.deploy, entry.deploy).schedule
    where = dotted(("deploy", name, "schedule"))
    if table is None or entry.deploy.schedule.cron is None or not table.cron:
        raise ConfigurationError(
            f"[{where}] does not say when", hint='add cron = "0 4 * * *", every day at 4'
        )
    said = table.model_dump(exclude_none=True, include=set(ScheduleSettings.model_fields))
    if "git" in said:
        said.setdefault("mode", "rebuild")
    return ScheduleSettings.model_validate({**said, "cron": tuple(table.cron)}).checked()


def _approval(table: ApprovalTable | None) -> Approval | None:
    if table is None or not table.required:
        return None
    said = table.model_dump(exclude_none=True, include={"window", "otherwise", "by"})
    return Approval.model_validate(said)


def _guidance(table: OnFailureTable | None) -> Guidance | None:
    if table is None or table.then == "roll-back":
        return None
    return Guidance.model_validate(table.model_dump(exclude_none=True, include={"window"}))


def _channels(settings: DeploySettings) -> Iterator[Channel]:
    """Those that are told of any end at all."""
    for name, table in settings.notifications.items():
        if table.on != []:
            said = table.model_dump(exclude_none=True, include=set(Channel.model_fields))
            yield Channel.model_validate({**said, "name": name})


def _steps(settings: DeploySettings) -> Iterator[tuple[str, StepTable]]:
    for name, field in type(settings.steps).model_fields.items():
        table = getattr(settings.steps, name)
        if table is not None:
            yield field.alias or name, table


def _volume(table: VolumeTable, folder: Path | None) -> Volume:
    path = table.path
    if path and folder is not None:
        path = str((folder / Path(path).expanduser()).resolve())
    return Volume(mount=table.mount, name=table.name, path=path, size_gb=table.size_gb)


def _health_check(base: HealthCheck, table: HealthCheckTable) -> HealthCheck:
    said = table.model_dump(exclude_none=True)
    said = {name: value for name, value in said.items() if name in HealthCheck.model_fields}
    if "kind" not in said:
        if "command" in said:
            said["kind"] = "command"
        elif "path" in said or "status" in said or "body" in said:
            said["kind"] = "http"
    return HealthCheck.model_validate({**base.model_dump(), **said})
