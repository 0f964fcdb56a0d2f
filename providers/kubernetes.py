"""Runs releases on a Kubernetes cluster, in one namespace.

What serves is told by one fact: the deployment that the service selects, which `promote` writes.

A release that may run beside the one before is a Deployment of its own. The service selects it
once it is healthy; the one before is scaled to zero and stays, so that a rollback only scales it up
again and turns the service back.

A release that must not run twice at once (a volume, or `strategy = "stop-first"`) is the template
of the instance's StatefulSet, whose only pod is replaced: its name is the lock; the controller
starts no pod before the one before has ended, whatever we or anybody else may ask. Its earlier
templates are kept by the cluster as ControllerRevisions, which is what a rollback brings back. The
claim of a volume belongs to no release, and only `destroy` deletes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, ClassVar

from pydantic import BaseModel

from model.errors import (
    Busy,
    Conflict,
    HealthCheckFailed,
    HelixError,
    NotFound,
    NothingToRestore,
    PermissionDenied,
    Transient,
)
from model.instance import Instance
from model.names import LABEL_DEPLOYMENT, LABEL_INSTANCE
from model.platform import Capabilities, Endpoint, Identity, Phase, Release, Revision, Rollout
from providers import kubernetes_objects as objects
from providers import kubernetes_rollout as rollout
from providers.base import CloudProvider, Context, superseded
from providers.kubernetes_api import MANAGER, Api
from providers.kubernetes_logs import Logs
from providers.kubernetes_objects import Front, Handle, KubernetesSettings, Marks
from providers.kubernetes_permissions import FORWARD, Permissions, may, needed
from providers.kubernetes_preflight import Preflight, who
from providers.kubernetes_reach import Forward, connect, execute

Json = dict[str, Any]

SETTLE_SECONDS = 30.0
"""For how long a call waits for the cluster before it leaves that to the next attempt."""
LOOK_SECONDS = 0.1
DRAIN_SECONDS = 1.0
"""Between the moment the cluster says that the traffic has moved and the end of the release before:
nodes learn of it a little later."""
EVIDENCE = 20
"""Log lines of a failed pod."""


class KubernetesProvider(CloudProvider):
    """One instance in one namespace."""

    kind: ClassVar[str] = "kubernetes"
    capabilities: ClassVar[Capabilities] = Capabilities(start_first=True, volumes=True)
    Settings: ClassVar[type[BaseModel]] = KubernetesSettings

    def __init__(self, instance: Instance, context: Context) -> None:
        super().__init__(instance, context)
        self._settings = own = KubernetesSettings.model_validate(instance.target.settings)
        self._name = objects.base_name(instance)
        self._api = Api(own.kubeconfig or "", own.context or "", own.namespace)
        self._logs = Logs(self._api, self._current_pods)
        self._forwards: list[Forward] = []

    def close(self) -> None:
        """Give back connections and forwarded ports."""
        for one in self._forwards:
            one.close()
        self._api.close()

    # Before anything changes ----------------------------------------------------------------------

    def identity(self) -> Identity:
        """Whom the API server takes us for."""
        name, expires_at = who(self._api)
        return Identity(
            where=f"Kubernetes {self._api.host}, namespace {self._api.namespace}",
            who=name,
            expires_at=expires_at,
        )

    def lacking(self) -> list[str]:
        """What the API server would refuse us in the namespace."""
        return Permissions(self._api).lacking(needed(self.instance, self._settings))

    def preflight(self) -> None:
        """See `providers.kubernetes_preflight`."""
        Preflight(self._api, self.instance, self._settings, self.context.notes).run()
        service = self._service()
        if service is not None:
            self._refuse_stranger(service)

    def _refuse_stranger(self, service: Json) -> None:
        owner = (service["metadata"].get("annotations") or {}).get(LABEL_INSTANCE, "")
        if owner != self.instance.key:
            raise Conflict(
                f"the service {self._name} in the namespace {self._api.namespace} belongs to "
                f"{owner or 'somebody else'}",
                hint="rename the instance or the project, or use another namespace",
            )

    # What is there --------------------------------------------------------------------------------

    def current(self) -> Revision | None:
        """The release that the service selects."""
        chosen = objects.selected(self._service())
        return self._find_revision(chosen) if chosen else None

    def _service(self) -> Json | None:
        return self._api.find("Service", self._name)

    def _deployments(self) -> list[Json]:
        return self._api.select("Deployment", objects.whose(self.instance))

    def _stateful_set(self) -> Json | None:
        """The StatefulSet, if it is there and not on its way out."""
        found = self._api.find("StatefulSet", self._name)
        gone = found is None or found["metadata"].get("deletionTimestamp")
        return None if gone else found

    def _pods(self, chosen: str = "") -> list[Json]:
        """The pods of one deployment's release; of all releases if it is empty."""
        labels = objects.whose(self.instance)
        if chosen:
            labels[LABEL_DEPLOYMENT] = chosen
        return self._api.select("Pod", labels)

    def _current_pods(self) -> list[Json]:
        return self._pods(objects.selected(self._service()) or objects.NOBODY)

    def _claims(self) -> list[Json]:
        return self._api.select("PersistentVolumeClaim", objects.whose(self.instance))

    def _revisions(self) -> list[Json]:
        """The templates that the StatefulSet has had, as the cluster keeps them."""
        return self._api.select("ControllerRevision", objects.whose(self.instance))

    def _find_revision(self, chosen: str) -> Revision | None:
        """The release of a deployment, by the label that names it."""
        for one in self._deployments():
            if Marks.of(one).label == chosen and not one["metadata"].get("deletionTimestamp"):
                return Marks.of(one).revision("Deployment", one["metadata"]["name"])
        for one in self._revisions():
            if _marks(one).label == chosen:
                return _marks(one).revision("StatefulSet", one["metadata"]["name"])
        return None

    def _newest(self, *, but: str = "") -> int:
        """The number of the newest release that is there, but for one deployment's."""
        found = [Marks.of(one) for one in self._deployments()]
        if (single := self._stateful_set()) is not None:
            found.append(Marks.of(single["spec"]["template"]))
        return max((one.release for one in found if one.label != but), default=0)

    # Start ----------------------------------------------------------------------------------------

    def start(self, release: Release, previous: Revision | None) -> str:
        """See `CloudProvider.start`. All it makes has a name of the deployment's, or is applied:
        two callers, or an attempt after another, make the same."""
        newest = self._newest()
        if newest > release.number:
            raise superseded(newest, release.number)
        service = self._service()
        if service is not None:
            self._refuse_stranger(service)
            if (handle := self._unchanged(release, service)) is not None:
                return handle.model_dump_json(exclude_defaults=True)
        template = self._template(release)
        if service is None:
            # Now, so that a load balancer is made while the release starts. It selects nobody.
            front = objects.front(release.instance)
            self._api.create(objects.service(release.instance, front, objects.NOBODY))
        if release.instance.stop_first:
            self._stop_deployments()
            self._replace(template)
            kind, name = "StatefulSet", self._name
        else:
            wanted = objects.deployment(release, self._settings, template)
            self._api.apply(wanted)
            kind, name = "Deployment", wanted["metadata"]["name"]
        label = objects.label(release.deployment)
        return Handle(
            kind=kind, name=name, deployment=label, release=release.number
        ).model_dump_json(exclude_defaults=True)  # fmt: skip

    def _template(self, release: Release) -> Json:
        """The release's pods, and first what they refer to."""
        instance, secret = release.instance, ""
        objects.template(release, self._settings)  # refuse before anything is made
        if instance.secrets:
            values = {
                name: self.context.secret(reference) for name, reference in instance.secrets.items()
            }
            wanted = objects.secret(release, values)
            self._api.create(wanted)
            secret = wanted["metadata"]["name"]
        pull = self._renew_pull_secret()
        for volume in instance.volumes:
            self._api.create(objects.claim(instance, volume, self._settings))
        return objects.template(release, self._settings, secret=secret, pull=pull)

    def _renew_pull_secret(self) -> str:
        """The name of the Secret with the registry's credentials; empty if it needs none."""
        found = self.context.pull()
        if found is None:
            return ""
        wanted = objects.pull_secret(self.instance, found)
        self._api.apply(wanted)
        return str(wanted["metadata"]["name"])

    def _unchanged(self, release: Release, service: Json) -> Handle | None:
        """The current release, if it runs well and would be the same."""
        chosen = objects.selected(service)
        current = self._find_revision(chosen) if chosen else None
        wanted = release.artifact.identity, release.instance.config_digest
        if current is None or (current.artifact, current.config) != wanted or not wanted[0]:
            return None
        handle = self._handle(current, release.number)
        found = self._live(handle)
        healthy = found is not None and rollout.available(found, self._pods(chosen))
        return handle if healthy else None

    def _handle(self, revision: Revision, release: int, undo: str = "") -> Handle:
        single = revision.detail["kind"] == "StatefulSet"
        return Handle(
            kind="StatefulSet" if single else "Deployment",
            name=self._name if single else revision.detail["name"],
            deployment=objects.label(revision.deployment),
            release=release,
            undo=undo,
        )

    def _stop_deployments(self) -> None:
        """End the pods of releases that could run beside others: this one may not."""
        self._scale_down(self._deployments())
        self._until(
            lambda: all(objects.is_single(one) for one in self._pods()), "the release before ends"
        )

    def _scale_down(self, found: Sequence[Json]) -> None:
        for one in found:
            if one["spec"]["replicas"]:
                self._api.patch("Deployment", one["metadata"]["name"], {"spec": {"replicas": 0}})

    def _replace(self, template: Json) -> None:
        """Give the StatefulSet this template, and end the pod of any other one. The controller
        starts the new pod when the old one has ended, and not before."""
        self._api.apply(objects.stateful_set(self.instance, template))

        def seen() -> bool:
            found = self._stateful_set()
            return found is not None and rollout.is_seen(found)

        # Else it may answer the end of the pod with another one of the template before.
        self._until(seen, "the StatefulSet's controller sees the release")
        wanted = Marks.of(template).label
        for pod in self._pods():
            marks, about = Marks.of(pod), pod["metadata"]
            if (
                marks.label != wanted
                and objects.is_single(pod)
                and not about.get("deletionTimestamp")
            ):
                self._api.delete("Pod", about["name"], uid=about["uid"])

    # While it runs --------------------------------------------------------------------------------

    def poll(self, handle: str) -> Rollout:
        """See `providers.kubernetes_rollout`."""
        wanted = Handle.model_validate_json(handle)
        word = self._word(wanted)
        logs = ""
        if word.phase is Phase.FAILED and word.pod:
            logs = self._logs.last_words(word.pod, EVIDENCE)
        return Rollout(phase=word.phase, detail=word.detail, logs=logs)

    def _live(self, wanted: Handle) -> Json | None:
        """The workload, as long as it is to run the handle's release."""
        if wanted.kind == "Deployment":
            return self._api.find("Deployment", wanted.name)
        found = self._stateful_set()
        if found is None or Marks.of(found["spec"]["template"]).label != wanted.deployment:
            return None
        return found

    def _word(self, wanted: Handle) -> rollout.Word:
        found = self._live(wanted)
        if found is None:
            return rollout.Word(Phase.FAILED, f"the {wanted.kind} {wanted.name} is gone")
        ours = self._pods(wanted.deployment)
        if wanted.kind == "Deployment":
            return rollout.judge_deployment(found, ours)
        before = [
            one
            for one in self._pods()
            if objects.is_single(one) and Marks.of(one).label != wanted.deployment
        ]
        since = rollout.applied_at(found, MANAGER)
        return rollout.judge_stateful_set(
            found,
            ours,
            before,
            "" if ours else self._refusal(since),
            now=self._api.now,
            since=since,
            deadline=self._settings.start_deadline,
        )

    def _refusal(self, since: datetime | None) -> str:
        """Why the StatefulSet cannot make its pod; empty if there is no word of it."""
        with suppress(PermissionDenied):
            fields = f"involvedObject.name={self._name},reason=FailedCreate"
            return rollout.last_message(self._api.select("Event", fields=fields), since)
        return ""

    def endpoint(self, handle: str) -> Endpoint | None:
        """A port of this machine that leads to a pod, through the API server. None where that is
        not allowed: then the cluster's own readiness decides."""
        wanted = Handle.model_validate_json(handle)
        port = self.instance.health_check.port or self.instance.port

        def reach() -> Any:
            return connect(self._api, self._running_pod(wanted), port)

        if not may(self._api, FORWARD):
            self.context.report("pods cannot be reached from here: their readiness decides")
            return None
        forward = Forward(reach)
        self._forwards.append(forward)
        return Endpoint(url=f"http://127.0.0.1:{forward.port}")

    def _running_pod(self, wanted: Handle) -> str:
        for one in self._pods(wanted.deployment):
            living = not one["metadata"].get("deletionTimestamp")
            if living and rollout.judge_pod(one).phase is Phase.RUNNING:
                return str(one["metadata"]["name"])
        raise Transient("no pod of the release runs right now")

    def probe(self, handle: str) -> str:
        """What the nodes' readiness probes say."""
        wanted = Handle.model_validate_json(handle)
        found = self._live(wanted)
        if found is None:
            return f"the {wanted.kind} {wanted.name} is gone"
        ours = self._pods(wanted.deployment)
        return "" if rollout.available(found, ours) else rollout.unready(ours)

    def run_check(self, handle: str, command: Sequence[str], timeout: float) -> tuple[int, str]:
        """Run the command in a pod's container."""
        pod = self._running_pod(Handle.model_validate_json(handle))
        return execute(self._api, pod, command, timeout)

    # Promote and restore --------------------------------------------------------------------------

    def promote(self, handle: str) -> Revision:
        """See `CloudProvider.promote`. Returns when the cluster says that the traffic has moved and
        the release before has been told to end.

        Raises:
            HealthCheckFailed: the cluster gave the release up meanwhile.
            Busy: not all pods are ready.
        """
        wanted = Handle.model_validate_json(handle)
        if (newest := self._newest(but=wanted.undo)) > wanted.release:
            raise superseded(newest, wanted.release)
        self._await_ready(wanted)
        found = self._live(wanted)
        revision = self._find_revision(wanted.deployment)
        if found is None or revision is None:
            raise NotFound(f"the {wanted.kind} {wanted.name} is gone")
        moved = self._turn_to(wanted, Front.of(found["spec"]["template"]))
        others = [one for one in self._deployments() if Marks.of(one).label != wanted.deployment]
        if moved and any(one["spec"]["replicas"] for one in others):
            time.sleep(DRAIN_SECONDS)
        self._scale_down(others)
        single = self._stateful_set() if wanted.kind == "Deployment" else None
        if single is not None and single["spec"]["replicas"]:
            self._api.patch("StatefulSet", self._name, {"spec": {"replicas": 0}})
        if wanted.undo:
            self._remove(wanted.undo)
        return revision

    def _await_ready(self, wanted: Handle) -> None:
        """Until all its pods are ready, by the cluster's own word."""

        def ready() -> bool:
            if wrong := self.probe(wanted.model_dump_json()):
                word = self.poll(wanted.model_dump_json())
                if word.phase is Phase.FAILED:
                    raise HealthCheckFailed(
                        f"the release cannot take the traffic: {word.detail}", evidence=word.logs
                    )
                self.context.report(wrong)
            return not wrong

        self._until(ready, "all pods are ready", Busy)

    def _turn_to(self, wanted: Handle, front: Front | None) -> bool:
        """Give a release the traffic. Returns whether it did not have it yet."""
        front = front or objects.front(self.instance)
        service = self._service()
        before = Front.of(service)
        if service is not None:
            self._refuse_stranger(service)
        had = objects.selected(service) == wanted.deployment and before == front
        turned = objects.service(self.instance, front, wanted.deployment)
        if service is None:
            self._api.create(turned)
        elif not had:
            # Not applied: of a list, that would keep the port that the release before had.
            self._api.patch("Service", self._name, turned)
        if front.host:
            self._api.apply(objects.ingress(self.instance, front))
        elif before is not None and before.host:
            self._api.delete("Ingress", self._name)
        self._until(partial(self._leads_to, wanted.deployment), "the service leads to the release")
        return not had

    def _leads_to(self, chosen: str) -> bool:
        """Whether the service's endpoints are the ready pods of that release, and no others."""
        names = {one["metadata"]["name"] for one in self._pods(chosen)}
        if not names:
            return True
        slices = self._api.select("EndpointSlice", {"kubernetes.io/service-name": self._name})
        targets = rollout.ready_targets(slices)
        return bool(targets) and targets <= names

    def restore(self, deployment: str, previous: Revision | None) -> str | None:
        """See `CloudProvider.restore`. Where the failed release is a Deployment, it is removed once
        the previous one has the traffic."""
        failed = objects.label(deployment)
        service = self._service()
        if previous is None:
            self._clear(service, failed)
            return None
        found = self._find_revision(objects.label(previous.deployment))
        if found is None or found.id != previous.id:
            raise NothingToRestore(
                f"{previous.id} of the previous release is gone", hint="push a release that works"
            )
        chosen = objects.selected(service)
        current = self._find_revision(chosen) if chosen else None
        if current and current.release > previous.release and current.deployment != deployment:
            raise superseded(current.release, previous.release)
        with suppress(HelixError):  # the nodes most likely have its image
            self._renew_pull_secret()
        newest = max(self._newest(but=failed), previous.release)
        handle = self._handle(found, newest, undo=failed)
        if handle.kind == "Deployment":
            self._scale_up(handle.name)
        else:
            self._bring_back(found)
        return handle.model_dump_json(exclude_defaults=True)

    def _scale_up(self, name: str) -> None:
        found = self._api.find("Deployment", name)
        if found is not None and not found["spec"]["replicas"]:
            change = {"spec": {"replicas": objects.replicas_of(found)}}
            self._api.patch("Deployment", name, change)

    def _bring_back(self, previous: Revision) -> None:
        """Give the StatefulSet a template that it had, and its pod another end. A pod that never
        became ready is ended like any other: the controller alone would wait for it forever."""
        for one in self._revisions():
            if one["metadata"]["name"] == previous.detail["name"]:
                template = one["data"]["spec"]["template"]
                template.pop("$patch", None)
                self._replace(template)

    def _clear(self, service: Json | None, failed: str) -> None:
        """Leave nothing of a first deployment but its claims."""
        chosen = objects.selected(service)
        if chosen not in ("", failed):
            raise Conflict(
                f"the service {self._name} leads to another deployment's release",
                hint="nothing is to be done here; see: helix status",
            )
        if service is not None:
            self._refuse_stranger(service)
        self._remove(failed)
        single = self._stateful_set()
        if single is not None and Marks.of(single["spec"]["template"]).label == failed:
            self._api.delete("StatefulSet", self._name, foreground=True)
        if self._newest(but=failed) == 0:
            self._remove_front(service)
            self._api.delete("Secret", objects.pull_name(self.instance))
        self._until(lambda: not self._pods(failed), "the pods of the failed release end")

    def _remove(self, chosen: str) -> None:
        """Remove what one deployment made, but for the StatefulSet, which is the instance's."""
        self._api.delete("Deployment", objects.release_name(self.instance, chosen))
        self._api.delete("Secret", objects.secret_name(self.instance, chosen))

    def _remove_front(self, service: Json | None) -> None:
        """Remove the service, and the ingress before it."""
        if service is None:
            return
        front = Front.of(service)
        if front is not None and front.host:
            self._api.delete("Ingress", self._name)
        self._api.delete("Service", self._name, uid=service["metadata"]["uid"])

    # For people -----------------------------------------------------------------------------------

    def public_url(self) -> str:
        """The ingress's host, else the load balancer, else the service's name in the cluster."""
        service = self._service()
        return objects.url_of(service, Front.of(service)) if service is not None else ""

    def logs(
        self, *, since: datetime | None = None, tail: int | None = None, follow: bool = False
    ) -> Iterator[str]:
        """Lines of all pods of the current release.

        Raises:
            NotFound: nothing was deployed.
        """
        if not objects.selected(self._service()):
            raise NotFound(
                f"nothing was deployed to {self.instance.key}",
                hint=f"run: helix push {self.instance.name}",
            )
        yield from self._logs.read(since, tail, follow)

    # Tidy up --------------------------------------------------------------------------------------

    def prune(self, keep: Sequence[Revision]) -> None:
        """Remove the Deployments and Secrets of older releases. The cluster itself forgets the
        oldest templates of a StatefulSet; those in between that nothing needs go here."""
        chosen = objects.selected(self._service())
        current = self._find_revision(chosen) if chosen else None
        if current is None:
            return
        kept = {objects.label(one.deployment) for one in keep} | {chosen}
        single = self._stateful_set()
        if single is not None:
            kept.add(Marks.of(single["spec"]["template"]).label)
        for one in [*self._deployments(), *self._revisions()]:
            kind, marks = "Deployment" if "spec" in one else "ControllerRevision", _marks(one)
            if marks.label not in kept and marks.release < current.release:
                # In this order: an attempt after this one must find what names the Secret.
                self._api.delete("Secret", objects.secret_name(self.instance, marks.label))
                self._api.delete(kind, one["metadata"]["name"])

    def destroy(self, *, data: bool) -> None:
        """Remove all that is ours in the namespace. Claims go last, when no pod has them open, and
        only with `data`."""
        service = self._service()
        if service is not None:
            self._refuse_stranger(service)
        self._remove_front(service)
        # First what only the other things name: an attempt after this one would not find it.
        for one in [*self._deployments(), *self._revisions()]:
            self._api.delete("Secret", objects.secret_name(self.instance, _marks(one).label))
        self._api.delete("Secret", objects.pull_name(self.instance))
        whose = objects.whose(self.instance)
        for kind in ("StatefulSet", "Deployment"):
            for one in self._api.select(kind, whose):
                self._api.delete(kind, one["metadata"]["name"], foreground=True)
        self._until(lambda: not self._pods(), "the pods end")
        if data:
            for one in self._claims():
                self._api.delete("PersistentVolumeClaim", one["metadata"]["name"])
            self._until(lambda: not self._claims(), "the claims are deleted")

    def _until(
        self, done: Callable[[], bool], what: str, late: type[HelixError] = Transient
    ) -> None:
        end = time.monotonic() + SETTLE_SECONDS
        while not done():
            if time.monotonic() > end:
                raise late(f"{what}, which takes longer than {SETTLE_SECONDS:.0f} s")
            self.context.report(what)
            time.sleep(LOOK_SECONDS)


def _marks(of: Json) -> Marks:
    """Those of a Deployment, or of a template as the cluster keeps it."""
    return Marks.of(of if "spec" in of else of["data"]["spec"]["template"])
