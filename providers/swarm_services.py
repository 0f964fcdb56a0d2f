"""The services and tasks of one instance on a Swarm: how they are found, changed and read.

Two sorts of service carry the instance's label:

    helix-shop-prod              the one that people reach: it has the published port, and is
                                 updated in place from one release to the next
    helix-shop-prod_1f0c22d9     a release: its specification, kept as long as a rollback may want
                                 it. Its own task only runs while the release is checked

Swarm keeps one earlier specification of a service, and forgets it when it rolls back by itself; so
a release's own service is where we find it again, secrets and all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import docker
from docker.errors import APIError
from docker.errors import NotFound as Missing

from model import names
from model.errors import Busy
from model.instance import Instance
from model.platform import Revision
from providers.base import PullCredentials
from providers.engine import lines_of

Json = dict[str, Any]

LABEL_PROMOTED = "helix.promoted"
"""On the public service: the deployment whose release is current. On a release: that it was."""
LABEL_SHAPE = "helix.shape"
"""On a release: what of its specification only counts in the public service, as JSON."""

OPEN_STATES = {"assigned", "accepted", "preparing", "ready", "starting", "running"}
"""Of a task that a container belongs to, or may in a moment."""
ENDED_STATES = {"complete", "failed", "rejected", "orphaned"}
"""Of a task that ended without being asked to."""
ATTEMPTS = 10
"""How often a change that others came before is begun anew."""


@dataclass(frozen=True)
class Service:
    """One service, as it was when it was looked at."""

    attrs: Json

    @property
    def spec(self) -> Json:
        """A copy of its specification, to be changed."""
        return deepcopy(self.attrs["Spec"])

    @property
    def name(self) -> str:
        """Of the service."""
        return str(self.attrs["Spec"]["Name"])

    @property
    def labels(self) -> dict[str, str]:
        """All of them."""
        return dict(self.attrs["Spec"].get("Labels") or {})

    @property
    def deployment(self) -> str:
        """The deployment whose release it runs."""
        return self.labels.get(names.LABEL_DEPLOYMENT, "")

    @property
    def release(self) -> int:
        """That release's number; 0 if it is not ours."""
        return int(self.labels.get(names.LABEL_RELEASE, "0"))

    @property
    def promoted(self) -> str:
        """See `LABEL_PROMOTED`."""
        return self.labels.get(LABEL_PROMOTED, "")

    @property
    def shape(self) -> Json:
        """See `LABEL_SHAPE`: publish, replicas, order."""
        return dict(json.loads(self.labels.get(LABEL_SHAPE, "{}")))

    @property
    def replicas(self) -> int:
        """How many tasks are wanted."""
        return int(self.attrs["Spec"]["Mode"].get("Replicated", {}).get("Replicas", 0))

    @property
    def update(self) -> tuple[str, str]:
        """How far Swarm is with the last change, in its own words, and why. Both are empty if it
        had nothing to replace."""
        found = self.attrs.get("UpdateStatus") or {}
        return str(found.get("State") or ""), str(found.get("Message") or "")

    def revision(self, service: str) -> Revision:
        """What the pipeline keeps of the release it runs.

        Args:
            service: the name of the release's own service.
        """
        return Revision(
            id=service,
            release=self.release,
            deployment=self.deployment,
            artifact=self.labels.get(names.LABEL_ARTIFACT, ""),
            config=self.labels.get(names.LABEL_CONFIG, ""),
        )


@dataclass(frozen=True)
class Task:
    """One task, as it was when it was looked at."""

    attrs: Json

    @property
    def id(self) -> str:
        """Swarm's."""
        return str(self.attrs["ID"])

    @property
    def deployment(self) -> str:
        """The deployment whose release it belongs to."""
        labels = self.attrs["Spec"].get("ContainerSpec", {}).get("Labels") or {}
        return str(labels.get(names.LABEL_DEPLOYMENT, ""))

    @property
    def state(self) -> str:
        """What it does."""
        return str(self.attrs["Status"]["State"])

    @property
    def wanted(self) -> str:
        """What it should do."""
        return str(self.attrs["DesiredState"])

    @property
    def runs(self) -> bool:
        """Whether it runs, and should."""
        return self.state == "running" and self.wanted == "running"

    @property
    def is_open(self) -> bool:
        """Whether its container is there, or may be in a moment."""
        return self.state in OPEN_STATES

    @property
    def is_unplaced(self) -> bool:
        """Whether no node fits it, at the moment."""
        return self.state == "pending" and "no suitable node" in self.said

    @property
    def node(self) -> str:
        """The id of its node; empty as long as it has none."""
        return str(self.attrs.get("NodeID") or "")

    @property
    def container(self) -> str:
        """The id of its container; empty as long as there is none."""
        return str((self.attrs["Status"].get("ContainerStatus") or {}).get("ContainerID") or "")

    @property
    def said(self) -> str:
        """Why it is where it is."""
        status = self.attrs["Status"]
        code = (status.get("ContainerStatus") or {}).get("ExitCode")
        text = str(status.get("Err") or status.get("Message") or self.state)
        if self.state in ("failed", "complete") and code is not None:
            return f"exited with code {code}" if "non-zero exit" in text or not code else text
        return text

    @property
    def since(self) -> str:
        """When its state was last told."""
        return str(self.attrs["Status"]["Timestamp"])

    @property
    def created(self) -> str:
        """When it was made: sorts as text."""
        return str(self.attrs["CreatedAt"])

    def host_port(self, port: int) -> int | None:
        """The node's port for one of the container's, that Swarm assigned; None if not (yet)."""
        status = self.attrs["Status"].get("PortStatus") or {}
        for each in status.get("Ports") or ():
            if each.get("PublishMode") == "host" and each.get("TargetPort") == port:
                return int(each["PublishedPort"])
        return None


@dataclass(frozen=True)
class Known:
    """The services of one instance, as they were at one moment."""

    public: Service | None
    """The one that people reach."""
    releases: Sequence[Service]
    """All of them, oldest first."""

    def of(self, deployment: str) -> Service | None:
        """A deployment's release."""
        return next((one for one in self.releases if one.deployment == deployment), None)


class Services:
    """The services of one instance."""

    def __init__(
        self,
        client: docker.DockerClient,
        instance: Instance,
        pull: Callable[[], PullCredentials | None],
    ) -> None:
        self._api: Any = client.api
        self._label = f"{names.LABEL_INSTANCE}={instance.key}"
        self._pull = pull
        self.public_name = service_name(instance)

    # Read -----------------------------------------------------------------------------------------

    def release_name(self, deployment: str) -> str:
        """The name of a release's own service."""
        return f"{self.public_name}_{names.short_id(deployment)}"

    def find(self, name: str) -> Service | None:
        """One service by name."""
        try:
            return Service(self._api.inspect_service(name))
        except Missing:
            return None

    def public(self) -> Service | None:
        """The one that people reach."""
        return self.find(self.public_name)

    def known(self) -> Known:
        """All of the instance's, by one call."""
        ours = [Service(one) for one in self._api.services(filters={"label": self._label})]
        public = next((one for one in ours if one.name == self.public_name), None)
        releases = [one for one in ours if one is not public]
        return Known(public, sorted(releases, key=lambda one: one.release))

    def everyones(self) -> list[Service]:
        """All services of the swarm, whoever made them."""
        return [Service(one) for one in self._api.services()]

    def tasks(self, service: str) -> list[Task]:
        """Those of a service, newest first; none if it is gone."""
        try:
            found = self._api.tasks(filters={"service": service})
        except Missing:
            return []
        return sorted((Task(one) for one in found), key=lambda one: one.created, reverse=True)

    def logs(
        self, service: str, tasks: Iterable[Task], *, since: int = 0, follow: bool = False
    ) -> Iterator[str]:
        """The output of some of its tasks, oldest line first."""
        wanted = {one.id for one in tasks}
        try:
            chunks = self._api.service_logs(
                service, stdout=True, stderr=True, details=True, follow=follow, since=since
            )
        except Missing:
            return
        for line in lines_of(chunks):
            about, _, text = line.partition(" ")
            # details=True: each line begins with the labels of its task.
            found = re.search(r"com\.docker\.swarm\.task\.id=(\w+)", about)
            if found and found[1] in wanted:
                yield text

    # Change ---------------------------------------------------------------------------------------

    def create(self, spec: Json) -> Service:
        """Create a service; or find the one that another attempt created."""
        self._log_in()
        try:
            self._api.create_service(
                spec["TaskTemplate"],
                name=spec["Name"],
                labels=spec["Labels"],
                mode=spec["Mode"],
                update_config=spec["UpdateConfig"],
                rollback_config=spec["RollbackConfig"],
                endpoint_spec=spec["EndpointSpec"],
            )
        except APIError as error:
            if error.status_code != 409 or "name conflicts" not in str(error.explanation):
                raise
        found = self.find(spec["Name"])
        if found is None:
            raise Busy(f"the service {spec['Name']} is being removed")
        return found

    def change(self, name: str, how: Callable[[Service], Json | None]) -> bool:
        """Change a service's specification. Swarm refuses a change of what is not the newest
        version; then it is read again, and `how` asked again.

        Args:
            how: the wanted specification; None if nothing is to be done.

        Returns:
            Whether the service is there.
        """
        for _ in range(ATTEMPTS):
            service = self.find(name)
            if service is None:
                return False
            spec = how(service)
            if spec is None:
                return True
            try:
                self._update(service, spec)
            except APIError as error:
                if "update out of sequence" not in str(error.explanation):
                    raise
                continue
            return True
        raise Busy(f"the service {name} keeps being changed by others")

    def _update(self, service: Service, spec: Json) -> None:
        if spec["TaskTemplate"] != service.attrs["Spec"]["TaskTemplate"]:
            self._log_in()
        self._api.update_service(
            service.attrs["ID"],
            service.attrs["Version"]["Index"],
            task_template=spec["TaskTemplate"],
            name=spec["Name"],
            labels=spec["Labels"],
            mode=spec["Mode"],
            update_config=spec.get("UpdateConfig"),
            rollback_config=spec.get("RollbackConfig"),
            endpoint_spec=spec.get("EndpointSpec"),
        )

    def remove(self, name: str) -> None:
        """Remove a service. Idempotent."""
        try:
            self._api.remove_service(name)
        except Missing:
            return

    def _log_in(self) -> None:
        """Let docker-py send the registry's credentials along, which the nodes pull with: it takes
        them from where `docker login` would have put them, by the host in the image's name."""
        credentials = self._pull()
        if credentials is not None:
            self._api._auth_configs.add_auth(
                credentials.registry,
                {
                    "username": credentials.username,
                    "password": credentials.password.get_secret_value(),
                    "serveraddress": credentials.registry,
                },
            )


def service_name(instance: Instance) -> str:
    """The name of the public service: `helix-<project>-<instance>`, as a name in DNS."""
    return re.sub(r"[^a-z0-9_-]+", "-", names.docker_name(instance.project, instance.name))
