"""A release is one container: `helix-<project>-<instance>_<deployment>`.

A container whose release is not promoted yet has `_new` at the end of its name, and `promote` takes
that away: one call, which has happened or has not. What is current is the youngest without it.

The releases of an instance take turns: the previous one is stopped before the next one starts. So
the port, and a volume, have one owner at any time, and a swap interrupts the service.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from helix_container.program import Program, options
from helix_deploy import (
    Busy,
    Capabilities,
    CloudProvider,
    Conflict,
    Context,
    Endpoint,
    HealthCheckFailed,
    Identity,
    Instance,
    NotFound,
    NothingToRestore,
    Phase,
    Release,
    Revision,
    Rollout,
    names,
)

NEW = "_new"
"""Ends the name of a container that is not promoted."""
TAIL = 20
"""Lines of a failed release that go into the error."""


class ContainerSettings(BaseModel):
    """A container, run by the CLI of its engine."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    program: Literal["docker", "podman", "nerdctl"] = Field(examples=["docker"])
    """The engine's program, on the worker's machine."""
    address: str = "127.0.0.1"
    """The address to publish the port on."""
    memory: str | None = Field(None, pattern=r"^[1-9][0-9]*[kmg]$")
    """How much memory it may use, such as 512m."""


@dataclass(frozen=True)
class Box:
    """A container of ours, as the engine describes it."""

    found: dict[str, Any]

    @property
    def id(self) -> str:
        return str(self.found["Id"])

    @property
    def name(self) -> str:
        return str(self.found["Name"]).removeprefix("/")

    @property
    def promoted(self) -> bool:
        return not self.name.endswith(NEW)

    @property
    def running(self) -> bool:
        return bool(self.found["State"]["Running"])

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.found["Config"]["Labels"] or {})

    @property
    def release(self) -> int:
        return int(self.labels[names.LABEL_RELEASE])

    @property
    def deployment(self) -> str:
        return self.labels[names.LABEL_DEPLOYMENT]

    def revision(self) -> Revision:
        return Revision(
            id=self.id,
            release=self.release,
            deployment=self.deployment,
            artifact=self.labels[names.LABEL_ARTIFACT],
            config=self.labels[names.LABEL_CONFIG],
        )


class ContainerProvider(CloudProvider):
    """Runs releases as containers, by a program."""

    kind: ClassVar[str] = "container"
    capabilities: ClassVar[Capabilities] = Capabilities(start_first=False, volumes=True)
    Settings: ClassVar[type[BaseModel]] = ContainerSettings

    def __init__(self, instance: Instance, context: Context) -> None:
        super().__init__(instance, context)
        self._settings = ContainerSettings.model_validate(instance.target.settings)
        self._program = Program(self._settings.program)
        self._base = names.docker_name(instance.project, instance.name)
        self._label = f"{names.LABEL_INSTANCE}={instance.key}"

    # Before anything changes

    def identity(self) -> Identity:
        """The engine, which knows no accounts."""
        found = json.loads(self._program.run("version", "--format", "{{json .}}"))
        engine = found.get("Server") or found["Client"]
        return Identity(where=f"{self._program.name} here", who=f"engine {engine['Version']}")

    def preflight(self) -> None:
        """See that the engine answers, and say what a swap does."""
        self.identity()
        if self.current() is not None:
            self.context.notes.append("a swap interrupts the service until the release is healthy")

    def current(self) -> Revision | None:
        box = self._current()
        return box.revision() if box else None

    # Start, look, promote

    def start(self, release: Release, previous: Revision | None) -> str:
        boxes = self._boxes()
        newer = [box.release for box in boxes if box.release > release.number]
        if newer:
            raise Conflict(f"release {max(newer)} is there already, and this is {release.number}")
        mine = [box for box in boxes if box.deployment == release.deployment]
        same = next((box for box in boxes if self._runs(box, release)), None)
        if not mine and same and same.promoted:
            return same.id
        others = [box for box in boxes if box.deployment != release.deployment]
        self._remove(box for box in others if not box.promoted)  # left by failed deployments
        box = mine[0] if mine else self._create(release)
        for other in others:
            self._stop(other)
        self._program.run("start", box.id)
        return box.id

    def poll(self, handle: str) -> Rollout:
        box = self._find(handle)
        if box is None:
            return Rollout(phase=Phase.FAILED, detail="is gone")
        state = box.found["State"]
        if box.running:
            return Rollout(phase=Phase.RUNNING)
        if state["Status"] in ("created", "configured", "initialized"):
            return Rollout(phase=Phase.STARTING, detail=state["Status"])
        tail = "\n".join(self._program.lines("logs", "--tail", str(TAIL), box.id))
        return Rollout(
            phase=Phase.FAILED, detail=f"exited with code {state['ExitCode']}", logs=tail
        )

    def endpoint(self, handle: str) -> Endpoint | None:
        rollout = self.poll(handle)
        if rollout.phase is Phase.FAILED:  # since it was looked at last
            raise HealthCheckFailed(
                f"the release {rollout.detail}",
                hint="mend it and push again",
                evidence=rollout.logs,
            )
        port = self.instance.health_check.port or self.instance.port
        # «127.0.0.1:8080», once for each kind of address
        published = self._program.run("port", handle, f"{port}/tcp").splitlines()[0]
        return Endpoint(url=f"http://{published.replace('0.0.0.0', '127.0.0.1')}")

    def promote(self, handle: str) -> Revision:
        box = self._find(handle)
        if box is None:
            raise NotFound("the container of the release is gone", hint="push again")
        if not box.promoted:
            with suppress(NotFound):  # another attempt was faster
                self._program.run("rename", box.name, box.name.removesuffix(NEW))
        return box.revision()

    def restore(self, deployment: str, previous: Revision | None) -> str | None:
        before = self._find(previous.id) if previous else None
        if previous and before is None:
            raise NothingToRestore(
                f"the container of release {previous.release} is gone",
                hint="push a release that works",
            )
        self._remove(
            box
            for box in self._boxes()
            if box.deployment == deployment and (before is None or box.id != before.id)
        )
        if before is None:
            return None
        self._program.run("start", before.id)
        return before.id

    # For people

    def public_url(self) -> str:
        publish = self.instance.publish
        return f"http://{self._settings.address}:{publish}" if publish else ""

    def logs(
        self, *, since: datetime | None = None, tail: int | None = None, follow: bool = False
    ) -> Iterator[str]:
        box = self._current()
        if box is None:
            raise NotFound(f"nothing runs on «{self.instance.name}»", hint="run: helix push")
        return self._program.lines(
            "logs",
            *(["--since", since.isoformat()] if since else []),
            *(["--tail", str(tail)] if tail is not None else []),
            *(["--follow"] if follow else []),
            box.id,
        )

    # Tidy up

    def prune(self, keep: Sequence[Revision]) -> None:
        current = self._current()
        kept = {one.id for one in keep}
        self._remove(
            box
            for box in self._boxes()
            if current and box.release < current.release and box.id not in kept
        )

    def destroy(self, *, data: bool) -> None:
        self._remove(self._boxes())
        if data:
            mine = self._program.run("volume", "ls", "--quiet", "--filter", f"label={self._label}")
            for volume in mine.split():
                with suppress(NotFound):
                    self._program.run("volume", "rm", volume)

    # The engine

    def _boxes(self) -> list[Box]:
        return [Box(found) for found in self._program.containers(self._label)]

    def _find(self, container: str) -> Box | None:
        try:
            return Box(self._program.inspect(container))
        except NotFound:
            return None

    def _current(self) -> Box | None:
        promoted = (box for box in self._boxes() if box.promoted)
        return max(promoted, key=lambda box: box.release, default=None)

    def _runs(self, box: Box, release: Release) -> bool:
        found = box.labels[names.LABEL_ARTIFACT], box.labels[names.LABEL_CONFIG]
        wanted = release.artifact.identity, release.instance.config_digest
        return box.running and found == wanted

    def _create(self, release: Release) -> Box:
        """Create the container, not started; or find the one that another attempt created."""
        instance, image = self.instance, release.artifact.image
        if image is None:
            raise NotFound("the release has no image", hint="push again")
        self._ensure_image(image.reference)
        name = f"{self._base}_{names.short_id(release.deployment)}{NEW}"
        labels = {
            names.LABEL_INSTANCE: instance.key,
            names.LABEL_DEPLOYMENT: release.deployment,
            names.LABEL_RELEASE: str(release.number),
            names.LABEL_ARTIFACT: release.artifact.identity,
            names.LABEL_CONFIG: instance.config_digest,
        }
        secrets = {
            key: self.context.secret(reference).get_secret_value()
            for key, reference in instance.secrets.items()
        }
        publish = f"{self._settings.address}:{instance.publish or ''}:{instance.port}"
        try:
            self._program.run(
                "create",
                *("--name", name),
                *("--publish", publish),
                *options("--label", [f"{key}={value}" for key, value in labels.items()]),
                *options("--env", [f"{key}={value}" for key, value in instance.env.items()]),
                *options("--env", list(secrets)),  # the value comes from our own environment
                *options("--volume", self._volumes()),
                *(["--memory", self._settings.memory] if self._settings.memory else []),
                image.reference,
                *instance.command,
                env=secrets,
            )
        except Conflict:
            if self._find(name) is None:  # another attempt is at it: the next look finds it
                hint = f"if it stays so: {self._program.name} rm {name}"
                raise Busy(f"{name} is being created", hint=hint) from None
        return Box(self._program.inspect(name))

    def _volumes(self) -> list[str]:
        """The volumes, made if they are not there, with a label that says whose they are."""
        binds = []
        for volume in self.instance.volumes:
            if volume.name:
                self._program.run("volume", "create", "--label", self._label, volume.name)
            binds.append(f"{volume.path or volume.name}:{volume.mount}")
        return binds

    def _ensure_image(self, reference: str) -> None:
        with suppress(NotFound):
            self._program.run("image", "inspect", "--format", "{{.Id}}", reference)
            return
        self.context.report(f"pulling {reference}")
        with self._login() as env:
            self._program.run("pull", "--quiet", reference, env=env)

    @contextmanager
    def _login(self) -> Iterator[dict[str, str]]:
        """The variables that tell a program what to log in with, for as long as the block."""
        found = self.context.pull()
        if found is None:
            yield {}
            return
        user = f"{found.username}:{found.password.get_secret_value()}"
        auths = {found.registry: {"auth": base64.b64encode(user.encode()).decode()}}
        with tempfile.TemporaryDirectory() as folder:  # only we may look into it
            file = Path(folder) / "config.json"
            file.touch(mode=0o600)
            file.write_text(json.dumps({"auths": auths}))
            yield {"DOCKER_CONFIG": folder, "REGISTRY_AUTH_FILE": os.fspath(file)}

    def _stop(self, box: Box) -> None:
        if box.running:
            self.context.report(f"stopping {box.name}")
            with suppress(NotFound):
                grace = max(1, round(self.instance.stop_grace))
                self._program.run("stop", "--time", str(grace), box.id)

    def _remove(self, boxes: Iterator[Box] | list[Box]) -> None:
        for box in boxes:
            self._stop(box)
            with suppress(NotFound):
                self._program.run("rm", "--force", "--volumes", box.id)
