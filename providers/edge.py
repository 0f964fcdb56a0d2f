"""The small Caddy in front of a release: it owns the published port, so that a swap drops nothing.

A container cannot be given a published port after its creation, and two cannot publish the same
one. So the edge publishes the instance's port, and releases come and go behind it, on a network of
the instance's own. Its Caddyfile names one upstream: a network alias that is unique to a release.

    start-first   write the new alias; `caddy reload` returns when the requests inside the old
                  release are answered; then the old release is stopped.
    stop-first    write the new alias before anything has it. Looking it up fails within a
                  millisecond, so Caddy holds each request and tries again every 100 ms. When the
                  new release is healthy it joins the network under that alias, and they flow.

Facts this rests on, seen with Caddy 2.6 and engine 20.10: `caddy reload` blocks until the requests
of the old configuration are answered, or `grace_period` is over; a request that could not connect
is tried again whatever its method, with its body; the option `ndots:1` makes the engine's DNS
answer an unknown name at once rather than ask the world. Connections to the release are not kept:
one that it closes in the moment a POST is sent into it would be a failed request.
"""

from __future__ import annotations

import io
import re
import tarfile
import time
from dataclasses import dataclass
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
TRY_SECONDS = 5.0
"""How long a request waits for a release that does not accept it: long enough for a restart."""
DRAIN_SECONDS = 5.0
"""The least time that requests inside an old configuration get to end."""
START_SECONDS = 10.0
"""Within this time Caddy must listen after its start."""

TEMPLATE = """\
{{
	auto_https off
	grace_period {grace:g}s
}}
:{inside} {{
	reverse_proxy {alias}:{port} {{
		lb_try_duration {hold:g}s
		lb_try_interval 100ms
		transport http {{
			dial_timeout 500ms
			keepalive off
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
        return Boxes(self._client, self._instance).find(self._name)

    @property
    def runs(self) -> bool:
        """Whether it takes requests."""
        box = self.box
        return box is not None and box.status == "running"

    def upstream(self) -> Upstream | None:
        """What its Caddyfile names; None if there is no edge."""
        box = self.box
        text = _read(box.container) if box else ""
        found = re.search(r"reverse_proxy (\S+):(\d+)", text)
        return Upstream(found[1], int(found[2])) if found else None

    def ensure(self, upstream: Upstream, *, deployment: str, hold: float = TRY_SECONDS) -> None:
        """Let it run and send requests to `upstream`, creating it first where there is none.

        Args:
            upstream: a release's alias, which nothing needs to have yet.
            deployment: which deployment makes it, if it has to be made.
            hold: seconds for which a request waits for the upstream to accept it.

        Raises:
            Conflict: something else holds its port or its name.
            PlatformUnhealthy: Caddy does not accept its configuration.
        """
        container = self._create(deployment)
        text = self._caddyfile(upstream, hold)
        if _read(container) != text:
            container.put_archive(FOLDER, _archive("Caddyfile", text))
        container.start()  # nothing happens if it runs
        # Also if the file was right: a process that wrote it may have died before this.
        _reload(container)

    def reload(self) -> None:
        """Make the running Caddy agree with its file, and wait for requests of before."""
        box = self.box
        if box is not None and box.status == "running":
            _reload(box.container)

    def _caddyfile(self, upstream: Upstream, hold: float) -> str:
        return TEMPLATE.format(
            grace=max(self._instance.stop_grace, DRAIN_SECONDS),
            inside=INSIDE,
            alias=upstream.alias,
            port=upstream.port,
            hold=hold,
        )

    def _create(self, deployment: str) -> Container:
        container = self._find()
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
                container = self._find() if error.status_code == 409 else None
                if container is None:
                    raise
        if Box(container).aliases(self._network) is None:
            self._client.networks.get(self._network).connect(container)
            container.reload()
        return container

    def _find(self) -> Container | None:
        box = self.box
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


def _archive(name: str, text: str) -> bytes:
    data = text.encode()
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
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
