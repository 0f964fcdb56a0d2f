"""Checks that a helix.toml which reads well can also be deployed: names, ports, volumes, secrets.

Whatever a released HelixDB CLI accepted stays valid: there these checks only warn. They refuse what
would lose data, or what a platform is known to refuse.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from model.errors import ConfigurationError, HelixError
from model.instance import Instance
from model.names import base_name, docker_name
from model.notice import is_url
from project import policy, secrets
from project.config import EnterpriseTable, LocalTable
from project.deploy import DeploySettings
from project.eras import ERAS
from project.kinds import Azure, Docker, Ecr, Fly, HelixCloud, Kind
from project.load import Entry, Project
from project.problems import ConfigErrors, Key, Problem, dotted
from project.resolve import (
    PLACEHOLDERS,
    assemble,
    has_queries,
    merged,
    nature,
    resolve,
    unfilled,
)

Severity = Literal["error", "warning"]

FLY_LONGEST = 32
DOCKER_LONGEST = 200
"""Docker refuses a repository name of more than 255 characters, its registry's host included."""
LOSES_DATA = frozenset({"memory-only", "storage-key", "shared-volume", "duplicate-mount"})
"""Codes of errors that a database would pay for: nothing is deployed with them. What else is wrong
is refused by a step, once it knows what is there."""
_FLY_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_ECR_NAME = re.compile(r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*")
_HELIX_IMAGE = re.compile(r"(^|/)helixdb/(helixdb|enterprise-dev)(:|@|$)")


@dataclass(frozen=True)
class Subject:
    """One instance under check."""

    project: Project
    entry: Entry

    @cached_property
    def instance(self) -> Instance | None:
        """What would be deployed; None if that cannot be told."""
        if self.entry.errors or self.entry.table is None or not self.project.name:
            return None
        try:
            what = nature(self.project, self.entry)
        except ConfigurationError:
            what = "container"
        try:
            return assemble(self.project, self.entry, what)
        except ConfigurationError:
            return None

    @property
    def engine(self) -> str | None:
        """The container engine it runs on, to compare; None for other kinds."""
        table = self.entry.table
        if isinstance(table, LocalTable):
            return ""
        if isinstance(table, Docker):
            return table.host.removeprefix("unix:///var/run/docker.sock")
        return None

    def say(
        self, severity: Severity, code: str, message: str, fix: str = "", *path: str, **more: Any
    ) -> Problem:
        """A problem at a key of the instance's table, else at the table."""
        return self.at((*self.entry.key, *path), severity, code, message, fix, **more)

    def at(
        self, key: Key, severity: Severity, code: str, message: str, fix: str = "", **more: Any
    ) -> Problem:
        """A problem anywhere in the file."""
        return self.project.document.problem(
            key, message, severity=severity, code=code, fix=fix, **more
        )

    def deploy_key(self, *path: str) -> Key:
        """Where a setting of [deploy.<instance>] or else of [deploy] stands."""
        own: Key = ("deploy", self.entry.name, *path)
        places = self.project.document.places
        return own if own in places else ("deploy", *path)


def check(project: Project) -> list[Problem]:
    """Everything that is wrong with, or odd about, a project: what reading it found, and more.

    Reads the project's folder, environment variables and files that secret references name; and
    nothing over a network.
    """
    subjects = [Subject(project, entry) for entry in project.instances]
    found = list(project.all_problems())
    for check_all in (_generations, _same_name, _ports, _volumes, _docker_names):
        found += check_all(project, subjects)
    for subject in subjects:
        for check_one in _EACH:
            found += check_one(subject)
    found += _queries_only(project)
    unique = {(p.line, p.column, p.key, p.code, p.message): p for p in found}
    return sorted(unique.values(), key=lambda p: (p.line, p.column, p.severity))


def deployable(project: Project, name: str) -> Instance:
    """As `project.resolve.resolve`, but for an instance whose data a deployment could cost.

    Raises:
        NotFound, ConfigurationError: as there.
        ConfigErrors: one of `LOSES_DATA`.
    """
    instance = resolve(project, name)
    # Of two that clash, the later one is told.
    subjects = sorted(
        (Subject(project, entry) for entry in project.instances),
        key=lambda subject: subject.entry.name == name,
    )
    found = [*_volumes(project, subjects), *_helix_data(subjects[-1]), *_bucket_keys(subjects[-1])]
    others = tuple(
        f"{dotted(key)}."
        for one in subjects[:-1]
        for key in (one.entry.key, ("deploy", one.entry.name))
    )
    errors = [
        problem
        for problem in found
        if problem.code in LOSES_DATA
        and problem.severity == "error"
        and not f"{problem.key}.".startswith(others)
    ]
    if errors:
        raise ConfigErrors(errors)
    return instance


# --- the file as a whole -------------------------------------------------------------------------


def _generations(project: Project, subjects: list[Subject]) -> Iterator[Problem]:
    """What HelixDB's own CLIs would do to the file."""
    document = project.document
    if document.toml_1_1:
        yield document.problem(
            (),
            "the file uses TOML 1.1, which only HelixDB v3 reads",
            severity="warning",
            code="toml-1.1",
        )
    cloud = document.data.get("cloud")
    if isinstance(cloud, dict) and cloud:
        others = any(document.data.get(group) for group in ("local", "enterprise"))
        yield document.problem(
            ("cloud",),
            "HelixDB's v3 CLI does not see [cloud.*], and drops it whenever it writes the file"
            if others
            else "HelixDB's v3 CLI refuses this file: it does not see [cloud.*], so it finds no"
            " instance",
            severity="warning",
            code="v3-drops" if others else "v3-refuses",
            fix="«helix config restore» puts it back"
            if others
            else "add [local.dev] to use that CLI as well",
        )
    for complaint in ERAS["v3"].complaints(document.data):
        key = complaint.key
        if key[:1] == ("local",) and "s3" in (key[2:3] or ("s3",)):
            yield document.problem(
                key,
                f"HelixDB's v3 CLI refuses this: {complaint.message}",
                severity="warning",
                code="v3-refuses",
                expected=complaint.expected,
            )


def _queries_only(project: Project) -> Iterator[Problem]:
    """What HelixDB v2 would refuse, in a project that is v2 beyond doubt."""
    if project.table is None or not has_queries(project):
        return
    for entry in project.instances:
        for problem in entry.problems:
            if problem.accepted_by == ("v3",):
                yield problem.model_copy(
                    update={
                        "severity": "error",
                        "message": problem.message.partition(", and is ignored")[0],
                    }
                )


def _same_name(project: Project, subjects: list[Subject]) -> Iterator[Problem]:
    for subject in subjects:
        first = project.entry(subject.entry.name)
        if first is not None and first.key != subject.entry.key:
            yield subject.say(
                "warning",
                "same-name",
                f"«{first.name}» names two instances, and [{dotted(first.key[:2])}] wins",
                "give one of them another name",
            )


# --- across instances ----------------------------------------------------------------------------


def _clashes(
    subjects: list[Subject], what: Callable[[Instance], list[str]]
) -> Iterator[tuple[Subject, Subject, str]]:
    """Pairs of instances on one engine that want the same thing."""
    owners: dict[tuple[str, str], Subject] = {}
    for subject in subjects:
        if subject.engine is None or subject.instance is None:
            continue
        for thing in what(subject.instance):
            first = owners.setdefault((subject.engine, thing), subject)
            if first is not subject:
                yield first, subject, thing


def _ports(project: Project, subjects: list[Subject]) -> Iterator[Problem]:
    def published(instance: Instance) -> list[str]:
        return [str(instance.publish)] if instance.publish is not None else []

    for first, second, port in _clashes(subjects, published):
        both_local = first.entry.is_local and second.entry.is_local
        key: Key = (*second.entry.key, "port" if second.entry.is_local else "publish")
        if second.entry.deploy.publish is not None:
            key = second.deploy_key("publish")
        yield second.at(
            key,
            "warning" if both_local else "error",
            "duplicate-port",
            f"«{first.entry.name}» has port {port} already"
            + (": only one of them can run at a time" if both_local else ""),
            "give one of them another port",
        )


def _volumes(project: Project, subjects: list[Subject]) -> Iterator[Problem]:
    def places(instance: Instance) -> list[str]:
        return list(dict.fromkeys(volume.path or volume.name for volume in instance.volumes))

    for first, second, place in _clashes(subjects, places):
        yield second.at(
            second.deploy_key("volumes") if second.entry.deploy.volumes else second.entry.key,
            "error",
            "shared-volume",
            f"«{first.entry.name}» has the volume {place} already: two databases on the same files"
            " destroy them",
            "give one of them another volume",
        )
    for subject in subjects:
        volumes = subject.instance.volumes if subject.instance else ()
        mounts = [volume.mount.rstrip("/") or "/" for volume in volumes]
        for mount in sorted({mount for mount in mounts if mounts.count(mount) > 1}):
            yield subject.at(
                subject.deploy_key("volumes"),
                "error",
                "duplicate-mount",
                f"two volumes are mounted at {mount}",
                "mount one of them elsewhere",
            )


def _docker_names(project: Project, subjects: list[Subject]) -> Iterator[Problem]:
    def names(instance: Instance) -> list[str]:
        return [docker_name(instance.project, instance.name)]

    for first, second, name in _clashes(subjects, names):
        if first.entry.name != second.entry.name:
            yield second.say(
                "error",
                "name",
                f"Docker would call it {name}, just as «{first.entry.name}»",
                "rename one of them",
            )


# --- one instance --------------------------------------------------------------------------------


def _names(subject: Subject) -> Iterator[Problem]:
    """The limits of Docker, Fly and ECR."""
    project, entry = subject.project.name, subject.entry
    table = entry.table
    if not project or not entry.name:
        return
    wanted, name = base_name(project, entry.name), docker_name(project, entry.name)
    if isinstance(table, Fly):
        yield from _fly_name(subject)
    elif isinstance(table, Ecr):
        repository = table.repository_name
        if not _ECR_NAME.fullmatch(repository) or len(repository) > 256:
            yield subject.say(
                "error",
                "name",
                f"ECR refuses the name «{repository}»",
                f"write {re.sub(r'[^a-z0-9._/-]+', '-', repository.lower()).strip('-._/')}",
                "repository_name",
                expected="2 to 256 lower-case letters, digits and single . _ - /",
            )
        elif len(repository) < 2:
            yield subject.say(
                "warning", "name", "ECR wants at least two characters", "", "repository_name"
            )
    elif subject.engine is not None and len(name) > DOCKER_LONGEST:
        yield subject.say(
            "error",
            "name",
            f"{name[:40]}… is {len(name)} characters long",
            "shorten the name of the project or of the instance",
            expected=f"at most {DOCKER_LONGEST}",
        )
    elif subject.engine is not None and name != wanted:
        yield subject.say(
            "warning",
            "name",
            f"Docker does not allow «{wanted}»: it will be called {name}",
            "use lower-case letters, digits and -",
        )


def _fly_name(subject: Subject) -> Iterator[Problem]:
    entry = subject.entry
    app = base_name(subject.project.name.replace("_", "-"), entry.name)
    known = (subject.project.folder / ".helix" / entry.name / "fly.toml").exists()
    severity: Severity = "warning" if known else "error"
    if len(app) > FLY_LONGEST:
        yield subject.say(
            severity,
            "name",
            f"the Fly app {app} has {len(app)} characters",
            "shorten the name of the project or of the instance",
            expected=f"at most {FLY_LONGEST}",
        )
    if not _FLY_NAME.fullmatch(app):
        yield subject.say(
            severity,
            "name",
            f"Fly refuses the app name {app}",
            "rename the project or the instance",
            expected="lower-case letters, digits and -",
        )


def _old_settings(subject: Subject) -> Iterator[Problem]:
    """What still works, but not for long or not as one would think."""
    entry, table = subject.entry, subject.entry.table
    if entry.value.get("build_mode") == "debug":
        yield subject.say(
            "warning",
            "deprecated-value",
            "HelixDB v2.2.3 and later refuse the build mode debug",
            'write build_mode = "dev"',
            "build_mode",
        )
    if isinstance(table, LocalTable) and table.storage == "disk":
        volume_name = f"{base_name(subject.project.name, entry.name)}-minio-data"
        yield subject.say(
            "warning",
            "other-volume",
            f"HelixDB's CLI keeps this data in MinIO (volume {volume_name}); what is there is not"
            " seen here, where the database has a volume of its own",
            "load the data again after the first push",
            "storage",
        )
    if isinstance(table, Fly):
        if table.volume is None:
            volume = subject.instance.volumes[0] if subject.instance else None
            shown = f"{volume.name}:{volume.mount}" if volume else "its usual name"
            yield subject.say(
                "warning",
                "missing-volume",
                f"no volume is named; HelixDB's CLI refuses that, here it is {shown}",
                f'write volume = "{shown}"',
            )
        if table.app_name is not None:
            yield subject.say(
                "warning",
                "no-effect",
                f"whatever this says, it is {base_name(subject.project.name, entry.name)}",
                "",
                "app_name",
            )
        if table.vm_size in ("shared-cpu-1x", "shared-cpu-2x", "performance-1x", "performance-2x"):
            yield subject.say(
                "warning", "v2-refuses", "HelixDB's CLI refuses this size", "", "vm_size"
            )
    if isinstance(table, HelixCloud | EnterpriseTable):
        cluster = (table.cluster_id or "").strip() if table.cluster_id is not None else None
        if cluster in PLACEHOLDERS:
            yield subject.say(
                "warning",
                "placeholder",
                "this is no cluster yet; a push will stop here",
                "write the id of the cluster",
                "cluster_id",
            )


def _unfilled(subject: Subject) -> Iterator[Problem]:
    """What `helix init` could not know."""
    for key, value in unfilled(subject.entry):
        yield subject.say(
            "warning",
            "placeholder",
            f"«{value}» is to be replaced; a push will stop here",
            f"helix set {subject.entry.name}.{key} …",
            key,
        )


ELSEWHERE = (
    'bucket = "…", endpoint_url = "https://…", access_key = "env:…" and secret_key = "env:…" of an '
    "S3-compatible store"
)
"""What a kind must be told whose own cloud has no bucket for HelixDB."""


def _bucket_keys(subject: Subject) -> Iterator[Problem]:
    """Object storage on Azure, where no identity opens any: Blob Storage does not speak S3."""
    settings = merged(subject.project.deploy, subject.entry.deploy).object_storage
    if not isinstance(subject.entry.table, Azure) or settings is None or settings.access_key:
        return
    yield subject.at(
        subject.deploy_key("object_storage"),
        "error",
        "storage-key",
        "HelixDB speaks S3, which Azure's Blob Storage does not: the release has nothing to open "
        f"«{settings.bucket}» with",
        f"[{dotted(('deploy', subject.entry.name, 'object_storage'))}] needs {ELSEWHERE}",
    )


def _helix_data(subject: Subject) -> Iterator[Problem]:
    """A HelixDB v3 that would keep its data in memory only, or in the container."""
    instance, entry = subject.instance, subject.entry
    if instance is None or instance.throw_away:
        return
    image = instance.build.image if instance.build.kind == "image" else ""
    if not _HELIX_IMAGE.search(image):
        return
    names = {*instance.env, *instance.secrets}
    if "S3_BUCKET" in names:
        return
    folder = instance.env.get("HELIX_DATA_DIR", "")
    mounted = any(
        folder == volume.mount.rstrip("/") or folder.startswith(volume.mount.rstrip("/") + "/")
        for volume in instance.volumes
    )
    if folder and mounted:
        return
    settings = f"[{dotted(('deploy', entry.name))}]"
    allow = f"or throw_away = true in {settings} if it may be lost"
    if entry.is_local:
        yield subject.say(
            "warning",
            "memory-only",
            "this HelixDB keeps its data in memory: a new release, or a restart, loses it",
            f'write storage = "disk", {allow}',
        )
        return
    yield subject.say(
        "error",
        "memory-only",
        f"this HelixDB keeps its data in {folder} inside the container, which no volume covers"
        if folder
        else "this HelixDB keeps its data in memory: a new release, or a restart, loses it",
        f'add object_storage = "<bucket>", or HELIX_DATA_DIR with a volume, to {settings}; {allow}'
        if isinstance(entry.table, Kind) and entry.table.MAKES_BUCKETS
        else f"add [{dotted(('deploy', entry.name, 'object_storage'))}] with {ELSEWHERE}, or "
        f"HELIX_DATA_DIR with a volume to {settings}; {allow}",
    )


def _secrets(subject: Subject) -> Iterator[Problem]:
    """Secret references that are none, or that lead nowhere from here."""
    settings = merged(subject.project.deploy, subject.entry.deploy)
    table = subject.entry.table
    references: list[tuple[Key, str]] = [
        (subject.deploy_key("secrets", name), reference)
        for name, reference in settings.secrets.items()
    ]
    if settings.build is not None:
        references += [
            (subject.deploy_key("build", "secrets", name), reference)
            for name, reference in settings.build.secrets.items()
        ]
    if settings.registry is not None and settings.registry.password:
        key = subject.deploy_key("registry", "password")
        references.append((key, settings.registry.password))
    if settings.object_storage is not None:
        references += [
            (subject.deploy_key("object_storage", name), value)
            for name in ("access_key", "secret_key")
            if (value := getattr(settings.object_storage, name))
        ]
    references += [
        ((*subject.entry.key, name), value)
        for name in ("password", "token")
        if isinstance(value := getattr(table, name, None), str)
    ]
    references += _notification_secrets(subject, settings)
    elsewhere = bool(os.environ.get("TEMPORAL_ADDRESS") or os.environ.get("TEMPORAL_PROFILE"))
    for key, reference in references:
        try:
            secrets.check(reference)
        except HelixError as error:
            yield subject.at(key, "error", "secret", error.message, error.hint)
            continue
        if reference.partition(":")[0] not in ("env", "file"):
            continue
        try:
            secrets.resolve(reference, extra_env_file=subject.project.folder / ".env")
        except HelixError as error:
            yield subject.at(
                key,
                "warning" if elsewhere else "error",
                "secret",
                error.message + (" here; the worker may have it" if elsewhere else ""),
                error.hint,
            )


def _notification_secrets(subject: Subject, settings: DeploySettings) -> Iterator[tuple[Key, str]]:
    """What must be a secret reference in the notifications: the URLs of Slack and Discord let
    anybody post there."""
    for name, table in settings.notifications.items():
        key = subject.deploy_key("notifications", name)
        if table.kind != "webhook" or not is_url(table.url):
            yield (*key, "url"), table.url
        if table.secret is not None:
            yield (*key, "secret"), table.secret


def _signatures(subject: Subject) -> Iterator[Problem]:
    """Only webhooks are signed: Slack and Discord look at no signature."""
    settings = merged(subject.project.deploy, subject.entry.deploy)
    for name, table in settings.notifications.items():
        if table.secret is not None and table.kind != "webhook":
            key = subject.deploy_key("notifications", name)
            message = f"messages to {table.kind} are not signed: nobody there would check it"
            yield subject.at((*key, "secret"), "warning", "no-effect", message, "remove secret")


def _contents(subject: Subject) -> Iterator[Problem]:
    """There is something to run, and its settings fit together."""
    entry = subject.entry
    if entry.errors or entry.table is None or not subject.project.name:
        return
    try:
        what = nature(subject.project, entry)
    except ConfigurationError as error:
        yield subject.say("warning", "nothing-to-run", error.message, error.hint)
        return
    try:
        assemble(subject.project, entry, what)
    except ConfigErrors as errors:
        yield from errors.problems
    except ConfigurationError as error:
        is_old = entry.is_local and what == "v3"
        yield subject.say(
            "warning" if is_old else "error", "contradiction", error.message, error.hint
        )


def _policy(subject: Subject) -> Iterator[Problem]:
    """What the policy forbids, as far as the file tells; the rest is checked by the worker."""
    settings = merged(subject.project.deploy, subject.entry.deploy)
    if settings.policy is None:
        return
    try:
        policy.resolved(settings.policy, subject.project.folder)
    except ConfigurationError as error:
        key = subject.deploy_key("policy", "signed_by")
        yield subject.at(key, "error", "policy", error.message, error.hint)
        return
    instance = subject.instance
    if instance is None:
        return
    registry = instance.registry
    # Some kinds complete the repository's name by themselves.
    known = registry.repository if registry is not None and registry.kind == "oci" else None
    for found in policy.violations(instance, "" if registry is None else known):
        key = subject.deploy_key("policy", found.setting)
        yield subject.at(key, "error", "policy", found.message, found.hint)


_EACH = (
    _names,
    _old_settings,
    _unfilled,
    _helix_data,
    _bucket_keys,
    _secrets,
    _signatures,
    _policy,
    _contents,
)
