"""The small Caddy in front of a release: it owns the published port, so that a swap drops nothing.

A container cannot be given a published port after its creation, and two cannot publish the same
one. So the edge publishes the instance's port, and releases come and go behind it, on a network of
the instance's own. Its Caddyfile names one upstream: a network alias that is unique to a release.

    start-first   write the new alias and reload; when the requests inside the old release are
                  answered, it is stopped.
    stop-first    write the new alias before anything has it, with the gate shut: each request
                  waits for the name to answer. When the new release is healthy it joins the network
                  under that alias, the waiting requests flow, and the gate is opened for good.

What this rests on, seen with Caddy 2.6 and engine 20.10:

- `caddy reload` lets requests inside a release end, but does not wait for them: their connections
  are counted. It gives up requests that wait for an upstream: never reload while some may.
- Caddy repeats a request that could not connect, but not its body. So what waits is a GET of the
  gate's own, and the request itself is first sent when that was answered.
- With the option `ndots:1` the engine's DNS answers an unknown name at once; without it, it asks
  the world. A name is known a moment before its container can be reached, hence the short dials.
- A reload closes the idle connections of clients; one that sends a request in that very moment sees
  it fail. So before a reload every answer says `Connection: close` for a while.
- Whether a file exists is looked at for each request. So two marker files turn the gate and the
  closing of connections on and off without a reload.
- Connections to the release are not kept: one that it closes in the moment a POST is sent into it
  would be a failed request. So each open one is a request.
"""

from __future__ import annotations

import io
import re
import tarfile
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import docker
from docker.errors import APIError, ImageNotFound
from docker.errors import NotFound as Missing
from docker.models.containers import Container

from model import names
from model.base import Record, digest_of
from model.errors import Conflict, HelixError, PlatformUnhealthy
from model.instance import Instance
from providers.containers import Box, Boxes

INSIDE = 80
"""The port Caddy listens on in its container."""
FOLDER = "/etc/caddy"
CADDYFILE = f"{FOLDER}/Caddyfile"
TURNOVER_SECONDS = 0.3
"""How long before a reload clients are told to close their connections."""
PATIENCE_SECONDS = 5.0
"""How long a request waits for a release that does not accept it: long enough for a restart."""
HOLD_MARGIN = 15.0
"""Seconds that requests wait beyond stopping the old release and probing the new one."""
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
	@leaving file {{
		root {folder}
		try_files {leaving}
	}}
	@shut not file {{
		root {folder}
		try_files {opened}
	}}
	header @leaving Connection close
	route {{
		reverse_proxy @shut {alias}:{port} {{
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
		reverse_proxy {alias}:{port} {{
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


_POLICY: Any = {"Name": "unless-stopped"}  # the type stubs know two of the four policies


@dataclass(frozen=True)
class Upstream:
    """Where an edge sends requests."""

    alias: str
    port: int


class Edge:
    """One edge of one instance. Every call may be repeated, and finishes what another began."""

    def __init__(
        self, client: docker.DockerClient, instance: Instance, spec: EdgeSpec, network: str
    ) -> None:
        self._client = client
        self._instance = instance
        self._spec = spec
        self._network = network
        base = names.docker_name(instance.project, instance.name)
        self._name = f"{base}_edge_{spec.digest}"

    @property
    def box(self) -> Box | None:
        """Its container, if there is one."""
        return self._boxes.find(self._name)

    @property
    def _boxes(self) -> Boxes:
        return Boxes(self._client, self._instance)

    @property
    def runs(self) -> bool:
        """Whether it takes requests."""
        box = self.box
        return box is not None and box.status == "running"

    def upstream(self) -> Upstream | None:
        """What its Caddyfile names; None if there is no edge."""
        box = self.box
        return _upstream(_read(box.container)) if box else None

    def ensure(
        self,
        upstream: Upstream,
        *,
        deployment: str,
        shut: bool = False,
        names_too: Collection[str] = (),
    ) -> None:
        """Let it run and send requests to `upstream`, creating it first where there is none.

        Args:
            upstream: a release's alias, which nothing needs to have yet if it is `shut`.
            deployment: which deployment makes it, if it has to be made.
            shut: whether requests wait for the upstream to answer.
            names_too: other aliases of the same release: if the edge uses one of them it goes on to
                do so, and keeps the requests that wait for it.

        Raises:
            Conflict: something else holds its port or its name.
            PlatformUnhealthy: Caddy does not accept its configuration.
        """
        container = self._create(deployment)
        now = _upstream(_read(container))
        files: dict[str, str] = {}
        if (
            now is None
            or now.port != upstream.port
            or now.alias not in {upstream.alias, *names_too}
        ):
            if now is not None and Box(container).status == "running":
                container.put_archive(FOLDER, _archive({_leaving(now.alias): ""}))
                time.sleep(TURNOVER_SECONDS)
            files["Caddyfile"] = self._caddyfile(upstream)
            now = upstream
        if not shut:
            files[_opened(now.alias)] = ""
        if files:
            container.put_archive(FOLDER, _archive(files))
        container.start()  # nothing happens if it runs
        # Also if the file was right: a process that wrote it may have died before this.
        _reload(container)

    def drain(self, release: Box) -> None:
        """Wait until no request is inside a release any more, but no longer than is fair."""
        address = release.address(self._network)
        end = time.monotonic() + self._grace
        while address and (box := self.box) and box.status == "running":
            if _connections(box.container, address) == 0 or time.monotonic() > end:
                return
            time.sleep(0.05)

    @property
    def _grace(self) -> float:
        return max(self._instance.stop_grace, DRAIN_SECONDS)

    def reload(self) -> None:
        """Make the running Caddy agree with its file, and wait for requests of before."""
        box = self.box
        if box is not None and box.status == "running":
            _reload(box.container)

    def _caddyfile(self, upstream: Upstream) -> str:
        instance = self._instance
        check = instance.health_check
        return TEMPLATE.format(
            grace=self._grace,
            inside=INSIDE,
            folder=FOLDER,
            leaving=_leaving(upstream.alias),
            opened=_opened(upstream.alias),
            alias=upstream.alias,
            port=upstream.port,
            probe=check.path if check.kind == "http" else "/",
            hold=instance.stop_grace + check.deadline + HOLD_MARGIN,
            patience=PATIENCE_SECONDS,
        )

    def _create(self, deployment: str) -> Container:
        container = self._ours(self.box)
        if container is None:
            try:
                container = self._client.containers.create(
                    self._spec.image,
                    ["caddy", "run", "--config", CADDYFILE, "--adapter", "caddyfile"],
                    name=self._name,
                    labels={
                        names.LABEL_INSTANCE: self._instance.key,
                        names.LABEL_ROLE: "edge",
                        names.LABEL_DEPLOYMENT: deployment,
                        names.LABEL_CONFIG: self._spec.digest,
                    },
                    ports={
                        f"{INSIDE}/tcp": (self._spec.address, self._spec.publish)
                        if self._spec.address
                        else self._spec.publish
                    },
                    dns_opt=["ndots:1"],
                    dns_search=["."],
                    restart_policy=_POLICY,
                )
            except APIError as error:
                taken = self._boxes.taken(self._name) if error.status_code == 409 else None
                container = self._ours(taken)
                if container is None:
                    raise
        if Box(container).aliases(self._network) is None:
            self._client.networks.get(self._network).connect(container)
            container.reload()
        return container

    def _ours(self, box: Box | None) -> Container | None:
        if box is None:
            return None
        if box.labels.get(names.LABEL_INSTANCE) != self._instance.key:
            raise Conflict(
                f"a container «{self._name}» that is not ours holds the edge's name",
                hint=f"remove or rename it: docker rm {self._name}",
            )
        return box.container


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


def _reload(container: Container) -> None:
    """Returns when Caddy runs what its file says, and requests of before are answered."""
    end = time.monotonic() + START_SECONDS
    while True:
        container.reload()
        code: int | None
        if container.status != "running":
            code, said = 1, container.logs(tail=HelixError.EVIDENCE_LINES).decode(errors="replace")
        else:
            run = container.exec_run(
                ["caddy", "reload", "--config", CADDYFILE, "--adapter", "caddyfile"]
            )
            code, said = run.exit_code, bytes(run.output).decode(errors="replace")  # type: ignore[arg-type]
        if code == 0:
            return
        if "connection refused" not in said or time.monotonic() > end:
            raise PlatformUnhealthy(
                f"Caddy does not take its configuration in {container.name}",
                hint=f"see: docker logs {container.name}",
                evidence=said,
            )
        time.sleep(0.05)  # it has just been started


def _connections(container: Container, address: str) -> int:
    """How many connections the edge has to an address."""
    # The image need not have any program but Caddy; this one of its commands prints a file.
    run = container.exec_run(["caddy", "fmt", "/proc/net/tcp"], stderr=False)
    table = bytes(run.output or b"").decode(errors="replace")  # type: ignore[arg-type]
    if "local_address" not in table:
        return 1  # it cannot be known: wait as long as is fair
    # The table has addresses as hexadecimal numbers in the machine's byte order: 0100007F:1F90.
    packed = ip_address(address).packed
    wanted = {packed.hex().upper(), packed[::-1].hex().upper()}
    rows = (line.split() for line in table.splitlines() if ":" in line)
    return sum(row[2].split(":")[0] in wanted and row[3] in BUSY_STATES for row in rows)


def _leaving(alias: str) -> str:
    return f"leaving-{alias}"


def _opened(alias: str) -> str:
    return f"opened-{alias}"


def _upstream(text: str) -> Upstream | None:
    """What a Caddyfile of ours names."""
    found = re.search(r"^\s*reverse_proxy (\S+):(\d+)", text, re.MULTILINE)
    return Upstream(found[1], int(found[2])) if found else None


def _archive(files: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in files.items():
            data = text.encode()
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _read(container: Container) -> str:
    try:
        chunks, _stat = container.get_archive(CADDYFILE)
        content = b"".join(chunks)
    except Missing:
        return ""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        member = archive.extractfile(archive.next() or tarfile.TarInfo())
        return member.read().decode() if member else ""
