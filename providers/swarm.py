"""The `swarm` kind: a service on a Docker Swarm.

Without a volume a release first runs as a service of its own, one task beside the one that serves,
at a port that Swarm assigns: so it is checked without traffic. When it is healthy, the public
service is updated in place to the same specification; Swarm does that by its own rules, and goes
back by itself if a task fails. That is then verified, never believed: a Swarm that went back has
ended well in its own eyes.

With a volume, or wherever else `Instance.stop_first` says so, the public service is scaled to none,
every task of it has ended, and then it gets the next release. Swarm's own stop-first order is not
enough for that: it starts the new task after a minute, whatever became of the old one. The task is
pinned to the node that has the volume.

What is current is said by a label of the public service. Everything else is a release's own
service, which stays, scaled to none, as long as a rollback may want it (`swarm_services`).

Secrets are environment variables of the tasks, where whoever may use a manager can read them; with
`secret_files` they are Swarm's own secrets instead, files under /run/secrets.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any, ClassVar

from docker.errors import APIError
from docker.errors import NotFound as Missing
from pydantic import BaseModel

from model import names
from model.base import Record
from model.errors import (
    Busy,
    ConfigurationError,
    Conflict,
    HealthCheckFailed,
    HelixError,
    NotFound,
    NothingToRestore,
    PlatformUnhealthy,
    Transient,
)
from model.instance import Instance
from model.platform import Capabilities, Endpoint, Identity, Phase, Release, Revision, Rollout
from model.swarm_errors import API, hint_of
from providers.base import CloudProvider, Context, superseded
from providers.containers import exec_in
from providers.engine import Engine, translated
from providers.swarm_preflight import check_swarm, fitting_nodes
from providers.swarm_services import (
    ENDED_STATES,
    LABEL_PROMOTED,
    Json,
    Known,
    Service,
    Services,
    Task,
)
from providers.swarm_spec import SwarmSettings, public_spec, release_spec, replicated
from providers.volumes import Volumes

REJECTED = 3
"""So many tasks that no node could run mean that none ever will: Swarm goes on trying for ever."""
SETTLED_SECONDS = 0.5
"""A task that ends at once is said to run for a moment."""
UNPLACED_SECONDS = 20.0
"""A task that no node fits for so long has failed: Swarm goes on waiting for ever."""
STOP_MARGIN = 30.0
"""Seconds beyond `stop_grace` in which a task must have ended."""
PROMOTE_SECONDS = 480.0
"""Within the activity's own time, and long enough for some tasks after each other."""
LOOK_SECONDS = 0.1
"""Between two looks at a change of the swarm."""
UPDATE_BUSY = {"updating", "rollback_started"}
UPDATE_STUCK = {"paused", "rollback_paused"}
"""What Swarm says of a service's last change. Once it goes back, the specification, and with it our
labels, are those of the release before: so «rollback» speaks of a way to what the labels name."""


class SwarmHandle(Record):
    """What any worker needs to go on with a release."""

    deployment: str


class SwarmProvider(CloudProvider):
    """Runs releases of an instance as services of a Swarm."""

    kind: ClassVar[str] = "swarm"
    capabilities: ClassVar[Capabilities] = Capabilities(volumes=True)
    Settings: ClassVar[type[BaseModel]] = SwarmSettings

    def __init__(self, instance: Instance, context: Context) -> None:
        super().__init__(instance, context)
        self._settings = SwarmSettings.model_validate(instance.target.settings)
        self._engine = Engine(self._settings.engine())

    @property
    def _services(self) -> Services:
        return Services(self._engine.client, self.instance, self.context.pull)

    @property
    def _api(self) -> Any:
        return self._engine.client.api

    def close(self) -> None:
        """Give back the connection."""
        self._engine.close()

    # Before anything changes ----------------------------------------------------------------------

    @translated(API)
    def identity(self) -> Identity:
        """The manager's name: a swarm knows no accounts."""
        info = self._engine.check()
        cluster = (info.get("Swarm") or {}).get("Cluster") or {}
        who = f"manager {info.get('Name', '')} of swarm {str(cluster.get('ID', 'none'))[:12]}"
        return Identity(where=self._engine.address.url, who=who)

    @translated(API)
    def preflight(self) -> None:
        """See `check_swarm`."""
        check_swarm(
            self._engine, self._services, self.instance, self._settings, self.context.notes.append
        )

    @translated(API)
    def current(self) -> Revision | None:
        """What the public service's label names."""
        known = self._services.known()
        public = known.public
        if public is None or not public.promoted:
            return None
        release = known.of(public.promoted)
        name = self._services.release_name(public.promoted)
        if release is None and public.deployment != public.promoted:
            return Revision(id=name, deployment=public.promoted)
        asleep = public.deployment == public.promoted and not public.replicas
        down = "is scaled to no task" if asleep else ""
        return (release or public).revision(name).model_copy(update={"down": down})

    # Start ----------------------------------------------------------------------------------------

    @translated(API)
    def start(self, release: Release, previous: Revision | None) -> str:
        """See `CloudProvider.start`. A stop-first release has traffic as soon as it answers."""
        services = self._services
        known = services.known()
        public = known.public
        self._fence(release, [*known.releases, *([public] if public else [])])
        needed = {release.deployment, *((public.deployment, public.promoted) if public else ())}
        for left in known.releases:
            if left.deployment not in needed and not left.promoted:
                self._forget(left.deployment, known)  # left by failed deployments
        if public is not None and (same := self._unchanged(release, known)):
            self._wake(public, same)
            return _handle(public.deployment)
        service = known.of(release.deployment) or services.create(self._spec(release, known))
        if service.deployment != release.deployment:
            raise Conflict(
                f"a service «{service.name}» that is not ours holds the release's name",
                hint=f"remove or rename it: docker service rm {service.name}",
            )
        if service.shape["stop_first"]:
            self._replace(
                service,
                promoted=public.promoted if public else "",
                refuse=lambda found: self._fence(release, [found]),
            )
        return _handle(release.deployment)

    def _fence(self, release: Release, services: Iterable[Service]) -> None:
        for service in services:
            if service.release > release.number:
                raise superseded(service.release, release.number)

    def _unchanged(self, release: Release, known: Known) -> Service | None:
        """The current release, if it is what is wanted."""
        public = known.public
        if public is None or public.promoted != public.deployment:
            return None
        found = public.labels.get(names.LABEL_ARTIFACT), public.labels.get(names.LABEL_CONFIG)
        wanted = release.artifact.identity, release.instance.config_digest
        return known.of(public.deployment) if found == wanted else None

    def _wake(self, public: Service, release: Service) -> None:
        """Run the current release again, if somebody scaled it to none."""
        count = release.shape["replicas"]

        def awake(public: Service) -> Json | None:
            return None if public.replicas else {**public.spec, "Mode": replicated(count)}

        self._services.change(public.name, awake)

    def _spec(self, release: Release, known: Known) -> Json:
        services = self._services
        values = {
            key: self.context.secret(reference).get_secret_value()
            for key, reference in self.instance.secrets.items()
        }
        name = services.release_name(release.deployment)
        secrets: list[Json] = []
        if self._settings.secret_files:
            secrets = [self._secret(name, key, value) for key, value in values.items()]
            values = {f"{key}_FILE": f"/run/secrets/{key}" for key in values}
        return release_spec(
            release,
            self._settings,
            name,
            values={**self.instance.env, **values},
            secrets=secrets,
            node=self._node(known) if self.instance.volumes else "",
        )

    def _secret(self, release: str, key: str, value: str) -> Json:
        """A Swarm secret of this release's own, as secrets cannot be changed; or the one that
        another attempt created."""
        name = f"{release}_{key}"
        labels = {
            names.LABEL_INSTANCE: self.instance.key,
            names.LABEL_DEPLOYMENT: release,
        }
        try:
            found = self._api.create_secret(name, value.encode(), labels=labels)
        except APIError as error:
            if error.status_code != 409:
                raise
            found = self._api.inspect_secret(name)
        file = {"Name": key, "UID": "0", "GID": "0", "Mode": 0o444}
        return {"SecretID": found["ID"], "SecretName": name, "File": file}

    def _node(self, known: Known) -> str:
        """The node that has the volume; for a first release, the one that it will be on."""
        release = known.of(known.public.deployment) if known.public else None
        if release is not None and (pinned := release.shape.get("node")):
            return str(pinned)
        return fitting_nodes(self._engine, self._settings, self._engine.client.info())[0]

    def _replace(self, release: Service, promoted: str, refuse: Callable[[Service], None]) -> None:
        """Let the public service have this release, when no task of another one is left.

        Args:
            promoted: the deployment whose release is current then.
            refuse: raises if the public service has what must not be replaced. It is asked at the
                end as well: a worker that the network was cut off from is told nothing.
        """
        services = self._services
        public = services.public()
        if public is None:
            spec = public_spec(release, services.public_name, promoted=promoted, rollback=False)
            public = services.create(spec)
        if _has(public, release):
            return
        self._empty(public.name, release)

        def take_over(public: Service) -> Json | None:
            if _has(public, release):
                return None
            refuse(public)
            return public_spec(release, public.name, promoted=promoted, rollback=False)

        services.change(public.name, take_over)

    def _empty(self, name: str, release: Service | None = None) -> None:
        """Scale a service to none, and return when no container of it can be open any more.

        Args:
            release: what it gets next. If another caller is faster and gives it that, there is
                nothing to wait for.

        Raises:
            PlatformUnhealthy: a task does not end, as on a node that does not answer.
        """

        def taken_over(service: Service | None) -> bool:
            return service is not None and release is not None and _has(service, release)

        def none(service: Service) -> Json | None:
            if taken_over(service) or not service.replicas:
                return None
            return {**service.spec, "Mode": replicated(0)}

        self._services.change(name, none)
        time.sleep(LOOK_SECONDS)  # until what was asked for just before this shows as tasks

        def open_tasks() -> list[Task]:
            return [one for one in self._services.tasks(name) if one.is_open]

        def ended() -> bool:
            left = open_tasks()
            if release is not None and {one.deployment for one in left} == {release.deployment}:
                return taken_over(self._services.find(name))
            return not left

        seconds = self.instance.stop_grace + STOP_MARGIN
        if not self._until(ended, seconds, f"stopping {name}"):
            left = ", ".join(f"{one.id} on node {one.node}" for one in open_tasks())
            raise PlatformUnhealthy(
                f"a task of {name} does not end: {left}",
                hint="see whether its node answers: docker node ls; nothing is started before, "
                "as it may have the volume open",
            )

    def _until(self, done: Callable[[], bool], seconds: float, doing: str) -> bool:
        """Look until something is done. A look that fails says nothing, and costs nothing: the next
        one follows at once.

        Returns:
            Whether it was done in time.
        """
        end = time.monotonic() + seconds
        while True:
            said = doing
            try:
                with translated(API):
                    if done():
                        return True
            except HelixError as error:
                if not error.retryable:
                    raise
                said = f"{doing}; no word of it right now: {error.message}"
            if time.monotonic() > end:
                return False
            self.context.report(said)
            time.sleep(LOOK_SECONDS)

    # While it runs --------------------------------------------------------------------------------

    def _home(self, handle: str) -> Service | None:
        """The service whose tasks are the handle's release: the public one if it has it, else the
        release's own."""
        deployment = SwarmHandle.model_validate_json(handle).deployment
        known = self._services.known()
        if known.public is not None and known.public.deployment == deployment:
            return known.public
        return known.of(deployment)

    def _tasks(self, service: Service) -> list[Task]:
        """Those of the release that the service has now, newest first."""
        found = self._services.tasks(service.name)
        return [one for one in found if one.deployment == service.deployment]

    @translated(API)
    def poll(self, handle: str) -> Rollout:
        """As many tasks as are wanted run, or one of them ended: Swarm would start it for ever."""
        service = self._home(handle)
        if service is None:
            return Rollout(phase=Phase.FAILED, detail="its service is gone")
        return self._rollout(service)

    def _rollout(self, service: Service) -> Rollout:
        if not service.replicas:
            return Rollout(phase=Phase.FAILED, detail="something else took its place")
        state, why = service.update
        tasks = self._tasks(service)
        if state in UPDATE_STUCK:
            return self._failed(service, tasks, f"Swarm says {state}: {why}")
        running = sum(one.runs for one in tasks)
        watched = state == "completed"  # by Swarm itself
        if running >= service.replicas and (watched or self._settled(tasks)):
            return Rollout(phase=Phase.RUNNING, detail=f"{running} of {service.replicas} run")
        if (problem := self._problem(tasks)) is not None:
            return self._failed(service, tasks, problem)
        newest = tasks[0].said if tasks else "no task yet"
        return Rollout(
            phase=Phase.STARTING, detail=f"{running} of {service.replicas} run: {newest}"
        )

    def _problem(self, tasks: Sequence[Task]) -> str | None:
        """Why a release that does not run never will."""
        rejected = [one for one in tasks if one.state == "rejected"]
        if len(rejected) >= REJECTED:
            return f"no node can run it: {_with_hint(rejected[0].said)}"
        ended = next((one for one in tasks if one.state in ENDED_STATES - {"rejected"}), None)
        if ended is not None:
            return _with_hint(ended.said)
        waiting = next((one for one in tasks if one.is_unplaced), None)
        if waiting is None or _seconds_between(waiting.created, self._now()) <= UNPLACED_SECONDS:
            return None
        return f"no node takes it: {_with_hint(waiting.said)}"

    def _settled(self, tasks: Sequence[Task]) -> bool:
        """Whether all that run have done so for a while. A node's clock may be ahead of ours."""
        now = self._now()
        ages = [_seconds_between(one.since, now) for one in tasks if one.runs]
        return not any(0 <= age < SETTLED_SECONDS for age in ages)

    def _now(self) -> str:
        """The manager's own clock."""
        return str(self._engine.client.info().get("SystemTime", ""))

    def _failed(self, service: Service, tasks: Sequence[Task], detail: str) -> Rollout:
        lines = deque(self._services.logs(service.name, tasks), maxlen=HelixError.EVIDENCE_LINES)
        return Rollout(phase=Phase.FAILED, detail=detail, logs="\n".join(lines))

    @translated(API)
    def endpoint(self, handle: str) -> Endpoint | None:
        """The port that Swarm assigned to the task, on its own node. None as long as it has none,
        and for a node that only the swarm itself reaches (see `probe`)."""
        task = self._running(handle)
        if task is None:
            return None
        port = task.host_port(self.instance.health_check.port or self.instance.port)
        if port is None:
            raise Transient("Swarm does not say yet which port the task has")
        if task.node == self._own_node:
            host, port = self._engine.reach(port)
        elif self._engine.address.scheme == "ssh":
            return None  # the tunnel leads to the manager's own machine only
        else:
            host = str(self._api.inspect_node(task.node)["Status"]["Addr"])
        return Endpoint(url=f"http://{host}:{port}")

    @property
    def _own_node(self) -> str:
        return str((self._engine.client.info().get("Swarm") or {}).get("NodeID", ""))

    def _running(self, handle: str) -> Task | None:
        service = self._home(handle)
        return next((one for one in self._tasks(service) if one.runs), None) if service else None

    @translated(API)
    def probe(self, handle: str) -> str:
        """Swarm's own word: a task of an image with a HEALTHCHECK runs only once that succeeds."""
        task = self._running(handle)
        if task is None:
            return self.poll(handle).detail
        if self.endpoint(handle) is not None:
            return "its task has only just started"
        return ""

    @translated(API)
    def run_check(self, handle: str, command: Sequence[str], timeout: float) -> tuple[int, str]:
        """Inside the task's container, if that is on the node we speak to. On any other node Swarm
        runs the command itself, as the service's health check."""
        task = self._running(handle)
        if task is None:
            return 1, self.poll(handle).detail
        if task.node != self._own_node:
            return 0, "Swarm says it is healthy"
        return exec_in(self._engine.client, task.container, command, timeout)

    # Promote and restore --------------------------------------------------------------------------

    @translated(API)
    def promote(self, handle: str) -> Revision:
        """See `CloudProvider.promote`. Returns when Swarm is done with it, and every task that is
        wanted runs this release.

        Raises:
            HealthCheckFailed: Swarm gave the update up, or went back by itself.
            Busy: Swarm is not done with it.
        """
        deployment = SwarmHandle.model_validate_json(handle).deployment
        known = self._services.known()
        release = known.of(deployment)
        if release is None:
            raise HealthCheckFailed("the release cannot take the traffic: its service is gone")
        self._refuse_if_superseded(release, deployment, known.public)
        self._take_over(release)
        self._settle(deployment)
        self._services.change(release.name, _retired)
        return release.revision(release.name)

    def _take_over(self, release: Service) -> None:
        """Tell the public service that it is this release now."""
        services, deployment = self._services, release.deployment
        wanted = public_spec(release, services.public_name, promoted=deployment, rollback=True)

        def how(public: Service) -> Json | None:
            if public.deployment != deployment:
                return wanted
            if public.promoted == deployment:
                return None
            spec = public.spec
            return {**spec, "Labels": {**spec["Labels"], LABEL_PROMOTED: deployment}}

        if not services.change(services.public_name, how):
            services.create(wanted)

    def _settle(self, deployment: str) -> None:
        """Wait until the public service is what it was told to be."""
        found = Rollout(phase=Phase.STARTING)

        def done() -> bool:
            nonlocal found
            public = self._services.public()
            if public is None or public.deployment != deployment:
                why = public.update[1] if public else "it is gone"
                found = Rollout(phase=Phase.FAILED, detail=f"Swarm went back: {why}")
                return True
            found = self._rollout(public)
            busy = public.update[0] in UPDATE_BUSY
            return found.phase is Phase.FAILED or (found.phase is Phase.RUNNING and not busy)

        if not self._until(done, PROMOTE_SECONDS, "waiting until Swarm has replaced its tasks"):
            raise Busy(f"Swarm is not done: {found.detail}")
        if found.phase is Phase.FAILED:
            raise HealthCheckFailed(
                f"the release cannot take the traffic: {found.detail}", evidence=found.logs
            )

    def _refuse_if_superseded(
        self, release: Service, deployment: str, public: Service | None
    ) -> None:
        if public is None or public.deployment == deployment:
            return
        if public.release > release.release and public.promoted == public.deployment:
            raise Conflict(
                f"release {public.release} has taken over since",
                hint="nothing is to be done here; see: helix status",
            )

    @translated(API)
    def restore(self, deployment: str, previous: Revision | None) -> str | None:
        """See `CloudProvider.restore`. If Swarm was faster, there is nothing left to go back to."""
        known = self._services.known()
        if previous is None:
            self._clear(deployment, known)
            return None
        release = known.of(previous.deployment)
        if release is None:
            raise NothingToRestore(
                f"the service {previous.id} of release {previous.release} is gone",
                hint="push a release that works",
            )
        public = known.public
        if public is None or not _has(public, release):
            refuse = partial(self._refuse_if_superseded, release, deployment)
            refuse(public)
            self._go_back(release, refuse)
        self._forget(deployment, known)
        return _handle(previous.deployment)

    def _go_back(self, release: Service, refuse: Callable[[Service], None]) -> None:
        # Two releases may differ in whether they have a volume: the stricter one decides.
        if self.instance.stop_first or release.shape["stop_first"]:
            self._replace(release, promoted=release.deployment, refuse=refuse)
            return
        wanted = public_spec(
            release, self._services.public_name, promoted=release.deployment, rollback=False
        )

        def back(public: Service) -> Json | None:
            if _has(public, release):
                return None
            refuse(public)
            return wanted

        if not self._services.change(self._services.public_name, back):
            self._services.create(wanted)

    def _clear(self, deployment: str, known: Known) -> None:
        """Leave nothing of a first deployment but its volume, which may be another node's."""
        if known.public is not None and known.public.deployment == deployment:
            self._remove(known.public.name)
        self._forget(deployment, known)

    def _forget(self, deployment: str, known: Known) -> None:
        """Remove a deployment's own service and its secrets. Idempotent."""
        if (service := known.of(deployment)) is not None:
            self._remove(service.name)
        name = self._services.release_name(deployment)
        self._remove_secrets(lambda release: release == name)

    def _remove(self, name: str) -> None:
        """Remove a service, once its tasks have ended: Swarm forgets them with it, and they live
        on for a while."""
        self._empty(name)
        self._services.remove(name)

    def _remove_secrets(self, which: Callable[[str], bool]) -> None:
        label = f"{names.LABEL_INSTANCE}={self.instance.key}"
        for secret in self._api.secrets(filters={"label": label}):
            labels = secret["Spec"].get("Labels") or {}
            if which(labels.get(names.LABEL_DEPLOYMENT, "")):
                try:
                    self._api.remove_secret(secret["ID"])
                except Missing:
                    continue

    # For people -----------------------------------------------------------------------------------

    def public_url(self) -> str:
        """The published port on the manager's machine."""
        publish = self.instance.publish
        return f"http://{self._engine.address.machine}:{publish}" if publish is not None else ""

    def logs(
        self, *, since: datetime | None = None, tail: int | None = None, follow: bool = False
    ) -> Iterator[str]:
        """Standard output and standard error of the current release's tasks.

        Raises:
            NotFound: nothing runs.
        """
        with translated(API):
            public = self._services.public()
            if public is None:
                raise NotFound(
                    f"nothing was deployed to {self.instance.key}",
                    hint=f"run: helix push {self.instance.name}",
                )
            after = int(since.timestamp()) if since else 0
            tasks = self._tasks(public)
            if follow and tail is None:
                yield from self._services.logs(public.name, tasks, since=after, follow=True)
                return
            written = self._services.logs(public.name, tasks, since=after)
            yield from deque(written, maxlen=tail)
            if follow:
                now = int(time.time())
                yield from self._services.logs(public.name, tasks, since=now, follow=True)

    # Tidy up --------------------------------------------------------------------------------------

    @translated(API)
    def prune(self, keep: Sequence[Revision]) -> None:
        """See `CloudProvider.prune`. Images stay: they are on nodes that we do not speak to."""
        known = self._services.known()
        public = known.public
        if public is None:
            return
        kept = {public.deployment, public.promoted, *(one.deployment for one in keep)}
        old = {
            one.name
            for one in known.releases
            if one.deployment not in kept and one.release < public.release
        }
        for name in sorted(old):
            self._remove(name)
        # Those of a release whose service an attempt before this one removed go as well.
        left = {one.name for one in known.releases} - old
        self._remove_secrets(lambda release: release not in left)

    @translated(API)
    def destroy(self, *, data: bool) -> None:
        """Remove services and secrets; the volumes only if `data`.

        Raises:
            ConfigurationError: a volume is on a node that we do not speak to.
        """
        known = self._services.known()
        nodes = {str(one.shape.get("node") or "") for one in known.releases} - {""}
        if data and (elsewhere := nodes - {self._own_node}):
            self._refuse_data(elsewhere)
        for service in (known.public, *known.releases):
            if service is not None:
                self._remove(service.name)
        self._remove_secrets(lambda release: True)
        if data:
            self._destroy_volumes()

    def _refuse_data(self, nodes: Iterable[str]) -> None:
        host = str(self._api.inspect_node(next(iter(nodes)))["Description"]["Hostname"])
        volumes = " ".join(one.path or one.name for one in self.instance.volumes)
        raise ConfigurationError(
            f"the data is on the node {host}, which is not the one we speak to",
            hint=f"run helix destroy without --data, then on {host}: docker volume rm {volumes}",
        )

    def _destroy_volumes(self) -> None:
        """The containers of tasks that ended are removed by their node, a while later."""
        local = self._engine.address.is_local
        volumes = Volumes(self._engine.client, self.instance, local=local)

        def gone() -> bool:
            try:
                volumes.destroy()
            except APIError as error:
                if "volume is in use" not in str(error.explanation):
                    raise
                return False
            return True

        if not self._until(gone, STOP_MARGIN, "removing the volume"):
            raise Busy("the volume is still in use", hint="see: docker ps --all")


def _has(public: Service, release: Service) -> bool:
    """Whether the public service runs a release: it may have been scaled to none for the next."""
    return public.deployment == release.deployment and public.replicas > 0


def _retired(release: Service) -> Json | None:
    """A release's own service, once the public one has the release."""
    if release.promoted and not release.replicas:
        return None
    spec = release.spec
    labels = {**spec["Labels"], LABEL_PROMOTED: release.deployment}
    return {**spec, "Labels": labels, "Mode": replicated(0)}


def _handle(deployment: str) -> str:
    return SwarmHandle(deployment=deployment).model_dump_json()


def _with_hint(said: str) -> str:
    hint = hint_of(said)
    return f"{said} ({hint})" if hint else said


def _seconds_between(earlier: str, later: str) -> float:
    """Between two moments as the engine writes them, to the nanosecond at most."""
    moments = [re.sub(r"(\.\d{1,6})\d*", r"\1", text) for text in (earlier, later)]
    first, last = (datetime.fromisoformat(text) for text in moments)
    return (last - first).total_seconds()
