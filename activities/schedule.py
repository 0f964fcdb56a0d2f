"""What a schedule's run needs from outside: what to deploy, and a word in the ledger if nothing is.

A rebuild with a repository fetches it with the git command of the worker, which must be able to log
in by itself: with an SSH key, or with git's own credential helper.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from temporalio import activity

from activities import beat
from activities.boundary import step_activity
from model.artifact import Source
from model.audit import AuditEvent
from model.deployment import DeploymentRecord, DeployRequest, Trigger
from model.errors import ConfigurationError, HelixError, NotFound, PermissionDenied, Transient
from model.freeze import frozen
from model.names import short_id
from model.redaction import redact
from model.schedule import Mode, Prepared, PrepareInput, SkippedInput

if TYPE_CHECKING:
    from activities.services import Services
    from model.instance import Instance
    from model.schedule import RedeployRequest
    from project.store import Store

PROTOCOLS = "https:ssh:git:http:file"
"""How a repository may be fetched. Others (`ext::`) would run commands."""

GIT_PROBLEMS: tuple[tuple[str, type[HelixError], str], ...] = (
    (
        r"could not read (Username|Password)|Authentication failed|Permission denied|"
        r"terminal prompts disabled|Host key verification",
        PermissionDenied,
        "give the worker an SSH key or a git credential helper for it",
    ),
    (
        r"couldn't find remote ref|not our ref|invalid refspec",
        NotFound,
        "check --ref: a branch, a tag, or a commit the server gives away",
    ),
    (
        r"repository .*not found|does not (exist|appear to be a git repository)|not supported|"
        r"not allowed",
        NotFound,
        "check --git",
    ),
)
"""A pattern of what git says -> what it means, and what to do. Anything else may pass by itself."""


class ScheduleActivities:
    """Both may be repeated: preparing only reads and stores by content, and a skipped run is noted
    once."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @step_activity("prepare_redeploy")
    def prepare_redeploy(self, given: PrepareInput) -> Prepared:
        """Find out what a run deploys: the current release's artifact, its kept source, or what a
        git repository has.

        Raises:
            NotFound: there is no release, source, repository or ref.
            PermissionDenied: the repository does not let the worker in.
            ConfigurationError: the repository holds another project, or its helix.toml is wrong.
            Transient: the repository does not answer.
        """
        request = given.request
        self._refuse_destroyed(request)
        commit = ""
        if request.schedule.git:
            deployment, commit = self._from_git(given)
        else:
            deployment = self._from_ledger(given)
        refusal = frozen(deployment.instance.freeze, activity.info().scheduled_time)
        if refusal is not None:
            return Prepared(skip=refusal.message)
        return Prepared(request=deployment, commit=commit)

    @step_activity("record_skipped")
    def record_skipped(self, given: SkippedInput) -> str:
        """Note in the audit trail that a run deployed nothing. Returns why, in full."""
        request, ledger = given.request, self._services.ledger
        why = given.why
        for record in ledger.history(request.key, limit=1):
            if record.ended_at is None:
                why += f": {short_id(record.deployment)}, started by {record.request.actor}"
        event = AuditEvent(
            at=datetime.now(UTC),
            actor=_actor(request),
            origin="schedule",
            action=Trigger.SCHEDULE.value,
            instance_key=request.key,
            deployment=given.run,
            reason=why,
            outcome="skipped",
        )
        return ledger.append_once(event).reason

    def _refuse_destroyed(self, request: RedeployRequest) -> None:
        for known in self._services.ledger.instances():
            if known.key == request.key and known.destroyed_at is not None:
                raise NotFound(
                    f"{request.key} was destroyed",
                    hint=f"helix push {request.name}, or: helix schedule remove {request.name}",
                )

    def _from_ledger(self, given: PrepareInput) -> DeployRequest:
        request = given.request
        current = self._services.ledger.current_release(request.key)
        if current is None:
            raise NotFound(
                f"{request.key} has no release to deploy again",
                hint=f"deploy it once by hand: helix push {request.name}",
            )
        found = DeployRequest(
            instance=current.request.instance,
            trigger=Trigger.SCHEDULE,
            actor=_actor(request),
            reason=_reason(request),
        )
        if request.schedule.mode is Mode.REDEPLOY:
            update: dict[str, object] = {
                "source": current.request.source,
                "artifact": current.progress.artifact or current.request.artifact,
                "pushed": True,
            }
        else:
            update = {"source": self._kept_source(current), "refresh": given.run}
        return found.model_copy(update=update)

    def _kept_source(self, record: DeploymentRecord) -> Source | None:
        """The source a release was built from, also if it was reached by a rollback since."""
        key = record.request.instance.key
        known = {one.number: one for one in self._services.ledger.releases(key)}
        origin: DeploymentRecord | None = record
        while origin is not None and origin.request.source is None and origin.request.of_release:
            origin = known.get(origin.request.of_release)
        source = origin.request.source if origin is not None else None
        if source is None and record.request.instance.build.kind != "image":
            raise NotFound(
                f"the source of release {record.number} of {key} is not kept",
                hint="push once more, or let the schedule build from a repository: --git URL",
            )
        return source

    def _from_git(self, given: PrepareInput) -> tuple[DeployRequest, str]:
        from project.checks import deployable
        from project.load import load_project

        request, services = given.request, self._services
        with _folder(services.scratch_dir) as folder:
            commit = fetch_ref(request.schedule.git, request.schedule.ref, folder)
            project = load_project(folder)
            instance = deployable(project, request.name)
            _require_same(request, instance)
            source = _snapshot(folder, instance, services.store)
        return DeployRequest(
            instance=instance,
            source=source,
            trigger=Trigger.SCHEDULE,
            actor=_actor(request),
            reason=f"{_reason(request)} at {commit[:12]}",
            refresh=given.run,
        ), commit


def fetch_ref(url: str, ref: str, folder: Path) -> str:
    """Put what a repository has at a ref into an empty folder. Returns the commit's id.

    Only that one commit is fetched, without its history and without submodules.

    Raises:
        NotFound, PermissionDenied, Transient: as in `GIT_PROBLEMS`, with git's own last words.
        ConfigurationError: the worker has no git.
    """
    beat.report(f"fetching {ref or 'the default branch'} of {redact(url)}")
    _git(folder, "init", "--quiet", "--template=", ".")
    _git(folder, "fetch", "--quiet", "--depth=1", "--no-tags", "--", url, ref or "HEAD")
    _git(folder, "checkout", "--quiet", "--detach", "FETCH_HEAD")
    commit = _git(folder, "rev-parse", "HEAD").strip()
    shutil.rmtree(folder / ".git")
    return commit


def _git(folder: Path, *words: str) -> str:
    """Run git to its end; a cancel ends it."""
    environment = {
        **os.environ,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": PROTOCOLS,
        "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -oBatchMode=yes"),
        "LC_ALL": "C",
    }
    try:
        process = subprocess.Popen(
            ["git", "-c", "advice.detachedHead=false", *words],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except FileNotFoundError:
        raise ConfigurationError("the worker has no git", hint="install git there") from None
    try:
        while True:
            try:
                out, said = process.communicate(timeout=0.25)
                break
            except subprocess.TimeoutExpired:
                beat.checkpoint()
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode != 0:
        raise _git_problem(words[0], said)
    return out


def _git_problem(verb: str, said: str) -> HelixError:
    said = redact(said.strip())
    message = f"git {verb} failed: {said.splitlines()[-1] if said else 'it says nothing'}"
    for pattern, kind, hint in GIT_PROBLEMS:
        if re.search(pattern, said, re.IGNORECASE):
            return kind(message, hint=hint, evidence=said)
    return Transient(message, evidence=said)


def _require_same(request: RedeployRequest, instance: Instance) -> None:
    """The repository's instance must be the one whose lock the schedule takes."""
    if instance.host:
        raise ConfigurationError(
            f"{request.key} is local: its data lies in its own project folder",
            hint="schedule it without --git, or use the kind docker",
        )
    if instance.key != request.key:
        raise ConfigurationError(
            f"the repository holds {instance.key}, and the schedule is for {request.key}",
            hint="the project's name in both helix.toml must be the same",
        )


@contextmanager
def _folder(scratch: Path) -> Iterator[Path]:
    """A private folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(
        prefix="git-", dir=scratch, ignore_cleanup_errors=True
    ) as name:
        yield Path(name)


def _snapshot(folder: Path, instance: Instance, store: Store) -> Source | None:
    """What the instance is built from; None for a prebuilt image. As `helix push` does it."""
    from builders.contexts import context_of
    from project.source import snapshot

    build = instance.build
    if build.kind == "image":
        return None
    context = context_of(instance, folder, lambda line: beat.report(redact(line)))
    dockerfile = build.dockerfile if build.kind == "dockerfile" else ""
    return snapshot(context, store, dockerfile=dockerfile, report=beat.report)


def _actor(request: RedeployRequest) -> str:
    return f"schedule by {request.actor}" if request.actor else "schedule"


def _reason(request: RedeployRequest) -> str:
    schedule = request.schedule
    ref = f" of {schedule.ref or 'HEAD'}" if schedule.git else ""
    return schedule.note or f"scheduled {schedule.mode}{ref} ({' and '.join(schedule.cron)})"
