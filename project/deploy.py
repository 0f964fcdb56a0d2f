"""How an instance is deployed: `[deploy]` for all, `[deploy.<instance>]` for one.

HelixDB's own CLIs do not look at these tables.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from datetime import date, time
from string import Template
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from model.cron import check as check_cron
from model.errors import HelixError
from model.freeze import zone_of
from model.instance import End
from model.notice import NAMES
from model.schedule import check_git, check_ref
from project.database import S3Storage
from project.table import Port, Table

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d)")


def seconds(value: Any) -> Any:
    """A duration such as «5m» in seconds; anything that is no text stays as it is.

    Raises:
        ValueError: the text is no duration.
    """
    if isinstance(value, bool):
        raise ValueError("a number of seconds, or a duration such as «30s», «5m», «2h»")
    if isinstance(value, str):
        match = _DURATION.fullmatch(value.strip())
        if match is None:
            raise ValueError("a number of seconds, or a duration such as «30s», «5m», «2h»")
        return float(match[1]) * _UNITS[match[2]]
    return value


def _day(value: str) -> str:
    try:
        date.fromisoformat(value)
    except ValueError:
        raise ValueError("a day such as 2026-12-20") from None
    return value


def _words(value: Any) -> Any:
    return shlex.split(value) if isinstance(value, str) else value


def _template(text: str) -> str:
    """A template all of whose names are known."""
    template = Template(text)
    names = template.get_identifiers() if template.is_valid() else ["$"]
    if unknown := [name for name in names if name not in NAMES]:
        raise ValueError(f"text with no names but ${', $'.join(NAMES)}; «{unknown[0]}» is none")
    return text


def _list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


Seconds = Annotated[
    float,
    BeforeValidator(seconds, json_schema_input_type=float | str),
    Field(ge=0, le=10 * 365 * 86400.0),
]
"""Seconds as a number, or a duration such as "30s", "5m", "2h"."""
Words = Annotated[list[str], BeforeValidator(_words, json_schema_input_type=list[str] | str)]
"""A command: a list of words, or one string that is split as a shell would."""


def _either(short: Callable[[str], dict[str, Any]]) -> Callable[[Any], Any]:
    """Lets one string stand for a whole table."""
    return lambda value: short(value) if isinstance(value, str) else value


def _approval(value: Any) -> Any:
    """«true» and «false» stand for a table; a table that says nothing else asks for approval."""
    if isinstance(value, bool):
        return {"required": value}
    return {"required": True, **value} if isinstance(value, dict) else value


def _on_failure(value: Any) -> Any:
    """«ask» and «roll-back» stand for a table; a table that says nothing else asks."""
    if isinstance(value, str):
        return {"then": value}
    return {"then": "ask", **value} if isinstance(value, dict) else value


_REGISTRY = r"^[a-z0-9*][a-z0-9*.-]*(:[0-9]+)?(/[a-z0-9._-]+)*/?$"
"""A registry's host, with `*` for any part of it, its port, and the beginning of a path."""
PublicKeys = Annotated[
    list[Annotated[str, Field(min_length=1)]],
    BeforeValidator(_list, json_schema_input_type=list[str] | str),
    Field(min_length=1),
]
"""One public key, or several."""
Ends = Annotated[list[End], BeforeValidator(_list, json_schema_input_type=list[End] | End)]
Statuses = Annotated[
    list[Annotated[int, Field(ge=100, le=599)]],
    BeforeValidator(_list, json_schema_input_type=list[int] | int),
]


class HealthCheckTable(Table):
    """How to tell that a release works."""

    kind: Literal["http", "tcp", "command", "none"] | None = None
    """What to do: `http` if a path is given, `command` if a command is."""
    path: str | None = None
    """The path to get."""
    port: Port | None = None
    """The container's port to probe; the instance's own if it is absent."""
    status: Statuses | None = None
    """Accepted status codes; any from 200 to 399 if it is absent."""
    body: str | None = None
    """A regular expression that the body must contain."""
    command: Words | None = None
    """What to run inside the container; exit code 0 is healthy."""
    start_period: Seconds | None = None
    """Failures in this first time do not count."""
    interval: Seconds | None = Field(None, gt=0)
    """The time between two probes."""
    timeout: Seconds | None = Field(None, gt=0)
    """The time one probe may take."""
    successes: Annotated[int, Field(ge=1)] | None = None
    """How many in a row make the release healthy."""
    deadline: Seconds | None = Field(None, gt=0)
    """The release must be healthy within this time."""


class BuildTable(Table):
    """How the artifact is made."""

    kind: Literal["dockerfile", "image", "helix", "bundle"] | None = None
    """What it is made from; found out from the other keys and the project's files if absent."""
    context: str | None = None
    """The build context, relative to this file."""
    dockerfile: str | None = None
    """The Dockerfile, relative to the context."""
    image: str | None = None
    """A prebuilt image to take instead of building one."""
    target: str | None = None
    """The stage of the Dockerfile to build."""
    platform: str | None = None
    """Such as linux/amd64."""
    args: dict[str, str] = {}
    """Build arguments. Not for secrets: they stay in the image."""
    secrets: dict[str, str] = {}
    """Build secrets: id to secret reference, for RUN --mount=type=secret,id=…"""


class RegistryTable(Table):
    """Where the instance's images are stored."""

    ALIASES = {"user": "username"}

    kind: str = "oci"
    """oci, ecr, ghcr, docker_hub, gar, acr, or a plug-in's."""
    repository: str = ""
    """The host and path, without a tag."""
    username: str | None = None
    """The user; what `docker login` stored if it is absent."""
    password: str | None = None
    """A secret reference to the password or token."""
    ca: str | None = None
    """A file with the registry's certificate authority."""
    insecure: bool | None = None
    """Plain HTTP, on loopback only."""
    registry_host: str | None = None
    """Another host for the images themselves, such as a private endpoint or a proxy."""
    region: str | None = None
    """ecr: the AWS region; that of the repository's host if it is absent."""
    profile: str | None = None
    """ecr: the profile of AWS's configuration to use."""
    endpoint_url: str | None = None
    """ecr: another address of the AWS API."""
    endpoint: str | None = None
    """gar: another address of the Artifact Registry API."""


class VolumeTable(Table):
    """A place where data outlives the release."""

    mount: Annotated[str, Field(pattern=r"^/")]
    """The absolute path in the container."""
    name: str = ""
    """The platform's volume."""
    path: str = ""
    """A folder on the engine's machine instead; relative to this file for a local instance."""
    size_gb: Annotated[int, Field(ge=0)] = 0
    """The size of a new volume; the platform's default if it is absent."""


class ObjectStorageTable(S3Storage):
    """Where a HelixDB v3 keeps its data, instead of a volume. A string is the bucket."""

    region: str | None = None  # type: ignore[assignment]
    """The bucket's region; that of the kind's table, else us-east-1, if it is absent."""
    access_key: str | None = None
    """A secret reference to the key's id; the release's own role is used if it is absent."""
    secret_key: str | None = None
    """A secret reference to the key."""
    create: bool = True
    """Make the bucket if it is not there, where the kind's own cloud has it."""
    grant: bool = False
    """Give the release's role what it needs on the bucket, where the kind can."""


class StepTable(Table):
    """How patient one step is."""

    timeout: Seconds | None = Field(None, gt=0)
    """How long one attempt may take."""
    deadline: Seconds | None = Field(None, gt=0)
    """How long all attempts together may take."""
    heartbeat: Seconds | None = Field(None, gt=0)
    """How long a worker may be silent before it is taken for dead."""
    attempts: Annotated[int, Field(ge=1)] | None = None
    """How many attempts at most."""
    backoff: Seconds | None = Field(None, gt=0)
    """The time before the second attempt; doubles from then on."""


class StepsTable(Table):
    """How patient each step is."""

    ALIASES = {"health_check": "health-check"}

    validate_: StepTable | None = Field(None, alias="validate")
    """Reading the configuration and asking the platform."""
    build: StepTable | None = None
    """Making the artifact."""
    authenticate: StepTable | None = None
    """Checking the credentials."""
    push: StepTable | None = None
    """Storing the image."""
    deploy: StepTable | None = None
    """Making the release the running one."""
    health_check: StepTable | None = Field(None, alias="health-check")
    """Probing until it is healthy."""


class ApprovalTable(Table):
    """Who must agree before a release touches what runs. `approval = true` takes every default."""

    required: bool = True
    """`false` takes back what `[deploy]` says for all instances."""
    window: Seconds | None = Field(None, gt=0)
    """How long to wait for an answer; a day if it is absent."""
    otherwise: Literal["reject", "approve"] | None = None
    """What happens when nobody answers in time; `reject` if it is absent."""
    by: list[Annotated[str, Field(min_length=1)]] | None = None
    """Who may answer, as `helix history` names people (user@host); anybody if it is absent."""


class OnFailureTable(Table):
    """What happens when a step fails for good. `on_failure = "ask"` takes every default."""

    then: Literal["roll-back", "ask"] = "ask"
    """Roll back at once, or ask a person first."""
    window: Seconds | None = Field(None, gt=0)
    """How long to wait for an answer, before rolling back; half an hour if it is absent."""


class NotificationTable(Table):
    """Where it is told how a deployment ended: `[deploy.notifications.<name>]` for all instances,
    `[deploy.<instance>.notifications.<name>]` for one, whose table replaces that of the same name.
    """

    kind: Literal["slack", "discord", "webhook"]
    """The form of the message: Slack's or Discord's incoming webhooks, or JSON for any program."""
    url: Annotated[str, Field(min_length=1)]
    """A secret reference to the URL. A `webhook` without a secret in its URL may have it here."""
    secret: Annotated[str, Field(min_length=1)] | None = None
    """A secret reference to `whsec_` and a key in base64: a `webhook` is signed with it."""
    on: Ends | None = None
    """Which ends are told: all if it is absent, none if it is an empty list."""
    template: Annotated[str, AfterValidator(_template)] | None = None
    """The text, with $instance, $outcome, $release, $url, $failure and others in it."""


def _volume(text: str) -> dict[str, Any]:
    """«data:/data» names a volume; «./data:/data» or «/srv/data:/data» a folder."""
    place, colon, mount = text.partition(":")
    if not (place and colon and mount.startswith("/")):
        raise ValueError("<name or folder>:<mount>, such as data:/data")
    return {"path" if place.startswith((".", "/", "~")) else "name": place, "mount": mount}


AnyHealthCheck = Annotated[
    HealthCheckTable,
    BeforeValidator(_either(lambda path: {"path": path}), HealthCheckTable | str),
]
AnyRegistry = Annotated[
    RegistryTable,
    BeforeValidator(_either(lambda repository: {"repository": repository}), RegistryTable | str),
]
AnyApproval = Annotated[ApprovalTable, BeforeValidator(_approval, ApprovalTable | bool)]
AnyOnFailure = Annotated[
    OnFailureTable,
    BeforeValidator(_on_failure, OnFailureTable | Literal["roll-back", "ask"]),
]
AnyObjectStorage = Annotated[
    ObjectStorageTable,
    BeforeValidator(_either(lambda bucket: {"bucket": bucket}), ObjectStorageTable | str),
]
AnyVolume = Annotated[VolumeTable, BeforeValidator(_either(_volume), VolumeTable | str)]


def _checked(check: Callable[[str], object], expected: str) -> Callable[[str], str]:
    """A validator whose complaint says what is expected."""

    def validate(value: str) -> str:
        try:
            check(value)
        except HelixError as error:
            raise ValueError(f"{expected} ({error.message})") from None
        return value

    return validate


def _native(value: Any) -> Any:
    """TOML's own dates and times as text."""
    if isinstance(value, time):
        return value.isoformat("minutes")
    return value.isoformat() if type(value) is date else value


Zone = Annotated[
    str, AfterValidator(_checked(zone_of, "an IANA time zone such as Europe/Berlin or UTC"))
]
Cron = Annotated[str, AfterValidator(_checked(check_cron, "a cron expression such as «0 4 * * *»"))]
Crons = Annotated[
    list[Cron],
    BeforeValidator(_list, json_schema_input_type=list[str] | str),
    Field(min_length=1),
]
"""One cron expression, or several."""
Clock = Annotated[
    str,
    BeforeValidator(_native, json_schema_input_type=str),
    Field(pattern=r"^(([01]\d|2[0-3]):[0-5]\d|24:00)$"),
]
Day = Annotated[
    str,
    BeforeValidator(_native, json_schema_input_type=str),
    AfterValidator(_day),
]


class ScheduleTable(Table):
    """When to deploy by itself. `helix schedule sync` applies it."""

    cron: Crons | None = None
    """When: a cron expression, or a list of them. In [deploy.schedule] it has no effect."""
    timezone: Zone | None = None
    """The time zone of the expression; UTC if it is absent."""
    mode: Literal["redeploy", "rebuild"] | None = None
    """`redeploy` the current release, or `rebuild` it from base images as they are then."""
    git: Annotated[str, AfterValidator(_checked(check_git, "a repository"))] | None = None
    """The repository to fetch and build; without it, what was pushed last."""
    ref: Annotated[str, AfterValidator(_checked(check_ref, "a ref"))] | None = None
    """The branch, tag or commit in it; its default branch if it is absent."""
    jitter: Seconds | None = None
    """A run starts up to this much later, at random."""
    overlap: Literal["skip", "buffer", "cancel"] | None = None
    """What to do if the instance is being deployed already."""
    catch_up: Seconds | None = Field(None, ge=10)
    """How late a missed run may still start."""
    pause_on_failure: bool | None = None
    """Whether a failed run pauses the schedule."""
    note: str | None = None
    """Why; kept with each deployment."""


class WindowTable(Table):
    """A time in which deployments are refused."""

    days: list[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]] = []
    """The days on which it begins; every day if it is absent."""
    from_: Clock = Field("00:00", alias="from")
    """The time of day at which it begins."""
    to: Clock = "24:00"
    """The time at which it ends; on the next day if that is not after `from`."""
    first: Day | None = None
    """The first day on which it may begin: 2026-12-20."""
    last: Day | None = None
    """The last one."""
    timezone: Zone | None = None
    """The time zone; that of the whole table if it is absent."""
    reason: str = ""
    """Why; shown to those who are refused."""


class FreezeTable(Table):
    """When not to deploy."""

    timezone: Zone | None = None
    """The time zone of the windows; UTC if it is absent."""
    windows: list[WindowTable] | None = None
    """The windows; an empty list takes those of [deploy] away."""


class PolicyTable(Table):
    """What a release must fulfil. Everything is off unless it is set."""

    registries: list[Annotated[str, Field(pattern=_REGISTRY)]] | None = None
    """Where images may come from and be stored: ghcr.io/acme, *.dkr.ecr.eu-west-1.amazonaws.com."""
    approval: bool | None = None
    """The instance must wait for an approval, and nobody's answer must mean no."""
    signed_by: PublicKeys | None = None
    """cosign's public key, or several of which one is enough: files beside this one, or names of
    keys in a KMS such as awskms:///alias/release."""
    sbom: bool | None = None
    """An SBOM (CycloneDX or SPDX) must be attached to the image as an attestation."""
    max_severity: Literal["none", "low", "medium", "high", "critical"] | None = None
    """The worst vulnerability a scan may find."""
    ignore: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9:._-]+$")]] | None = None
    """Ids of vulnerabilities that do not count: CVE-2026-1234."""


class DeploySettings(Table):
    """How an instance is deployed."""

    ALIASES = {"environment": "env", "healthcheck": "health_check", "health-check": "health_check"}

    health_check: AnyHealthCheck | None = None
    """How to tell that a release works; a string is the path of an HTTP check."""
    strategy: Literal["auto", "start-first", "stop-first"] | None = None
    """`auto`: stop-first if there is a volume or object storage, else start-first."""
    env: dict[str, str] = {}
    """Environment variables of the container. Not for secrets."""
    secrets: dict[str, str] = {}
    """Environment variables whose values are secrets: name to secret reference, such as
    env:API_KEY or file:/run/secrets/api_key. Only the worker ever reads the value."""
    build: BuildTable | None = None
    """How the artifact is made."""
    registry: AnyRegistry | None = None
    """Where images are stored; a string is the repository, without a tag."""
    port: Port | None = None
    """The port the container listens on."""
    publish: Port | None = None
    """The port on the engine's machine."""
    volumes: list[AnyVolume] | None = None
    """Where data outlives the release; a string is <name or folder>:<mount>."""
    object_storage: AnyObjectStorage | None = None
    """Where a HelixDB v3 keeps its data, instead of a volume; a string is the bucket."""
    command: Words | None = None
    """Replaces the image's own command."""
    stop_grace: Seconds | None = None
    """The time between SIGTERM and SIGKILL."""
    drain: Seconds | None = None
    """The time the old release may finish its requests in."""
    keep_releases: Annotated[int, Field(ge=1)] | None = None
    """How many earlier releases stay available for a rollback."""
    throw_away: bool | None = None
    """The instance may lose its data."""
    steps: StepsTable = StepsTable()
    """How patient each step is: validate, build, authenticate, push, deploy, health-check."""
    approval: AnyApproval | None = None
    """Whether a person must agree before a release touches what runs; `true`, or a table."""
    on_failure: AnyOnFailure | None = None
    """When a step fails for good: `roll-back` (what happens if it is absent), `ask`, or a table."""
    bake: Seconds | None = None
    """How long a release is watched after it got the traffic; it is rolled back if it goes bad."""
    notifications: dict[str, NotificationTable] = {}
    """Where it is told how a deployment ended."""
    schedule: ScheduleTable | None = None
    """When to deploy by itself."""
    freeze: FreezeTable | None = None
    """When not to deploy."""
    policy: PolicyTable | None = None
    """What a release must fulfil."""
