"""The small Caddy in front of a release: it owns the published port, so that a swap drops nothing.

A container cannot be given a published port after its creation, and two cannot publish the same
one. So the edge publishes the instance's port, and releases come and go behind it, on a network of
the instance's own. On that network the release with the traffic has one of two names, its slot; the
next one gets the other. An empty file in the edge, the youngest of its folder, names slot and port
that requests go to, so a swap is one small file, and Caddy need not be told:

    start-first   the next release has its slot from the start. When it is healthy the file names
                  that; when no request is inside the previous release any more, it is stopped.
    stop-first    the file names the next slot before anything has it, with the gate shut: requests
                  wait for the name to answer. When the next release is healthy it gets the slot,
                  the waiting requests flow, and the gate is opened.

What this rests on, seen with Caddy 2.6 and engine 20.10:

- A reload of Caddy loses connections that it has not accepted yet, closes idle ones, and gives up
  requests that wait for an upstream. So it is only reloaded when its settings change.
- It tries a request again that could not connect, but its body is spent by then. So what waits at
  the gate is a HEAD of its own, and the request itself is sent when that was answered.
- With the option `ndots:1` the engine's DNS answers an unknown name at once; without it, it asks
  the world. A name is known a moment before its container can be reached, hence the short dials.
- Connections to the release are not kept: one that it closes in the moment a POST is sent into it
  would be a failed request. So each open one is a request, and can be counted.
"""

from __future__ import annotations

import io
import re
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

import docker
from docker.errors import APIError, ImageNotFound
from docker.models.containers import Container
from requests import RequestException

from model import names
from model.base import Record, digest_of
from model.errors import Conflict, HelixError, PlatformUnhealthy
from model.instance import Instance
from providers.containers import Box, Boxes, holder_of

SLOTS = ("a", "b")
INSIDE = 80
"""The port Caddy listens on in its container."""
FOLDER = "/etc/caddy"
PATIENCE_SECONDS = 5.0
"""How long a request waits for a release that does not accept it: long enough for a restart."""
HOLD_MARGIN = 15.0
"""Seconds that requests wait beyond stopping the old release and probing the new one."""
SETTLE_SECONDS = 0.15
"""Within this time of a swap, a request that was about to enter the old release has entered it."""
DRAIN_SECONDS = 5.0
"""The least time that requests inside a release get to end before it is told to stop."""
BUSY_STATES = {"01", "02", "08"}
"""Of a connection in /proc/net/tcp: established, being established, closed by the release only."""
START_SECONDS = 10.0
"""Within this time Caddy must listen after its start."""

TEMPLATE = """\
{{
	auto_https off
	grace_period {grace:g}s
}}
:{inside} {{
	@live file {{
		root {folder}/live
		try_files *
		try_policy most_recently_modified
	}}
	route @live {{
		map {{http.matchers.file.relative}} {{dial}} {{
			~/?([a-z-]+:[0-9]+)$ "${{1}}"
		}}
		@shut expression {{dial}}.startsWith("shut-")
		reverse_proxy @shut {{dial}} {{
			method HEAD
			rewrite {probe}
			header_up -Connection
			header_up -Upgrade
			lb_try_duration {hold:g}s
			lb_try_interval 100ms
			transport http {{
				dial_timeout 250ms
				keepalive off
			}}
			handle_response {{
				vars gate passed
			}}
		}}
		reverse_proxy {{dial}} {{
			lb_try_duration {patience:g}s
			lb_try_interval 100ms
			transport http {{
				dial_timeout 250ms
				keepalive off
			}}
		}}
	}}
}}
"""


class EdgeSpec(Record):
    """What an edge is made from; another value needs another container."""

    image: str
    publish: int
    address: str = ""
    """The host's address to publish on; all of them if empty."""

    @property
    def digest(self) -> str:
        """Names the edge."""
        return digest_of(self.model_dump(mode="json"))[:8]


@dataclass(frozen=True)
class Route:
    """Where an edge sends requests."""

    slot: str
    port: int
    shut: bool = False
    """Whether they wait at the gate for the slot to answer."""

    @property
    def file(self) -> str:
        """The name of the file that says so: what Caddy dials."""
        return f"{'shut-' if self.shut else ''}{self.slot}:{self.port}"

    @classmethod
    def parse(cls, file: str) -> Route | None:
        """The reverse of `file`."""
        found = re.fullmatch(r"(shut-)?([a-z]):(\d+)", file)
        return cls(found[2], int(found[3]), found[1] is not None) if found else None


def aliases_of(slot: str) -> set[str]:
    """The names on the edge's network of the release that has a slot."""
    return {slot, f"shut-{slot}"}


_POLICY: Any = {"Name": "unless-stopped"}  # the type stubs know two of the four policies


class Edge:
    """One edge of one instance. Every call may be repeated, and finishes what another began.

    Args:
        boxes: the instance's containers; whether the edge is there and runs is told by them.
    """

    def __init__(
        self,
        client: docker.DockerClient,
        instance: Instance,
        spec: EdgeSpec,
        network: str,
        boxes: Boxes,
    ) -> None:
        self._client = client
        self._instance = instance
        self._spec = spec
        self._network = network
        base = names.docker_name(instance.project, instance.name)
        self._name = f"{base}_edge_{spec.digest}"
        self._box = self._ours(boxes.find(self._name))
        self._disk: _Disk | None = None

    @property
    def exists(self) -> bool:
        """Whether it has a container."""
        return self._box is not None

    @property
    def runs(self) -> bool:
        """Whether it takes requests."""
        return self._box is not None and self._box.status == "running"

    def route(self) -> Route | None:
        """Where it sends requests now; None if nowhere yet."""
        return self._files(self._box).route if self._box else None

    def free_slot(self) -> str:
        """The slot for the next release: not the one that requests go to."""
        now = self.route()
        return next(slot for slot in SLOTS if now is None or slot != now.slot)

    def send(self, route: Route, *, deployment: str) -> None:
        """Let it run and send requests there, creating it first where there is no edge.

        Args:
            route: its slot must have been given to a release, unless the gate is shut.
            deployment: which deployment makes the edge, if it has to be made.

        Raises:
            Conflict: something else holds its port or its name.
            PlatformUnhealthy: Caddy does not accept its configuration.
        """
        box = self._create(deployment)
        container, disk, text = box.container, self._files(box), self._caddyfile()
        written = {}
        if disk.caddyfile != text:
            written["Caddyfile"] = text
            if self.runs:
                # Its own file says what it runs, also to whoever goes on after us.
                container.put_archive(FOLDER, _archive({"next": text}))
                _load(container, "next")
        if disk.route != route:
            written |= {"live/": "", f"live/{route.file}": ""}
        if written:
            container.put_archive(FOLDER, _archive(written, disk.modified + 1))
            self._disk = _Disk(text, route, disk.modified + 1)
        if not self.runs:
            container.start()
            _load(container, "Caddyfile")
            self._box = replace(box, status="running")

    def drain(self, release: Box) -> None:
        """Wait until no request is inside a release any more, but no longer than is fair. Requests
        must go elsewhere already."""
        address = release.address(self._network)
        if not address or self._box is None or not self.runs:
            return
        time.sleep(SETTLE_SECONDS)
        end = time.monotonic() + self._grace
        while _connections(self._client, self._box, address) and time.monotonic() < end:
            time.sleep(0.05)

    @property
    def _grace(self) -> float:
        return max(self._instance.stop_grace, DRAIN_SECONDS)

    def _caddyfile(self) -> str:
        instance = self._instance
        check = instance.health_check
        return TEMPLATE.format(
            grace=self._grace,
            inside=INSIDE,
            folder=FOLDER,
            probe=check.path if check.kind == "http" else "/",
            hold=instance.stop_grace + check.deadline + HOLD_MARGIN,
            patience=PATIENCE_SECONDS,
        )

    def _files(self, box: Box) -> _Disk:
        """What its files say. Read once: that takes the engine longer than most other calls."""
        if self._disk is None:
            self._disk = _disk(box.container)
        return self._disk

    def _create(self, deployment: str) -> Box:
        """Its container, on its network; or the one that another caller created."""
        spec = self._spec
        if self._box is None:
            try:
                created = self._client.containers.create(
                    spec.image,
                    ["caddy", "run", *_config("Caddyfile")],
                    name=self._name,
                    labels={
                        names.LABEL_INSTANCE: self._instance.key,
                        names.LABEL_ROLE: "edge",
                        names.LABEL_DEPLOYMENT: deployment,
                        names.LABEL_CONFIG: spec.digest,
                    },
                    ports={
                        f"{INSIDE}/tcp": (spec.address, spec.publish)
                        if spec.address
                        else spec.publish
                    },
                    dns_opt=["ndots:1"],
                    dns_search=["."],
                    restart_policy=_POLICY,
                )
                self._box = Box.inspected(created)
            except APIError as error:
                taken = holder_of(self._client, self._name) if error.status_code == 409 else None
                self._box = self._ours(taken)
                if self._box is None:
                    raise
        if self._network not in self._box.networks:
            connect(self._client, self._network, self._box)
        return self._box

    def _ours(self, box: Box | None) -> Box | None:
        if box is not None and box.labels.get(names.LABEL_INSTANCE) != self._instance.key:
            raise Conflict(
                f"a container «{self._name}» that is not ours holds the edge's name",
                hint=f"remove or rename it: docker rm {self._name}",
            )
        return box


def connect(
    client: docker.DockerClient, network: str, box: Box, aliases: Sequence[str] = ()
) -> None:
    """Let a container join a network, by these names too. Idempotent."""
    try:
        client.api.connect_container_to_network(box.id, network, aliases=list(aliases))
    except APIError as error:
        # Another caller was faster; what it did is what we wanted.
        if "already exists in network" not in str(error.explanation):
            raise


def find_image(client: docker.DockerClient, image: str) -> bool:
    """Whether the engine has the edge's image, or can get it."""
    try:
        client.images.get(image)
        return True
    except ImageNotFound:
        pass
    repository, _, tag = image.rpartition(":")
    try:
        client.images.pull(repository or image, tag=tag if repository else "latest")
    except (APIError, ImageNotFound):
        return False
    return True


def _config(file: str) -> tuple[str, ...]:
    return "--config", f"{FOLDER}/{file}", "--adapter", "caddyfile"


def _load(container: Container, file: str) -> None:
    """Returns when Caddy runs what a file says. It does nothing if it does so already."""
    end = time.monotonic() + START_SECONDS
    while True:
        container.reload()
        code: int | None
        if container.status != "running":
            code, said = 1, container.logs(tail=HelixError.EVIDENCE_LINES).decode(errors="replace")
        else:
            code, said = _run(container, "caddy", "reload", *_config(file))
        if code == 0:
            return
        # It has just been started: it does not listen yet, or is not there to say so.
        starting = not said or "connection refused" in said
        if not starting or time.monotonic() > end:
            raise PlatformUnhealthy(
                f"Caddy does not take its configuration in {container.name}",
                hint=f"see: docker logs {container.name}",
                evidence=said,
            )
        time.sleep(0.05)


def _connections(client: docker.DockerClient, edge: Box, address: str) -> int:
    """How many connections an edge has to an address."""
    # The image need not have any program but Caddy; this one of its commands prints a file.
    try:
        run = client.api.exec_create(edge.id, ["caddy", "fmt", "/proc/net/tcp"])
        table = bytes(client.api.exec_start(run["Id"])).decode(errors="replace")
    except (APIError, RequestException):
        table = ""
    if "local_address" not in table:
        return 1  # it cannot be known at the moment: wait as long as is fair
    # The table has addresses as hexadecimal numbers in the machine's byte order: 0100007F:1F90.
    packed = ip_address(address).packed
    wanted = {packed.hex().upper(), packed[::-1].hex().upper()}
    rows = (line.split() for line in table.splitlines() if ":" in line)
    return sum(row[2].split(":")[0] in wanted and row[3] in BUSY_STATES for row in rows)


def _run(container: Container, *command: str) -> tuple[int | None, str]:
    run = container.exec_run(list(command))
    return run.exit_code, bytes(run.output or b"").decode(errors="replace")  # type: ignore[arg-type]


def _archive(files: Mapping[str, str], modified: int = 0) -> bytes:
    """A tar of files by name; a name that ends with a slash is a folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            data = text.encode()
            info = tarfile.TarInfo(name.rstrip("/"))
            info.size, info.mode, info.mtime = len(data), 0o644, modified
            if name.endswith("/"):
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@dataclass(frozen=True)
class _Disk:
    """What the files of an edge say."""

    caddyfile: str
    route: Route | None
    """The one that the youngest file names."""
    modified: int
    """When that was written."""


def _disk(container: Container) -> _Disk:
    """All of it in one call."""
    chunks, _stat = container.get_archive(FOLDER)
    caddyfile, route, modified = "", None, 0
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        for member in archive:
            _folder, _, name = member.name.rpartition("/")
            if name == "Caddyfile" and (file := archive.extractfile(member)):
                caddyfile = file.read().decode()
            elif (named := Route.parse(name)) and member.mtime > modified:
                route, modified = named, int(member.mtime)
    return _Disk(caddyfile, route, modified)
