"""What a node of the tests runs containers with: threads of this process, or a real engine."""

from __future__ import annotations

import shlex
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import docker
from docker.errors import APIError, NotFound

from tests.fakes.aws_container import Container

Line = tuple[datetime, str]


class ImageRefused(Exception):
    """The image cannot be pulled: what a kubelet writes into the pod's status."""


class Box(Protocol):
    """One container that was started."""

    pod_ip: str
    """The address that the cluster knows."""
    address: str
    """The address that this machine dials."""

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""

    def lines(self) -> list[Line]:
        """What it printed."""

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        """Run a command in it: exit code and output."""

    def stop(self, grace: float) -> None:
        """End it, and leave nothing of it but its lines."""


class Runtime(Protocol):
    """Pulls images and starts containers."""

    def pull(self, image: str, login: Mapping[str, Any] | None) -> None:
        """Have the image. Raises ImageRefused."""

    def start(self, name: str, spec: Mapping[str, Any], env: Mapping[str, str]) -> Box:
        """Start a container of a pod's specification."""


class LoopbackBox:
    """A container that does what its environment says, and no more.

    `NAME` is what it answers. `BEHAVIOUR` is `serve`, `sick` (answers 500), `hang` (does not
    answer), `exit` (ends at once), or `memory` (is killed for using too much).
    """

    def __init__(
        self, port: int, env: Mapping[str, str], ended: Callable[[], None] = lambda: None
    ) -> None:
        self._ended = ended
        self._stopped = False
        self._behaviour = env.get("BEHAVIOUR", "serve")
        name = env.get("NAME", "")
        self._lines: list[Line] = [(datetime.now(UTC), f"starting {name}")]
        self._exit: int | None = {"exit": 3, "memory": 137}.get(self._behaviour)
        if self._exit is not None:
            self._lines.append((datetime.now(UTC), "it is broken"))
        quiet = "hang" if self._exit is not None else self._behaviour
        self._server = Container(name, quiet, port)
        self.address = self._server.address
        # The cluster takes no loopback address for a pod's.
        self.pod_ip = self.address.replace("127.", "10.", 1)

    @property
    def exit_code(self) -> int | None:
        return self._exit

    def lines(self) -> list[Line]:
        return list(self._lines)

    def say(self, text: str) -> None:
        """Print one more line."""
        self._lines.append((datetime.now(UTC), text))

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        words = shlex.split(" ".join(command))
        return (0 if words[0] == "true" else 1), f"ran {words[0]}\n"

    def stop(self, grace: float) -> None:
        self._exit = 143 if self._exit is None else self._exit
        self._server.stop()
        if not self._stopped:
            self._stopped = True
            self._ended()


class LoopbackRuntime:
    """Containers that are threads of this process. What `missing` names cannot be pulled."""

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}
        """A part of an image's name -> what the registry says of it."""
        self.logins: list[Mapping[str, Any] | None] = []
        self.started: list[Mapping[str, str]] = []
        """The environments of all containers so far."""
        self.overlaps: list[str] = []
        """The disks that two containers had open at once."""
        self._open: Counter[str] = Counter()

    def pull(self, image: str, login: Mapping[str, Any] | None) -> None:
        self.logins.append(login)
        for part, message in self.missing.items():
            if part in image:
                raise ImageRefused(f'failed to pull image "{image}": {message}')

    def start(self, name: str, spec: Mapping[str, Any], env: Mapping[str, str]) -> LoopbackBox:
        self.started.append(dict(env))
        disks = list(spec["folders"].values())
        self._open.update(disks)
        self.overlaps += [disk for disk in disks if self._open[disk] > 1]
        ports = spec.get("ports") or [{"containerPort": 8080}]
        return LoopbackBox(ports[0]["containerPort"], env, lambda: self._open.subtract(disks))


class EngineBox:
    """A container of a real engine."""

    def __init__(self, client: docker.DockerClient, container: Any) -> None:
        self._client = client
        self._container = container
        self._last: list[Line] = []
        self._exit: int | None = None
        container.reload()
        networks = container.attrs["NetworkSettings"]["Networks"].values()
        self.pod_ip = self.address = next((one["IPAddress"] for one in networks), "")

    @property
    def exit_code(self) -> int | None:
        if self._exit is None:
            try:
                self._container.reload()
            except NotFound:
                self._exit = 137
            else:
                state = self._container.attrs["State"]
                if state["Status"] in ("exited", "dead"):
                    self._exit = int(state["ExitCode"])
        return self._exit

    def lines(self) -> list[Line]:
        try:
            raw = self._container.logs(timestamps=True).decode(errors="replace")
        except (APIError, NotFound):
            return self._last
        self._last = [_stamped(line) for line in raw.splitlines()]
        return self._last

    def run(self, command: Sequence[str]) -> tuple[int, str]:
        done = self._container.exec_run(list(command))
        return int(done.exit_code), done.output.decode(errors="replace")

    def stop(self, grace: float) -> None:
        try:
            self._container.stop(timeout=max(1, int(grace)))
            self.lines()
            self._container.remove(force=True)
        except NotFound:
            pass
        self._exit = 143 if self._exit is None else self._exit


class EngineRuntime:
    """Runs pods on this machine's engine: what they answer and print is real."""

    def __init__(self, client: docker.DockerClient, label: str) -> None:
        self._client = client
        self._label = label
        self._lock = threading.Lock()

    def pull(self, image: str, login: Mapping[str, Any] | None) -> None:
        auth = {"username": login["username"], "password": login["password"]} if login else None
        try:
            with self._lock:
                self._client.api.pull(image, auth_config=auth)
                self._client.images.get(image)
        except APIError as error:
            raise ImageRefused(str(error.explanation or error)) from None

    def start(self, name: str, spec: Mapping[str, Any], env: Mapping[str, str]) -> EngineBox:
        binds = [
            f"{source}:{mount['mountPath']}"
            for mount in spec.get("volumeMounts", ())
            if (source := spec["folders"].get(mount["name"]))
        ]
        container = self._client.containers.run(
            spec["image"],
            command=spec.get("args"),
            name=name,
            environment=dict(env),
            volumes=binds,
            labels={self._label: name},
            detach=True,
            **_confined(spec["security"]),
        )
        return EngineBox(self._client, container)

    def sweep(self) -> None:
        """Remove what is left."""
        for one in self._client.containers.list(all=True, filters={"label": self._label}):
            one.remove(force=True)


def _confined(security: Mapping[str, Any]) -> dict[str, Any]:
    """A security context, in the engine's words. Its own seccomp profile is the default."""
    return {
        "user": f"{security['runAsUser']}:{security['runAsGroup']}"
        if "runAsUser" in security
        else None,
        "group_add": [security["fsGroup"]] if "fsGroup" in security else [],
        "read_only": security.get("readOnlyRootFilesystem", False),
        "cap_drop": security.get("capabilities", {}).get("drop", []),
        "security_opt": ["no-new-privileges"]
        if security.get("allowPrivilegeEscalation") is False
        else [],
    }


def _stamped(line: str) -> Line:
    stamp, _, text = line.partition(" ")
    # The engine writes nanoseconds.
    return datetime.fromisoformat(stamp[:26].rstrip("Z") + "+00:00"), text
