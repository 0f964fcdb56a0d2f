"""The containers of one instance: how they are found, and what their labels say.

A container carries everything that must be known of it later, so that any worker can go on from
what the engine itself says, whatever happened to the one before.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import docker
from docker.errors import NotFound as Missing
from docker.models.containers import Container

from model import names
from model.instance import Instance
from model.platform import Revision

LABEL_PORT = "helix.port"
"""The port the release listens on."""
LABEL_EDGE = "helix.edge"
"""The `EdgeSpec` of the edge in front of it, as JSON; absent if it stands alone."""
LABEL_SLOT = "helix.slot"
"""The slot of that edge that it was made for."""
LABEL_MADE = "helix.made"
"""The host folders and volumes that did not exist before this container, as a JSON list."""

PROMOTED_POLICY = "unless-stopped"
"""The restart policy of a release that was promoted. Until then it is «no», so that a release that
exits is seen to exit, and a machine that reboots in the middle of a swap starts the old one only
if nobody had stopped it."""


@dataclass(frozen=True)
class Box:
    """One container, as it was when it was looked at."""

    container: Container

    @property
    def id(self) -> str:
        """The engine's id."""
        return str(self.container.id)

    @property
    def name(self) -> str:
        """Without the leading slash."""
        return str(self.container.name)

    @property
    def labels(self) -> dict[str, str]:
        """All of them."""
        return dict(self.container.labels)

    @property
    def deployment(self) -> str:
        """The deployment that made it; empty if we did not."""
        return self.labels.get(names.LABEL_DEPLOYMENT, "")

    @property
    def release(self) -> int:
        """Our number for it; 0 if we did not make it."""
        return int(self.labels.get(names.LABEL_RELEASE, "0"))

    @property
    def is_edge(self) -> bool:
        """Whether it is a proxy rather than a release."""
        return self.labels.get(names.LABEL_ROLE) == "edge"

    @property
    def state(self) -> dict[str, Any]:
        """The engine's `State`."""
        return dict(self.container.attrs["State"])

    @property
    def status(self) -> str:
        """created, running, paused, restarting, removing, exited or dead."""
        return str(self.state["Status"])

    @property
    def is_open(self) -> bool:
        """Whether its processes live, or may live again at any moment."""
        return self.status in ("running", "paused", "restarting")

    @property
    def is_promoted(self) -> bool:
        """Whether it ever had the traffic. A container that we did not make always had."""
        policy = self.container.attrs["HostConfig"]["RestartPolicy"]["Name"]
        return not self.deployment or policy == PROMOTED_POLICY

    @property
    def port(self) -> int:
        """The port it listens on; 0 if we did not make it."""
        return int(self.labels.get(LABEL_PORT, "0"))

    @property
    def made(self) -> list[str]:
        """The folders and volumes that came into being with it."""
        return list(json.loads(self.labels.get(LABEL_MADE, "[]")))

    @property
    def slot(self) -> str:
        """The slot it was made for, if an edge stands in front of it."""
        return self.labels.get(LABEL_SLOT, "")

    def published(self) -> set[int]:
        """The host ports that were asked for by number."""
        bindings = self.container.attrs["HostConfig"].get("PortBindings") or {}
        return {
            int(binding["HostPort"])
            for each in bindings.values()
            for binding in each or []
            if binding.get("HostPort") not in (None, "", "0")
        }

    def host_port(self, port: int) -> int | None:
        """The host's port for a port of the container, now; None if it has none."""
        ports = self.container.attrs["NetworkSettings"]["Ports"] or {}
        bindings = ports.get(f"{port}/tcp") or []
        # The engine-assigned one, on loopback, comes first: it is this container's own for sure.
        bindings.sort(key=lambda each: not str(each.get("HostIp", "")).startswith("127."))
        return int(bindings[0]["HostPort"]) if bindings else None

    def aliases(self, network: str) -> set[str] | None:
        """Its names on a network; None if it has not joined."""
        joined = self.container.attrs["NetworkSettings"]["Networks"].get(network)
        return None if joined is None else set(joined.get("Aliases") or ())

    def address(self, network: str) -> str:
        """Its IPv4 address on a network, now; empty if it has none."""
        joined = self.container.attrs["NetworkSettings"]["Networks"].get(network) or {}
        return str(joined.get("IPAddress") or "")

    def revision(self) -> Revision:
        """What the pipeline keeps of it."""
        return Revision(
            id=self.name,
            release=self.release,
            deployment=self.deployment,
            artifact=self.labels.get(names.LABEL_ARTIFACT, ""),
            config=self.labels.get(names.LABEL_CONFIG, ""),
            detail={"container": self.id},
        )

    def tail(self, lines: int = 20) -> str:
        """The last lines of its output."""
        return self.container.logs(tail=lines).decode(errors="replace").strip()


class Boxes:
    """The containers of one instance on one engine."""

    def __init__(self, client: docker.DockerClient, instance: Instance) -> None:
        self._client = client
        self._instance = instance

    def ours(self) -> list[Box]:
        """All that carry the instance's label, edges included."""
        label = f"{names.LABEL_INSTANCE}={self._instance.key}"
        found = self._client.containers.list(
            all=True, filters={"label": label}, ignore_removed=True
        )
        return [Box(one) for one in found]

    def adopted(self) -> list[Box]:
        """Those that HelixDB's own command made for this instance: known by their exact names."""
        spelled = {
            docker_or_raw(self._instance.project, self._instance.name)
            for docker_or_raw in (names.docker_name, names.base_name)
        }
        found = (self.find(name + end) for name in sorted(spelled) for end in ("_app", ""))
        return [box for box in found if box and names.LABEL_INSTANCE not in box.labels]

    def releases(self) -> list[Box]:
        """Every release, oldest first; an adopted container is the oldest."""
        ours = [box for box in self.ours() if not box.is_edge]
        return self.adopted() + sorted(ours, key=lambda box: box.release)

    def edges(self) -> list[Box]:
        """Every edge."""
        return [box for box in self.ours() if box.is_edge]

    def current(self) -> Box | None:
        """What serves: the youngest release that was ever promoted, and runs unless none of them
        does. A rollback removes the release it undoes, so this is the whole truth, with an edge and
        without."""
        promoted = [box for box in self.releases() if box.is_promoted]
        return max(promoted, key=lambda box: (box.is_open, box.release), default=None)

    def of(self, deployment: str) -> list[Box]:
        """All that a deployment made, releases before edges."""
        mine = [box for box in self.ours() if box.deployment == deployment]
        return sorted(mine, key=lambda box: box.is_edge)

    def find(self, name_or_id: str) -> Box | None:
        """One container by name or id."""
        try:
            return Box(self._client.containers.get(name_or_id))
        except Missing:
            return None

    def taken(self, name: str) -> Box | None:
        """The container that holds a name we were just refused. It may be a moment before it can be
        seen: another caller has reserved the name and is still creating it."""
        end = time.monotonic() + 5
        while (box := self.find(name)) is None and time.monotonic() < end:
            time.sleep(0.05)
        return box


def exec_in(
    client: docker.DockerClient, container: str, command: Sequence[str], timeout: float
) -> tuple[int, str]:
    """Run a command inside a container: exit code and output. After `timeout` seconds the exit
    code is 124."""
    api = client.api
    run = api.exec_create(container, list(command))["Id"]
    chunks: list[bytes] = []

    def collect() -> None:
        with suppress(Exception):  # an end of the engine's is seen by exec_inspect below
            chunks.extend(api.exec_start(run, stream=True))

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(timeout)
    output = b"".join(chunks).decode(errors="replace")
    if thread.is_alive():
        return 124, f"{output}\nno end after {timeout:g} s".lstrip()
    code = api.exec_inspect(run)["ExitCode"]
    return (124 if code is None else int(code)), output
