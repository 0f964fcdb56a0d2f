"""Runs releases as containers on a Docker engine: this machine's (`local`) or any (`docker`).

A release is one container, `helix-<project>-<instance>_app_<deployment>`, whose labels say all that
must be known of it later. In front of it stands an edge (see `providers.edge`), so that a swap
drops no request. Each release also publishes its port on an engine-assigned port of the engine
machine's loopback, so that it can be probed before it has any traffic.

What is current is said by one fact: the youngest release whose restart policy is that of a promoted
one. `promote` sets the policy, and `restore` removes the release it undoes.

A volume is never open twice. With one, or wherever else `Instance.stop_first` says so, the edge
holds requests, the previous container gets SIGTERM and has exited before the next one starts; and
nothing is started while any container of the engine has the volume open. A volume's data is deleted
by `destroy(data=True)` and by nothing else.

Secrets become environment variables of the container, where `docker inspect` shows them to whoever
may use the engine. They are in no label, argument or log.
"""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, ClassVar

import docker
from docker.errors import APIError, ImageNotFound
from docker.errors import NotFound as Missing
from docker.models.containers import Container
from pydantic import BaseModel, ConfigDict

from model import names
from model.errors import (
    ConfigurationError,
    Conflict,
    HealthCheckFailed,
    NotFound,
    NothingToRestore,
    PlatformUnhealthy,
)
from model.instance import Instance
from model.platform import Capabilities, Endpoint, Identity, Phase, Release, Revision, Rollout
from providers.base import CloudProvider, Context
from providers.containers import (
    LABEL_EDGE,
    LABEL_MADE,
    LABEL_PORT,
    LABEL_SLOT,
    PROMOTED_POLICY,
    Box,
    Boxes,
)
from providers.edge import SLOTS, Edge, EdgeSpec, Route, aliases_of, find_image
from providers.engine import Engine, EngineAddress, translated
from providers.images import Images
from providers.tunnel import TunnelOptions
from providers.volumes import Volumes

MIN_DISK = 256 * 2**20
"""Bytes: with less free, the engine cannot even unpack an image."""
LOW_DISK = 2 * 2**30
"""Bytes: with less free, a person should know."""
LONGEST_NAME = 180
"""Docker puts names into paths and host names; longer ones fail late and oddly."""

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
"""The engine's word -> a platform's."""


class DockerSettings(BaseModel):
    """`[cloud.<instance>.docker]`."""

    model_config = ConfigDict(extra="ignore")

    host: str = ""
    """The engine: unix:///var/run/docker.sock, ssh://user@host:22 or tcp://host:2376."""
    tls: str | None = None
    """A folder with ca.pem, cert.pem and key.pem, for tcp://."""
    ssh_key: str | None = None
    """The private key file, for ssh://."""
    known_hosts: str | None = None
    """The file of known host keys, for ssh://."""
    address: str | None = None
    """The address of the engine's machine to publish on; all of them if absent."""
    network: str | None = None
    """A network of the engine that the release joins, to reach what else is there."""
    edge: str = "caddy:2"
    """The image of the edge; the empty string for none, and then a swap interrupts service."""


class LocalSettings(BaseModel):
    """`[local.<instance>]`: nothing of its own."""

    model_config = ConfigDict(extra="ignore")


class DockerProvider(CloudProvider):
    """Any Docker engine."""

    kind: ClassVar[str] = "docker"
    capabilities: ClassVar[Capabilities] = Capabilities(
        start_first=True, holds_requests=True, volumes=True
    )
    Settings: ClassVar[type[BaseModel]] = DockerSettings

    def __init__(self, instance: Instance, context: Context) -> None:
        super().__init__(instance, context)
        self._settings = DockerSettings.model_validate(instance.target.settings)
        self._base = names.docker_name(instance.project, instance.name)
        self._network = f"{self._base}_net"
        self._engine = Engine(self._address(), timeout=60 + instance.stop_grace)

    def _address(self) -> EngineAddress:
        own = self._settings
        return EngineAddress(
            host=own.host,
            tls=own.tls or "",
            tunnel=TunnelOptions(identity=own.ssh_key or "", known_hosts=own.known_hosts or ""),
        )

    @property
    def _client(self) -> docker.DockerClient:
        return self._engine.client

    @property
    def _boxes(self) -> Boxes:
        return Boxes(self._client, self.instance)

    @property
    def _images(self) -> Images:
        return Images(self._client, self.instance, self.context)

    @property
    def _volumes(self) -> Volumes:
        return Volumes(self._client, self.instance, local=self._engine.address.is_local)

    def close(self) -> None:
        """Give back the connection."""
        self._engine.close()

    # Before anything changes ----------------------------------------------------------------------

    @translated()
    def identity(self) -> Identity:
        """The engine's name: an engine knows no accounts."""
        self._engine.check()
        info = self._client.info()
        return Identity(where=self._engine.address.url, who=f"engine {info.get('Name', '')}")

    @translated()
    def preflight(self) -> None:
        """See that the engine answers, and that names, port, disk, platform and image will do."""
        self._check_reachable_image()
        self._engine.check()
        if len(self._base) > LONGEST_NAME:
            raise ConfigurationError(
                f"the name «{self._base[:40]}…» is longer than {LONGEST_NAME} characters",
                hint="shorten the project's or the instance's name in helix.toml",
            )
        info = self._client.info()
        self._check_platform(info)
        self._check_disk(info)
        self._check_port()
        self._check_network()
        self._volumes.check()
        if self._publishes and not self._settings.edge:
            self._note_interruption("no edge is configured")

    def _check_reachable_image(self) -> None:
        instance = self.instance
        if self._engine.address.is_local or instance.registry or instance.build.kind == "image":
            return
        raise ConfigurationError(
            f"the image must travel to the engine at {self._engine.address.machine}, "
            "and no registry is named",
            hint=f"add [deploy.{instance.name}.registry] with a repository",
        )

    def _check_platform(self, info: dict[str, Any]) -> None:
        wanted = self.instance.build.platform
        arch = ARCHITECTURES.get(info["Architecture"], info["Architecture"])
        if wanted and wanted.split("/")[1:2] != [arch]:
            self.context.notes.append(
                f"the image is built for {wanted}, and the engine runs {info['OSType']}/{arch}"
            )

    def _check_disk(self, info: dict[str, Any]) -> None:
        if not self._engine.address.is_local:
            return
        try:
            free = shutil.disk_usage(info["DockerRootDir"]).free
        except OSError:
            return  # the engine lives in a machine of its own
        if free < MIN_DISK:
            raise PlatformUnhealthy(
                f"the engine's disk has {free // 2**20} MiB left at {info['DockerRootDir']}",
                hint="free space: docker system df",
            )
        if free < LOW_DISK:
            self.context.notes.append(f"the engine's disk has {free // 2**20} MiB left")

    def _check_port(self) -> None:
        """See that nobody but this instance holds the published port."""
        publish = self.instance.publish
        if publish is None:
            return
        mine = {box.id for box in [*self._boxes.ours(), *self._boxes.adopted()]}
        held_by_us = False
        for one in self._client.api.containers():
            if publish not in {port.get("PublicPort") for port in one.get("Ports") or ()}:
                continue
            if one["Id"] not in mine:
                raise _port_taken(publish, f"the container {one['Names'][0].lstrip('/')}")
            held_by_us = True
        if not held_by_us and self._engine.address.is_local and _somebody_listens(publish):
            raise _port_taken(publish, "another program on this machine")

    def _check_network(self) -> None:
        name = self._settings.network
        if name and not self._client.networks.list(names=[name]):
            raise NotFound(
                f"the engine has no network «{name}»",
                hint=f"create it: docker network create {name}",
            )

    @translated()
    def current(self) -> Revision | None:
        """The youngest promoted release, or a container HelixDB's own command made."""
        box = self._boxes.current()
        return box.revision() if box else None

    # Start ----------------------------------------------------------------------------------------

    @translated()
    def start(self, release: Release, previous: Revision | None) -> str:
        """See `CloudProvider.start`. Without an edge a published port passes from one container to
        the next, which stops the previous one first and interrupts service."""
        releases = self._boxes.releases()
        self._fence(release, releases)
        box = next((one for one in releases if one.deployment == release.deployment), None)
        others = [one for one in releases if box is None or one.id != box.id]
        self._remove(one for one in others if not one.is_promoted)  # left by failed deployments
        others = [one for one in others if one.is_promoted]
        if box is None and (same := self._unchanged(release)):
            self._run(same)
            return same.id
        if box is None:
            box = self._create(release)
        if box.status == "running":
            return box.id
        spec = _spec_of(box)
        if self.instance.stop_first or self._takes_port_from(box, others, previous):
            self._stop_first(box, spec, others)
        elif spec is not None:
            self._join(box, box.slot)
        self._run(box)
        return box.id

    def _takes_port_from(self, box: Box, others: Iterable[Box], previous: Revision | None) -> bool:
        """Whether the published port passes from one container to another, without an edge that
        keeps it: the release publishes it itself, or the previous one did."""
        publish = self.instance.publish
        # An attempt before this one may have stopped the previous container already.
        last = previous.detail.get("container") if previous else None
        holders = [one for one in others if one.is_open or one.id == last]
        return any(publish in one.published() for one in (box, *holders))

    def _fence(self, release: Release, releases: Iterable[Box]) -> None:
        for box in releases:
            if box.release > release.number:
                raise Conflict(
                    f"release {box.release} is there already, and this is {release.number}",
                    hint="a later deployment has taken over; see: helix status",
                )

    def _unchanged(self, release: Release) -> Box | None:
        box = self._boxes.current()
        if box is None or not box.deployment or not release.artifact.identity:
            return None
        found = box.labels.get(names.LABEL_ARTIFACT), box.labels.get(names.LABEL_CONFIG)
        wanted = release.artifact.identity, release.instance.config_digest
        return box if found == wanted else None

    def _create(self, release: Release) -> Box:
        """Create the container, not started; or find the one that another attempt created."""
        image = self._images.ensure(release)
        spec = self._edge_spec()
        if spec is not None:
            self._ensure_network()
        made = self._volumes.ensure(release.deployment)
        name = f"{self._base}_app_{names.short_id(release.deployment)}"
        labels = {
            names.LABEL_INSTANCE: self.instance.key,
            names.LABEL_ROLE: "app",
            names.LABEL_DEPLOYMENT: release.deployment,
            names.LABEL_RELEASE: str(release.number),
            names.LABEL_ARTIFACT: release.artifact.identity,
            names.LABEL_CONFIG: self.instance.config_digest,
            LABEL_PORT: str(self.instance.port),
            LABEL_MADE: json.dumps(made),
            **self._edge_labels(spec),
        }
        secrets = {
            key: self.context.secret(reference).get_secret_value()
            for key, reference in self.instance.secrets.items()
        }
        try:
            container = self._client.containers.create(
                image,
                list(self.instance.command) or None,
                name=name,
                labels=labels,
                environment={**self.instance.env, **secrets},
                ports=self._ports(alone=spec is None),
                volumes=self._volumes.binds,
                restart_policy=_policy("no"),
                network=self._settings.network or None,
            )
        except ImageNotFound:
            raise NotFound(
                f"the engine lost the image {release.artifact.short} before it could run",
                hint="push again",
            ) from None
        except APIError as error:
            found = self._boxes.taken(name) if error.status_code == 409 else None
            if found is None:
                raise
            if found.deployment != release.deployment:
                raise Conflict(
                    f"a container «{name}» that is not ours holds the release's name",
                    hint=f"remove or rename it: docker rm {name}",
                ) from None
            return found
        return Box(container)

    def _ports(self, *, alone: bool) -> dict[str, Any]:
        """What the container publishes: its ports on ones that the engine assigns, for the probes;
        and, if no edge does it, the instance's own."""
        # Through SSH we dial the engine machine's loopback; over TCP we cannot.
        loopback = self._engine.address.scheme in ("unix", "ssh")
        probing = ("127.0.0.1" if loopback else "0.0.0.0",)
        instance = self.instance
        ports: dict[str, Any] = {
            f"{port}/tcp": [probing] for port in {instance.port, self._probed_port}
        }
        if alone and instance.publish is not None:
            address = self._settings.address
            ports[f"{instance.port}/tcp"].append(
                (address, instance.publish) if address else instance.publish
            )
        return ports

    @property
    def _probed_port(self) -> int:
        return self.instance.health_check.port or self.instance.port

    @property
    def _publishes(self) -> bool:
        return self.instance.publish is not None

    def _edge_spec(self) -> EdgeSpec | None:
        """The edge this instance wants, if it can be had."""
        image, publish = self._settings.edge, self.instance.publish
        if publish is None or not image:
            return None
        if not find_image(self._client, image):
            self._note_interruption(f"the engine has no image {image} and cannot pull it")
            return None
        return EdgeSpec(image=image, publish=publish, address=self._settings.address or "")

    def _edge_labels(self, spec: EdgeSpec | None) -> dict[str, str]:
        if spec is None:
            return {}
        return {LABEL_EDGE: spec.model_dump_json(), LABEL_SLOT: self._edge(spec).free_slot()}

    def _note_interruption(self, why: str) -> None:
        self.context.notes.append(f"{why}: a swap will interrupt service for a moment")

    def _ensure_network(self) -> None:
        found = self._client.networks.list(names=[self._network])
        # A filter by name matches parts of names, too.
        if any(one.name == self._network for one in found):
            return
        try:
            # Internal: it only links edge and release, and never becomes a container's way out,
            # so joining it moves no route and no published port.
            self._client.networks.create(
                self._network,
                internal=True,
                check_duplicate=True,
                labels={names.LABEL_INSTANCE: self.instance.key},
            )
        except APIError as error:
            if error.status_code != 409:
                raise

    def _stop_first(self, box: Box, spec: EdgeSpec | None, others: Sequence[Box]) -> None:
        """Hold requests, and let every earlier release end."""
        edge = self._edge(spec) if spec else None
        shut = Route(box.slot, box.port, shut=True)
        if edge is not None and edge.runs:
            edge.send(shut, deployment=box.deployment)
        for one in others:
            if edge is not None and one.is_open:
                edge.drain(one)
            self._stop(one)
        if edge is not None and others and not edge.runs:
            # The port was the previous container's own; from here on requests wait for us.
            self._free_port(spec)
            self._ensure_network()
            edge.send(shut, deployment=box.deployment)
        if spec is None:
            self._free_port(None)

    def _free_port(self, spec: EdgeSpec | None) -> None:
        """Stop other edges that publish the instance's port: it is about to be published anew."""
        keep = spec.digest if spec else ""
        for one in self._boxes.edges():
            other = one.labels.get(names.LABEL_CONFIG) != keep
            if other and one.is_open and self.instance.publish in one.published():
                self.context.notes.append("the edge is replaced, which interrupts service")
                self._stop(one)

    def _edge(self, spec: EdgeSpec) -> Edge:
        return Edge(self._client, self.instance, spec, self._network)

    def _join(self, box: Box, slot: str) -> None:
        """Let the edge find the container in this slot, and in no other. One that has another slot
        leaves the network for a moment: only do that to one without requests inside."""
        self._ensure_network()
        network = self._client.networks.get(self._network)
        found = box.aliases(self._network)
        if found is not None and aliases_of(slot) <= found:
            return
        if found is not None:
            network.disconnect(box.id, force=True)
        try:
            network.connect(box.id, aliases=sorted(aliases_of(slot)))
        except APIError as error:
            # Another caller was faster; what it did is what we wanted.
            if "already exists in network" not in str(error.explanation):
                raise

    def _run(self, box: Box) -> None:
        """Start the container, unless that would open a volume twice."""
        if box.status == "running":
            return
        self._volumes.make_folders()
        self._volumes.refuse_second(box)
        box.container.start()

    def _stop(self, box: Box) -> None:
        """SIGTERM, and SIGKILL after the grace. Returns when its processes are gone."""
        if not box.is_open:
            return
        self.context.report(f"stopping {box.name}")
        with suppress(Missing):
            box.container.stop(timeout=max(1, round(self.instance.stop_grace)))

    def _remove(self, boxes: Iterable[Box]) -> None:
        for box in boxes:
            self._stop(box)
            _gone(box.container)

    # While it runs --------------------------------------------------------------------------------

    @translated()
    def poll(self, handle: str) -> Rollout:
        """The container's state; one that exited has failed, however it ended."""
        box = self._boxes.find(handle)
        if box is None:
            return Rollout(phase=Phase.FAILED, detail="its container is gone")
        match box.status:
            case "running":
                return Rollout(phase=Phase.RUNNING, detail="running")
            case "created" | "paused":
                return Rollout(phase=Phase.STARTING, detail=box.status)
            case _:
                return Rollout(phase=Phase.FAILED, detail=_epitaph(box), logs=box.tail())

    @translated()
    def endpoint(self, handle: str) -> Endpoint | None:
        """The container's own port, past the edge."""
        box = self._boxes.find(handle)
        if box is None or not box.is_open:
            raise HealthCheckFailed(
                f"the container {_epitaph(box) if box else 'is gone'}",
                hint="mend it and push again",
                evidence=box.tail() if box else "",
            )
        for port in (self._probed_port, box.port, self.instance.port):
            if (found := box.host_port(port)) is not None:
                host, reached = self._engine.reach(found)
                return Endpoint(url=f"http://{host}:{reached}")
        return None

    @translated()
    def run_check(self, handle: str, command: Sequence[str], timeout: float) -> tuple[int, str]:
        """Run it inside the container. After `timeout` seconds the exit code is 124."""
        api = self._client.api
        run = api.exec_create(handle, list(command))["Id"]
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

    # Promote and restore --------------------------------------------------------------------------

    @translated()
    def promote(self, handle: str) -> Revision:
        """See `CloudProvider.promote`. Requests inside the previous release are answered first."""
        box = self._boxes.find(handle)
        if box is None or not box.is_open:
            raise HealthCheckFailed(
                f"the release cannot take the traffic: its container "
                f"{_epitaph(box) if box else 'is gone'}",
                evidence=box.tail() if box else "",
            )
        self._refuse_if_superseded(box, box.deployment)
        spec = _spec_of(box)
        if spec is not None:
            edge = self._edge(spec)
            now = edge.route()
            slot = now.slot if now and now.slot in self._slots(box) else box.slot
            self._free_port(spec)
            self._join(box, slot)
            edge.send(Route(slot, box.port), deployment=box.deployment)
        if box.deployment and not box.is_promoted:
            box.container.update(restart_policy=_policy(PROMOTED_POLICY))
        for one in self._boxes.releases():
            if one.id != box.id and one.is_open:
                if spec is not None:
                    self._edge(spec).drain(one)
                self._stop(one)
        for one in self._boxes.edges():
            if spec is None or one.labels.get(names.LABEL_CONFIG) != spec.digest:
                self._stop(one)
        return box.revision()

    @translated()
    def restore(self, deployment: str, previous: Revision | None) -> str | None:
        """See `CloudProvider.restore`. Requests that are held flow to the previous release."""
        if previous is None:
            self._clear(deployment)
            return None
        box = self._find_again(previous)
        self._refuse_if_superseded(box, deployment)
        spec = _spec_of(box)
        keep = spec.digest if spec else ""
        self._remove(
            one
            for one in self._boxes.of(deployment)
            if not (one.is_edge and one.labels.get(names.LABEL_CONFIG) == keep)
        )
        if spec is not None:
            self._let_requests_in(box, spec)
        elif box.published():
            self._free_port(None)
        self._run(box)
        return box.id

    def _refuse_if_superseded(self, box: Box, deployment: str) -> None:
        for one in self._boxes.releases():
            later = one.is_open and one.is_promoted and one.release > box.release
            if later and one.deployment != deployment:
                raise Conflict(
                    f"release {one.release} has taken over since",
                    hint="nothing is to be done here; see: helix status",
                )

    def _slots(self, box: Box) -> set[str]:
        return set(SLOTS) & (box.aliases(self._network) or set())

    def _let_requests_in(self, box: Box, spec: EdgeSpec) -> None:
        """Give the container the slot that requests go to, or wait for."""
        edge = self._edge(spec)
        now = edge.route()
        if now is None or now.slot in self._slots(box):
            self._join(box, now.slot if now else box.slot)
            return
        edge.send(replace(now, shut=True), deployment=box.deployment)
        if box.is_open:
            edge.drain(box)
        self._join(box, now.slot)

    def _find_again(self, previous: Revision) -> Box:
        box = self._boxes.find(previous.detail.get("container", "") or previous.id)
        if box is None:
            raise NothingToRestore(
                f"the container {previous.id} of the previous release is gone",
                hint="push a release that works",
            )
        return box

    def _clear(self, deployment: str) -> None:
        """Leave nothing of a first deployment: containers, edge, network, and what it brought into
        being that is still empty."""
        mine = [box for box in self._boxes.of(deployment) if not box.is_edge]
        for box in mine:
            self._stop(box)
        empty = self._volumes.empty(mine)
        self._remove(mine)
        if not self._boxes.releases():
            self._remove(self._boxes.edges())
            self._remove_network()
        self._volumes.remove(empty)

    def _remove_network(self) -> None:
        for network in self._client.networks.list(names=[self._network]):
            if network.name == self._network:
                with suppress(Missing):
                    network.remove()

    # For people -----------------------------------------------------------------------------------

    def public_url(self) -> str:
        """The published port on the engine's machine."""
        publish = self.instance.publish
        return f"http://{self._public_host}:{publish}" if publish is not None else ""

    @property
    def _public_host(self) -> str:
        address = self._settings.address
        everywhere = address in (None, "", "0.0.0.0", "::")
        return self._engine.address.machine if everywhere else str(address)

    def logs(
        self, *, since: datetime | None = None, tail: int | None = None, follow: bool = False
    ) -> Iterator[str]:
        """Standard output and standard error of the current release's container.

        Raises:
            NotFound: nothing runs.
        """
        with translated():
            box = self._boxes.current() or next(iter(reversed(self._boxes.releases())), None)
            if box is None:
                raise NotFound(
                    f"nothing was deployed to {self.instance.key}",
                    hint=f"run: helix push {self.instance.name}",
                )
            chunks = box.container.logs(
                stream=True,
                follow=follow,
                tail="all" if tail is None else tail,
                since=since.timestamp() if since else None,
            )
            yield from _lines(chunks)

    # Tidy up --------------------------------------------------------------------------------------

    @translated()
    def prune(self, keep: Sequence[Revision]) -> None:
        """See `CloudProvider.prune`. Images that only removed containers used go too. A container
        that HelixDB's own command made stays until two releases of ours have succeeded."""
        releases = self._boxes.releases()
        current = self._boxes.current()
        if current is None:
            return
        kept = {current.id} | {one.detail.get("container", "") for one in keep}
        followers = [box for box in releases if box.deployment and box.id in kept]
        old = [
            box
            for box in releases
            if box.id not in kept
            and box.release < current.release
            and (box.deployment or len(followers) > 1)
        ]
        self._remove(old)
        spec = _spec_of(current)
        needed = {one.digest for one in map(_spec_of, followers) if one}
        self._remove(
            one
            for one in self._boxes.edges()
            if not one.is_open and one.labels.get(names.LABEL_CONFIG) not in needed
        )
        if spec is None and not needed:
            self._remove_network()
        self._images.remove_unused()

    @translated()
    def destroy(self, *, data: bool) -> None:
        """Remove containers, edge, network and unused images; the volumes only if `data`."""
        self._remove([*self._boxes.edges(), *self._boxes.releases()])
        self._remove_network()
        self._images.remove_unused()
        if data:
            self._volumes.destroy()


class LocalProvider(DockerProvider):
    """This machine's engine, as HelixDB's own command uses it."""

    kind: ClassVar[str] = "local"
    Settings: ClassVar[type[BaseModel]] = LocalSettings


def _spec_of(box: Box) -> EdgeSpec | None:
    text = box.labels.get(LABEL_EDGE)
    return EdgeSpec.model_validate_json(text) if text else None


def _policy(name: str) -> Any:
    # Its type stubs know two of the four policies.
    return {"Name": name}


def _gone(container: Container) -> None:
    """Remove the container, with the anonymous volumes that its image declares."""
    try:
        container.remove(v=True, force=True)
    except Missing:
        return
    except APIError as error:
        if "already in progress" not in str(error.explanation):
            raise


def _epitaph(box: Box) -> str:
    """How the container ended."""
    state = box.state
    if box.status == "restarting":
        return f"keeps exiting with code {state['ExitCode']}"
    if state.get("OOMKilled"):
        return "was killed: it used more memory than it may"
    why = f": {state['Error']}" if state.get("Error") else ""
    return f"exited with code {state['ExitCode']}{why}"


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace").rstrip("\r") for line in whole)
    if rest:
        yield rest.decode(errors="replace").rstrip("\r")


def _somebody_listens(port: int) -> bool:
    """Whether a port of this machine cannot be bound."""
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        with suppress(OSError), socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind((address, port))
            except PermissionError:
                return False  # a low port: the engine may bind it, we may not
            except OSError as error:
                return error.errno == 98  # EADDRINUSE
    return False


def _port_taken(port: int, holder: str) -> Conflict:
    return Conflict(
        f"port {port} is held by {holder}",
        hint=f"free it, or choose another port in helix.toml; see: ss -ltnp 'sport = :{port}'",
    )
