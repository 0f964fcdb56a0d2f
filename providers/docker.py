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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, ClassVar

import docker
from docker.errors import APIError, ImageNotFound
from docker.errors import NotFound as Missing
from docker.models.containers import Container
from pydantic import BaseModel, ConfigDict

from model import names
from model.errors import (
    Conflict,
    HealthCheckFailed,
    NotFound,
    NothingToRestore,
)
from model.instance import Instance
from model.platform import Capabilities, Endpoint, Identity, Phase, Release, Revision, Rollout
from providers.base import CloudProvider, Context, superseded
from providers.containers import (
    LABEL_EDGE,
    LABEL_MADE,
    LABEL_PORT,
    PROMOTED_POLICY,
    Box,
    Boxes,
    exec_in,
    holder_of,
    inspect,
)
from providers.docker_preflight import check_engine
from providers.engine import Engine, EngineSettings, lines_of, translated
from providers.images import Images
from providers.traffic import Traffic, interruption, is_edge_of, spec_of
from providers.volumes import Volumes


class DockerSettings(EngineSettings):
    """`[cloud.<instance>.docker]`."""

    address: str | None = None
    """The address of the engine's machine to publish on; all of them if absent."""
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
        self._engine = Engine(self._settings.engine(), timeout=60 + instance.stop_grace)

    @property
    def _client(self) -> docker.DockerClient:
        return self._engine.client

    def _look(self) -> Boxes:
        return Boxes.read(self._client, self.instance)

    def _traffic(self, boxes: Boxes) -> Traffic:
        note = self.context.notes.append
        return Traffic(self._client, self.instance, boxes, self._stop, note)

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
        info = self._engine.check()
        return Identity(where=self._engine.address.url, who=f"engine {info.get('Name', '')}")

    @translated()
    def preflight(self) -> None:
        """See `check_engine`; and that the volumes are this instance's."""
        check_engine(
            self._engine, self.instance, self._settings.network or "", self.context.notes.append
        )
        self._volumes.check()
        if self.instance.publish is not None and not self._settings.edge:
            self.context.notes.append(interruption("no edge is configured"))

    @translated()
    def current(self) -> Revision | None:
        """The youngest promoted release, or a container HelixDB's own command made."""
        box = self._look().current()
        return box.revision() if box else None

    @translated()
    def down(self) -> str:
        """See `CloudProvider.down`. An edge that does not run counts as well."""
        boxes = self._look()
        box = boxes.current()
        if box is None:
            return ""
        if box.status != "running":
            return "is paused" if box.status == "paused" else box.epitaph()
        edges = boxes.edges if LABEL_EDGE in box.labels else []
        if edges and not any(edge.is_open for edge in edges):
            return f"the edge in front of it {edges[0].epitaph()}"
        return ""

    # Start ----------------------------------------------------------------------------------------

    @translated()
    def start(self, release: Release, previous: Revision | None) -> str:
        """See `CloudProvider.start`. Without an edge a published port passes from one container to
        the next, which stops the previous one first and interrupts service."""
        boxes = self._look()
        self._fence(release, boxes.releases)
        box = next((one for one in boxes.releases if one.deployment == release.deployment), None)
        others = [one for one in boxes.releases if one is not box]
        # What runs unpromoted was left by a failed deployment; of what does not, `prune` disposes.
        left = [one for one in others if one.is_open and not one.is_promoted]
        self._remove(left)
        boxes, others = boxes.without(left), [one for one in others if one not in left]
        if box is None and (same := self._unchanged(release, boxes)):
            self._run(same)
            return same.id
        traffic = self._traffic(boxes)
        if box is None:
            box = self._create(release, traffic)
        if box.status == "running":
            return box.id
        if self.instance.stop_first or traffic.passes_port(box, others, previous):
            traffic.hold(box, others)
            # That took its time, and a worker that the network was cut off from is told nothing.
            self._fence(release, self._look().releases)
        else:
            traffic.admit(box)
        self._run(box)
        return box.id

    def _fence(self, release: Release, releases: Iterable[Box]) -> None:
        for box in releases:
            if box.release > release.number:
                raise superseded(box.release, release.number)

    def _unchanged(self, release: Release, boxes: Boxes) -> Box | None:
        box = boxes.current()
        if box is None or not box.deployment or not release.artifact.identity:
            return None
        found = box.labels.get(names.LABEL_ARTIFACT), box.labels.get(names.LABEL_CONFIG)
        wanted = release.artifact.identity, release.instance.config_digest
        return box if found == wanted else None

    def _create(self, release: Release, traffic: Traffic) -> Box:
        """Create the container, not started; or find the one that another attempt created."""
        image = self._images.ensure(release)
        edge = traffic.prepare(self._settings.edge, self._settings.address or "")
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
            **edge,
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
                ports=self._ports(alone=not edge),
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
            found = holder_of(self._client, name) if error.status_code == 409 else None
            if found is None:
                raise
            if found.deployment != release.deployment:
                raise Conflict(
                    f"a container «{name}» that is not ours holds the release's name",
                    hint=f"remove or rename it: docker rm {name}",
                ) from None
            return found
        return Box.inspected(container)

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
        box = inspect(self._client, handle)
        if box is None:
            return Rollout(phase=Phase.FAILED, detail="its container is gone")
        match box.status:
            case "running":
                return Rollout(phase=Phase.RUNNING, detail="running")
            case "created" | "paused":
                return Rollout(phase=Phase.STARTING, detail=box.status)
            case _:
                return Rollout(phase=Phase.FAILED, detail=box.epitaph(), logs=box.tail())

    @translated()
    def endpoint(self, handle: str) -> Endpoint | None:
        """The container's own port, past the edge."""
        box = inspect(self._client, handle)
        if box is None or not box.is_open:
            raise HealthCheckFailed(
                f"the container {box.epitaph() if box else 'is gone'}",
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
        return exec_in(self._client, handle, command, timeout)

    # Promote and restore --------------------------------------------------------------------------

    @translated()
    def promote(self, handle: str) -> Revision:
        """See `CloudProvider.promote`. Requests inside the previous release are answered first."""
        boxes = self._look()
        box = boxes.find(handle)
        if box is None or not box.is_open:
            raise HealthCheckFailed(
                f"the release cannot take the traffic: its container "
                f"{box.epitaph() if box else 'is gone'}",
                evidence=box.tail() if box else "",
            )
        self._refuse_if_superseded(box, box.deployment, boxes)
        traffic = self._traffic(boxes)
        traffic.give(box)
        if box.deployment and not box.is_promoted:
            box.container.update(restart_policy=_policy(PROMOTED_POLICY))
        traffic.end_others(box)
        return box.revision()

    @translated()
    def restore(self, deployment: str, previous: Revision | None) -> str | None:
        """See `CloudProvider.restore`. Requests that are held flow to the previous release."""
        if previous is None:
            self._clear(deployment)
            return None
        boxes = self._look()
        box = self._find_again(previous, boxes)
        self._refuse_if_superseded(box, deployment, boxes)
        spec = spec_of(box)
        undone = [one for one in boxes.of(deployment) if not is_edge_of(one, spec)]
        self._remove(undone)
        self._traffic(boxes.without(undone)).give_back(box)
        self._refuse_if_superseded(box, deployment, self._look())  # as in `start`
        self._run(box)
        return box.id

    def _refuse_if_superseded(self, box: Box, deployment: str, boxes: Boxes) -> None:
        for one in boxes.releases:
            later = one.is_open and one.release > box.release and one.deployment != deployment
            if later and one.is_promoted:
                raise Conflict(
                    f"release {one.release} has taken over since",
                    hint="nothing is to be done here; see: helix status",
                )

    def _find_again(self, previous: Revision, boxes: Boxes) -> Box:
        box = boxes.find(previous.detail.get("container", "") or previous.id)
        if box is None:
            raise NothingToRestore(
                f"the container {previous.id} of the previous release is gone",
                hint="push a release that works",
            )
        return box

    def _clear(self, deployment: str) -> None:
        """Leave nothing of a first deployment: containers, edge, network, and what it brought into
        being that is still empty."""
        boxes = self._look()
        mine = [box for box in boxes.of(deployment) if not box.is_edge]
        for box in mine:
            self._stop(box)
        empty = self._volumes.empty(mine)
        self._remove(mine)
        if not boxes.without(mine).releases:
            self._remove(boxes.edges)
            self._traffic(boxes).remove_network()
        self._volumes.remove(empty)

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
            boxes = self._look()
            box = boxes.current() or next(iter(reversed(boxes.releases)), None)
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
            yield from lines_of(chunks)

    # Tidy up --------------------------------------------------------------------------------------

    @translated()
    def prune(self, keep: Sequence[Revision]) -> None:
        """See `CloudProvider.prune`. Images that only removed containers used go too. A container
        that HelixDB's own command made stays until two releases of ours have succeeded."""
        boxes = self._look()
        current = boxes.current()
        if current is None:
            return
        kept = {current.id} | {one.detail.get("container", "") for one in keep}
        followers = [box for box in boxes.releases if box.deployment and box.id in kept]
        old = [
            box
            for box in boxes.releases
            if box.id not in kept
            and box.release < current.release
            and (box.deployment or len(followers) > 1)
        ]
        self._remove(old)
        needed = [spec for spec in map(spec_of, followers) if spec]
        self._remove(
            one
            for one in boxes.edges
            if not one.is_open and not any(is_edge_of(one, spec) for spec in needed)
        )
        if not needed:
            self._traffic(boxes).remove_network()
        self._images.remove_unused()

    @translated()
    def destroy(self, *, data: bool) -> None:
        """Remove containers, edge, network and unused images; the volumes only if `data`."""
        boxes = self._look()
        self._remove([*boxes.edges, *boxes.releases])
        self._traffic(boxes).remove_network()
        self._images.remove_unused()
        if data:
            self._volumes.destroy()


class LocalProvider(DockerProvider):
    """This machine's engine, as HelixDB's own command uses it."""

    kind: ClassVar[str] = "local"
    Settings: ClassVar[type[BaseModel]] = LocalSettings


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
