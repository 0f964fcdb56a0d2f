"""Which of an instance's releases gets the requests, with an edge in front of it or without one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

import docker
from docker.errors import APIError
from docker.errors import NotFound as Missing

from model import names
from model.instance import Instance
from model.platform import Revision
from providers.containers import LABEL_EDGE, LABEL_SLOT, Box, Boxes
from providers.edge import SLOTS, Edge, EdgeSpec, Route, aliases_of, connect, find_image


class Traffic:
    """The edges and the network of one instance on one engine.

    Args:
        boxes: the instance's containers.
        stop: ends a container's processes, gracefully.
        note: takes warnings for the person.
    """

    def __init__(
        self,
        client: docker.DockerClient,
        instance: Instance,
        boxes: Boxes,
        stop: Callable[[Box], None],
        note: Callable[[str], None],
    ) -> None:
        self._client = client
        self._instance = instance
        self._stop = stop
        self._note = note
        self._network = f"{names.docker_name(instance.project, instance.name)}_net"
        self._boxes = boxes
        self._edges: dict[str, Edge] = {}
        self._has_network = boxes.share(self._network)

    # Before a release starts ----------------------------------------------------------------------

    def prepare(self, image: str, address: str) -> dict[str, str]:
        """Make ready for the next release. Returns labels for its container: none if it will have
        to publish the port itself.

        Args:
            image: the edge's; empty for no edge.
            address: the host's address to publish on; all of them if empty.
        """
        publish = self._instance.publish
        if publish is None or not image:
            return {}
        spec = EdgeSpec(image=image, publish=publish, address=address)
        edge = self._edge(spec)
        if not edge.exists and not find_image(self._client, image):
            self._note(interruption(f"the engine has no image {image} and cannot pull it"))
            return {}
        self._ensure_network()
        return {LABEL_EDGE: spec.model_dump_json(), LABEL_SLOT: edge.free_slot()}

    def passes_port(self, box: Box, others: Iterable[Box], previous: Revision | None) -> bool:
        """Whether the published port goes from one container to another, without an edge that keeps
        it: the release publishes it itself, or the previous one did."""
        # An attempt before this one may have stopped the previous container already.
        last = previous.detail.get("container") if previous else None
        holders = [one for one in others if one.is_open or one.id == last]
        return any(self._instance.publish in one.published() for one in (box, *holders))

    def admit(self, box: Box) -> None:
        """Put a release that has no requests yet beside the one that has them."""
        if spec_of(box) is not None:
            self._join(box, box.slot)

    def hold(self, box: Box, others: Sequence[Box]) -> None:
        """Let requests wait for a release that is about to start, and let all others end."""
        spec = spec_of(box)
        if spec is None:
            for one in others:
                self._stop(one)
            self._free_port("")
            return
        edge = self._edge(spec)
        shut = Route(box.slot, box.port, shut=True)
        if edge.runs:
            edge.send(shut, deployment=box.deployment)
        for one in others:
            if one.is_open:
                edge.drain(one)
            self._stop(one)
        if others and not edge.runs:
            # The port was the previous container's own; from here on requests wait for us.
            self._free_port(spec.digest)
            self._ensure_network()
            edge.send(shut, deployment=box.deployment)

    # Promote and restore --------------------------------------------------------------------------

    def give(self, box: Box) -> None:
        """Send all requests to a release that is healthy. Idempotent."""
        spec = spec_of(box)
        if spec is None:
            return
        edge = self._edge(spec)
        now = edge.route()
        slot = now.slot if now and now.slot in self._slots(box) else box.slot
        self._free_port(spec.digest)
        self._join(box, slot)
        edge.send(Route(slot, box.port), deployment=box.deployment)

    def end_others(self, box: Box) -> None:
        """Stop the releases and the edges that the one with the requests has replaced."""
        spec = spec_of(box)
        for one in self._boxes.releases:
            if one.id != box.id and one.is_open:
                if spec is not None:
                    self._edge(spec).drain(one)
                self._stop(one)
        for one in self._boxes.edges:
            if not is_edge_of(one, spec):
                self._stop(one)

    def give_back(self, box: Box) -> None:
        """Before an earlier release starts again: let it find the requests that wait."""
        spec = spec_of(box)
        if spec is None:
            if box.published():
                self._free_port("")
            return
        edge = self._edge(spec)
        now = edge.route()
        if now is None or now.slot in self._slots(box):
            self._join(box, now.slot if now else box.slot)
            return
        edge.send(replace(now, shut=True), deployment=box.deployment)
        if box.is_open:
            edge.drain(box)
        self._join(box, now.slot)

    def remove_network(self) -> None:
        """Remove the network that edges and releases shared. Idempotent."""
        with suppress(Missing):
            self._client.api.remove_network(self._network)

    # ----------------------------------------------------------------------------------------------

    def _edge(self, spec: EdgeSpec) -> Edge:
        if spec.digest not in self._edges:
            self._edges[spec.digest] = Edge(
                self._client, self._instance, spec, self._network, self._boxes
            )
        return self._edges[spec.digest]

    def _slots(self, box: Box) -> set[str]:
        return set(SLOTS) & (box.aliases(self._network) or set())

    def _free_port(self, keep: str) -> None:
        """Stop the edges, but for the one with this digest, that publish the instance's port: it is
        about to be published anew."""
        for one in self._boxes.edges:
            other = one.labels.get(names.LABEL_CONFIG) != keep
            if other and one.is_open and self._instance.publish in one.ports:
                self._note("the edge is replaced, which interrupts service for a moment")
                self._stop(one)

    def _ensure_network(self) -> None:
        if self._has_network:
            return
        try:
            # Internal: it only links edge and release, and never becomes a container's way out,
            # so joining it moves no route and no published port.
            self._client.api.create_network(
                self._network,
                internal=True,
                check_duplicate=True,
                labels={names.LABEL_INSTANCE: self._instance.key},
            )
        except APIError as error:
            if error.status_code != 409:
                raise
        self._has_network = True

    def _join(self, box: Box, slot: str) -> None:
        """Let the edge find the container in this slot, and in no other. One that has another slot
        leaves the network for a moment: only do that to one without requests inside."""
        self._ensure_network()
        found = box.aliases(self._network)
        if found is not None and aliases_of(slot) <= found:
            return
        if found is not None:
            self._client.api.disconnect_container_from_network(box.id, self._network, force=True)
        connect(self._client, self._network, box, sorted(aliases_of(slot)))


def interruption(why: str) -> str:
    """A warning that a swap will not be seamless."""
    return f"{why}: a swap will interrupt service for a moment"


def spec_of(box: Box) -> EdgeSpec | None:
    """The edge that a release was made to stand behind; None if it stands alone."""
    text = box.labels.get(LABEL_EDGE)
    return EdgeSpec.model_validate_json(text) if text else None


def is_edge_of(box: Box, spec: EdgeSpec | None) -> bool:
    """Whether a container is the edge that is made from this."""
    return box.is_edge and spec is not None and box.labels[names.LABEL_CONFIG] == spec.digest
