"""The checks of `helix doctor`. Each one only looks, and none takes longer than a few seconds."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from cli import probe, stack, temporal
from model.errors import HelixError
from worker import paths

if TYPE_CHECKING:
    from model.instance import Instance
    from model.platform import Identity
    from providers.base import CloudProvider

LITTLE_DISK = 2_000_000_000
"""Bytes: with less free, builds fail."""


class State(StrEnum):
    """How a thing is."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; deployments work all the same."""
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    what: str
    state: State
    text: str
    hint: str = ""
    """What to do."""

    @property
    def document(self) -> dict[str, str]:
        """For machines."""
        return asdict(self)


def ok(what: str, text: str) -> Finding:
    """It is as it should be."""
    return Finding(what, State.OK, text)


def note(what: str, text: str, hint: str = "") -> Finding:
    """It could be better."""
    return Finding(what, State.NOTE, text, hint)


def problem(what: str, text: str, hint: str) -> Finding:
    """It has to be mended."""
    return Finding(what, State.PROBLEM, text, hint)


async def examine(instance: str = "") -> list[Finding]:
    """Run all checks; with an instance named, those of its platform and registry too."""
    findings: list[Finding] = []
    for what, check in CHECKS:
        findings += await _safely(what, check)
    if instance:
        findings += await _safely(instance, lambda: _instance(instance))
    return findings


async def _safely(
    what: str, check: Callable[[], list[Finding] | Awaitable[list[Finding]]]
) -> list[Finding]:
    try:
        found = check()
        return found if isinstance(found, list) else await found
    except HelixError as error:
        return [problem(what, error.message, error.hint)]
    except Exception as error:
        # One check that breaks must not hide the others.
        return [problem(what, f"{type(error).__name__}: {error}", "report this: it is a fault")]


def _python() -> list[Finding]:
    from importlib.metadata import version

    text = f"{platform.python_version()} at {sys.executable}, helix-deploy "
    return [ok("Python", text + version("helix-deploy"))]


def _settings() -> list[Finding]:
    from difflib import get_close_matches

    from worker.settings import PREFIX, Settings, load

    load()
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    for name in sorted(set(os.environ) - known):
        near = get_close_matches(name, known, n=1, cutoff=0.85)
        if name.startswith(PREFIX) and near:
            return [note("settings", f"{name} is none of ours", f"did you mean {near[0]}?")]
    return [ok("settings", str(paths.state_dir()))]


def _program() -> list[Finding]:
    if temporal.configured() is not None:
        return [ok("Temporal program", "not needed: a Temporal is configured")]
    found = temporal.installed()
    if found is None:
        return [note("Temporal program", "not here; fetched when first needed", temporal.INSTALL)]
    done = subprocess.run(
        [found, "--version"], capture_output=True, text=True, check=False, timeout=10
    )
    if done.returncode:
        return [problem("Temporal program", f"{found} does not run", temporal.INSTALL)]
    return [ok("Temporal program", f"{found}: {done.stdout.strip()}")]


async def _temporal() -> list[Finding]:
    cluster = temporal.configured()
    if cluster is not None:
        where = stack.ensure()
        text = f"{cluster.address}, namespace {cluster.namespace} (from {cluster.source})"
        return [*await _answers(where, text)]
    now = stack.status()
    if now.server is None and now.worker is None:
        return [note("Temporal", "the embedded stack does not run", "start it: helix up"), _ports()]
    if now.server is None or not now.ready:
        text = f"the embedded server does not answer; its log: {now.folder / 'server.log'}"
        return [problem("Temporal", text, "mend it: helix up")]
    if not now.healthy:
        text = f"the embedded worker does not answer; its log: {now.folder / 'worker.log'}"
        return [ok("Temporal", "embedded"), problem("worker", text, "mend it: helix up")]
    where = stack.embedded(now.server)
    return await _answers(where, f"embedded at {where.address}, UI at {where.ui_url}")


async def _answers(where: stack.Stack, text: str) -> list[Finding]:
    """Connect as every command does, and see who takes work."""
    from worker.client import pollers
    from worker.settings import load

    client = await stack.connect(where)
    queue = load().task_queue
    found = await pollers(client, queue)
    if not found:
        worker = problem(
            "worker",
            f"none polls the task queue «{queue}» in the namespace «{client.namespace}»",
            "start one: helix worker (for the embedded Temporal: helix up)",
        )
    else:
        names = ", ".join(sorted({one.identity for one in found}))
        worker = ok("worker", f"{names} on the task queue «{queue}»")
    return [ok("Temporal", text), worker]


def _ports() -> Finding:
    """Whether the embedded stack would find its usual place."""
    ports = next(temporal.places(paths.state_dir()))
    taken = [str(one) for one in ports if not probe.free(one)]
    if taken:
        return note("ports", f"{' and '.join(taken)} in use: the embedded Temporal takes others")
    return ok("ports", f"{ports[0]} and {ports[1]} are free")


def _engine() -> list[Finding]:
    import time

    from builders import choose, client

    engine = client.describe()
    where = "this machine" if engine.local else "another machine"
    findings = [ok("engine", f"{engine.version} on {where}")]
    names = [
        one.name
        for one in choose.available(engine, os.environ.get("PATH", ""), int(time.time() / 60))
    ]
    if names:
        findings.append(ok("builder", names[0]))
    else:
        hint = "install the buildx plugin: https://github.com/docker/buildx"
        findings.append(problem("builder", "none can build here", hint))
    if engine.local and os.path.isdir(engine.root):
        findings.append(_space("engine's disk", engine.root))
    return [*findings, _edge()]


def _plugins() -> list[Finding]:
    """The kinds that other packages bring."""
    from project import plugins

    findings = []
    for kind in plugins.kinds():
        try:
            plugins.table_of(kind)
        except HelixError as error:
            findings.append(problem(f"kind {kind}", error.message, error.hint))
        else:
            findings.append(ok(f"kind {kind}", plugins.package(kind)))
    return findings


def _edge() -> Finding:
    from docker.errors import ImageNotFound

    from builders import client
    from providers.docker import DockerSettings

    image = DockerSettings.model_fields["edge"].default
    with client.engine(timeout=10) as engine:
        try:
            engine.images.get(image)
        except ImageNotFound:
            return note(
                "edge image",
                f"{image} is not in the engine; it is pulled when first needed",
                f"where nothing can be pulled, a swap interrupts service: docker load {image}",
            )
    return ok("edge image", str(image))


def _ledger() -> list[Finding]:
    from ledger.ledger import Ledger
    from worker.settings import load

    ledger = Ledger(load().ledger_url)
    try:
        count = len(ledger.instances())
    finally:
        ledger.dispose()
    return [ok("ledger", f"{ledger.where}, {count} instance{'' if count == 1 else 's'}")]


def _disk() -> list[Finding]:
    from worker.settings import load

    return [_space("disk", str(load().state_dir))]


def _space(what: str, folder: str) -> Finding:
    from cli.output import size

    free = shutil.disk_usage(folder).free
    text = f"{size(free)} free at {folder}"
    if free < LITTLE_DISK:
        return problem(what, text, "free some: docker system df shows what the engine holds")
    return ok(what, text)


def _instance(name: str) -> list[Finding]:
    """Who we are on the instance's platform and in its registry, with this shell's accounts; what
    is missing there; and which permissions are."""
    from cli.platform import open_provider
    from project.load import load_project
    from project.resolve import resolve

    instance = resolve(load_project(), name)
    findings = _tried(f"{name}: secrets", lambda: _secrets(instance))
    if instance.target.kind != (instance.registry.kind if instance.registry else ""):
        findings += _tried(f"{name}: registry", lambda: _registry(instance))
    try:
        with open_provider(instance) as provider:
            who = _tried(f"{name}: platform", lambda: _told(provider.identity()))
            findings += who
            if who[0].state is State.OK:
                findings += _permissions(name, provider)
                findings += _tried(f"{name}: set-up", lambda: _set_up(provider))
                findings += [note(f"{name}: note", text) for text in provider.context.notes]
    except HelixError as error:
        findings.append(problem(f"{name}: platform", error.message, error.hint))
    return findings


def _tried(what: str, ask: Callable[[], str]) -> list[Finding]:
    """What a check says, or why it does not."""
    try:
        return [ok(what, ask())]
    except HelixError as error:
        return [problem(what, error.message, error.hint)]


def _told(identity: Identity) -> str:
    until = f", until {identity.expires_at:%Y-%m-%d %H:%M} UTC" if identity.expires_at else ""
    return f"{identity.who} at {identity.where}{until}"


def _permissions(name: str, provider: CloudProvider) -> list[Finding]:
    """What these credentials lack, where the platform can be asked."""
    what, page = f"{name}: permissions", f"docs/providers/{provider.instance.target.kind}.md"
    try:
        lacking = provider.lacking()
    except HelixError as error:
        return [note(what, f"not known: {error.message}", error.hint)]
    if lacking is None:
        return [ok(what, f"cannot be asked for here; the least that is needed: {page}")]
    if lacking:
        return [problem(what, f"lacking {', '.join(lacking)}", f"allow them: see {page}")]
    return [ok(what, "all that a deployment needs")]


def _set_up(provider: CloudProvider) -> str:
    """What the step «validate» asks the platform."""
    from activities.validate import check_capabilities

    check_capabilities(provider.instance, provider.capabilities)
    provider.preflight()
    if (bucket := provider.bucket()) is not None:
        bucket.check()
    return "nothing is missing"


def _secret(reference: str) -> Any:
    from cli.session import environment
    from project import secrets

    return secrets.resolve(reference, environ=environment())


def _secrets(instance: Instance) -> str:
    references = {**instance.secrets, **instance.build.secrets}
    for reference in references.values():
        _secret(reference)
    return f"{len(references)} found" if references else "none needed"


def _registry(instance: Instance) -> str:
    from registries.base import RegistryContext
    from registries.open import open_registry

    if instance.registry is None:
        return "none: the image stays in the engine"
    with open_registry(instance.registry, RegistryContext(secret=_secret)) as registry:
        return _told(registry.authenticate())


CHECKS: tuple[tuple[str, Callable[[], list[Finding] | Awaitable[list[Finding]]]], ...] = (
    ("Python", _python),
    ("settings", _settings),
    ("kinds", _plugins),
    ("Temporal program", _program),
    ("Temporal", _temporal),
    ("engine", _engine),
    ("ledger", _ledger),
    ("disk", _disk),
)
"""What is looked at, in the order in which it is told."""
