"""The containers of one instance: how they are found, and what their labels say.

A container carries everything that must be known of it later, so that any worker can go on from
what the engine itself says, whatever happened to the one before.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
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
    """One container, as it was when it was looked at. A listing tells the fields; what it does not
    tell is asked for when it is first needed, and is the engine's answer of that moment."""

    container: Container
    name: str
    """Without the leading slash."""
    labels: Mapping[str, str]
    status: str
    """created, running, paused, restarting, removing, exited or dead."""
    networks: Mapping[str, Mapping[str, Any]]
    """Those it has joined, by name."""
    ports: Set[int]
    """The host's ports that it holds."""

    @classmethod
    def listed(cls, container: Container) -> Box:
        """From a row of a listing."""
        row = container.attrs
        # A container that another one links to is listed with that one's name for it, too.
        own = [name for name in row.get("Names") or () if name.count("/") == 1]
        return cls(
            container,
            name=own[0].lstrip("/") if own else "",
            labels=row.get("Labels") or {},
            status=str(row["State"]),
            networks=row["NetworkSettings"]["Networks"] or {},
            ports={each["PublicPort"] for each in row.get("Ports") or () if "PublicPort" in each},
        )

    @classmethod
    def inspected(cls, container: Container) -> Box:
        """From all that the engine tells."""
        held = container.attrs["NetworkSettings"]["Ports"] or {}
        return cls(
            container,
            name=str(container.name),
            labels=container.labels,
            status=str(container.attrs["State"]["Status"]),
            networks=container.attrs["NetworkSettings"]["Networks"] or {},
            ports={int(each["HostPort"]) for found in held.values() for each in found or ()},
        )

    @cached_property
    def details(self) -> Mapping[str, Any]:
        """All that the engine tells; nothing if the container is gone meanwhile."""
        if "Config" not in self.container.attrs:  # it is a row of a listing
            try:
                self.container.reload()
            except Missing:
                return {}
        return dict(self.container.attrs)

    @property
    def id(self) -> str:
        """The engine's id."""
        return str(self.container.id)

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
    def is_open(self) -> bool:
        """Whether its processes live, or may live again at any moment."""
        return self.status in ("running", "paused", "restarting")

    @property
    def is_promoted(self) -> bool:
        """Whether it ever had the traffic. A container that we did not make always had."""
        if not self.deployment:
            return True
        host = self.details.get("HostConfig") or {}
        return bool(host) and host["RestartPolicy"]["Name"] == PROMOTED_POLICY

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
        bindings = (self.details.get("HostConfig") or {}).get("PortBindings") or {}
        return {
            int(binding["HostPort"])
            for each in bindings.values()
            for binding in each or []
            if binding.get("HostPort") not in (None, "", "0")
        }

    def host_port(self, port: int) -> int | None:
        """The host's port for a port of the container, now; None if it has none."""
        ports = (self.details.get("NetworkSettings") or {}).get("Ports") or {}
        bindings = ports.get(f"{port}/tcp") or []
        # The engine-assigned one, on loopback, comes first: it is this container's own for sure.
        bindings.sort(key=lambda each: not str(each.get("HostIp", "")).startswith("127."))
        return int(bindings[0]["HostPort"]) if bindings else None

    def aliases(self, network: str) -> set[str] | None:
        """Its names on a network; None if it has not joined."""
        if network not in self.networks:
            return None
        joined = (self.details.get("NetworkSettings") or {}).get("Networks") or {}
        return set((joined.get(network) or {}).get("Aliases") or ())

    def address(self, network: str) -> str:
        """Its IPv4 address on a network, now; empty if it has none."""
        return str(self.networks.get(network, {}).get("IPAddress") or "")

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

    def epitaph(self) -> str:
        """How it ended."""
        state = self.details.get("State")
        if state is None:
            return "is gone"
        if self.status == "restarting":
            return f"keeps exiting with code {state['ExitCode']}"
        if state.get("OOMKilled"):
            return "was killed: it used more memory than it may"
        why = f": {state['Error']}" if state.get("Error") else ""
        return f"exited with code {state['ExitCode']}{why}"

    def tail(self, lines: int = 20) -> str:
        """The last lines of its output."""
        return self.container.logs(tail=lines).decode(errors="replace").strip()


class Boxes:
    """The containers of one instance on one engine, as they were at one moment.

    One call reads them all. What an activity does to them it knows itself, so it need not read them
    again; and where calls fail now and then, each one that is not made is one that cannot fail.
    """

    def __init__(self, instance: Instance, everyone: Sequence[Box]) -> None:
        self._instance = instance
        self.everyone = everyone
        """All containers of the engine, whosever they are."""
        owner = {box.id: box.labels.get(names.LABEL_INSTANCE) for box in everyone}
        self._ours = [box for box in everyone if owner[box.id] == instance.key]
        strangers = {box.name: box for box in everyone if owner[box.id] is None}
        spelled = {
            f"{base(instance.project, instance.name)}{end}"
            for base in (names.docker_name, names.base_name)
            for end in ("_app", "")
        }
        # Those that HelixDB's own command made for this instance: known by their exact names.
        self._adopted = [strangers[name] for name in sorted(spelled) if name in strangers]

    @classmethod
    def read(cls, client: docker.DockerClient, instance: Instance) -> Boxes:
        """As they are now."""
        found = client.containers.list(all=True, sparse=True)
        return cls(instance, [Box.listed(one) for one in found])

    def without(self, gone: Iterable[Box]) -> Boxes:
        """What is left when these are gone."""
        ids = {box.id for box in gone}
        return Boxes(self._instance, [box for box in self.everyone if box.id not in ids])

    @property
    def all(self) -> list[Box]:
        """Every one of the instance's."""
        return [*self._adopted, *self._ours]

    @property
    def releases(self) -> list[Box]:
        """Every release, oldest first; an adopted container is the oldest."""
        ours = [box for box in self._ours if not box.is_edge]
        return self._adopted + sorted(ours, key=lambda box: box.release)

    @property
    def edges(self) -> list[Box]:
        """Every edge."""
        return [box for box in self._ours if box.is_edge]

    def current(self) -> Box | None:
        """What serves: the youngest release that was ever promoted, and runs unless none of them
        does. A rollback removes the release it undoes, so this is the whole truth, with an edge and
        without."""
        likely = sorted(self.releases, key=lambda box: (box.is_open, box.release), reverse=True)
        return next((box for box in likely if box.is_promoted), None)

    def of(self, deployment: str) -> list[Box]:
        """All that a deployment made, releases before edges."""
        mine = [box for box in self._ours if box.deployment == deployment]
        return sorted(mine, key=lambda box: box.is_edge)

    def find(self, name_or_id: str) -> Box | None:
        """One of the instance's by name or id."""
        return next((box for box in self.all if name_or_id in (box.id, box.name)), None)

    def share(self, network: str) -> bool:
        """Whether one that runs is in a network, so that it must be there."""
        return any(box.is_open and network in box.networks for box in self._ours)


def inspect(client: docker.DockerClient, name_or_id: str) -> Box | None:
    """One container by name or id, whosever it is."""
    try:
        return Box.inspected(client.containers.get(name_or_id))
    except Missing:
        return None


def holder_of(client: docker.DockerClient, name: str) -> Box | None:
    """The container that holds a name we were just refused. It may be a moment before it can be
    seen: another caller has reserved the name and is still creating it."""
    end = time.monotonic() + 5
    while (box := inspect(client, name)) is None and time.monotonic() < end:
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
