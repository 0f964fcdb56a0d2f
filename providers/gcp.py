"""Runs releases on Google Cloud Run.

A release is one revision of the instance's service, whose name follows from the deployment's id and
whose annotations say all that must be known of it later. It starts without traffic, behind the tag
`candidate`, at whose address it is checked. `promote` moves the traffic, and a rollback moves it to
the revision that had it before: nothing is built or started anew. What is current is said by one
fact: who has the traffic and not that tag.

Traffic goes to revisions by name, never to «the latest»: that means the latest *ready* one, so that
a failed release would be checked by looking at the one before it. For the same reason success is
what our revision's own condition says. The service's condition, and the operation that moves
traffic back, report failure for as long as the last template is the one that failed.

Cloud Run has no disk that a database can trust: its network disks have no locks. A HelixDB keeps
its data in object storage there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import ClassVar

from google.cloud import run_v2
from google.iam.v1.iam_policy_pb2 import TestIamPermissionsRequest
from google.longrunning.operations_pb2 import GetOperationRequest, Operation
from google.protobuf.field_mask_pb2 import FieldMask
from pydantic import BaseModel

from model import names
from model.errors import (
    Busy,
    ConfigurationError,
    Conflict,
    HelixError,
    NotFound,
    NothingToRestore,
    PermissionDenied,
    Transient,
)
from model.instance import Instance
from model.platform import Capabilities, Endpoint, Identity, Phase, Release, Revision, Rollout
from providers import gcp_service as run
from providers.base import CloudProvider, Context, superseded
from providers.bucket import Bucket
from providers.gcp_api import Api
from providers.gcp_logs import Logs
from providers.gcp_secrets import Secrets, Version
from providers.gcp_service import GcpSettings, Handle, Marks, Target

SETTLE_SECONDS = 30.0
"""How long traffic may take to move before the attempt ends; the next one goes on waiting."""
LOOK_SECONDS = 0.5
NEEDED = ("run.services.get", "run.services.update", "run.revisions.list", "run.revisions.delete")
"""Permissions that can be asked for before anything is changed."""
PULLABLE = (".pkg.dev", "gcr.io", "docker.io")
"""How the hosts end from which Cloud Run pulls."""
EVIDENCE = 20
"""Log lines of a failed revision."""


class GcpProvider(CloudProvider):
    """One Cloud Run service."""

    kind: ClassVar[str] = "gcp"
    capabilities: ClassVar[Capabilities] = Capabilities(
        start_first=True, volumes=False, logs=True, scale_to_zero=True
    )
    Settings: ClassVar[type[BaseModel]] = GcpSettings

    def __init__(self, instance: Instance, context: Context) -> None:
        super().__init__(instance, context)
        self._settings = own = GcpSettings.model_validate(instance.target.settings)
        self._service_id = run.service_name(own, instance)
        self._parent = f"projects/{own.project_id}/locations/{own.region}"
        self._name = f"{self._parent}/services/{self._service_id}"
        self._api = Api(own.endpoint)
        self._secrets = Secrets(self._api, own.project_id, self._service_id)
        self._tokens: dict[str, str | None] = {}

    def close(self) -> None:
        """Give back the connections."""
        self._api.close()

    # Before anything changes ----------------------------------------------------------------------

    def identity(self) -> Identity:
        """Whose credentials these are, and that Cloud Run takes them."""
        who, expires_at = self._api.who()
        self._find()
        return Identity(where=f"Cloud Run {self._parent}", who=who, expires_at=expires_at)

    def lacking(self) -> list[str] | None:
        """Those of `NEEDED` on the service; None before there is one."""
        if self._find() is None:
            return None
        answer = self._api.read(
            self._api.services.test_iam_permissions,
            TestIamPermissionsRequest(resource=self._name, permissions=NEEDED),
            "run.services.get",
        )
        return [one for one in NEEDED if one not in answer.permissions]

    def preflight(self) -> None:
        """See that names, strategy, image and permissions will do."""
        self._refuse_volumes()
        self._check_names()
        self._check_registry()
        if self.instance.stop_grace > 10:
            self.context.notes.append("Cloud Run kills a container 10 s after SIGTERM")
        service = self._find()
        if service is None:
            self.context.notes.append(
                "a first release has its traffic while it is checked: Cloud Run has no service "
                "without"
            )
            return
        self._refuse_stranger(service)
        self._check_permissions()

    def bucket(self) -> Bucket | None:
        """The bucket in Cloud Storage, unless another endpoint is named."""
        storage, own = self.instance.object_storage, self._settings
        if storage is None or storage.endpoint_url:
            return None
        from providers.gcp_bucket import GcsBucket

        return GcsBucket(
            self._api, self.instance, storage, self.context, own.project_id, own.region
        )

    def _refuse_volumes(self) -> None:
        where = f"[deploy.{self.instance.name}]"
        if self.instance.volumes:
            raise ConfigurationError(
                "Cloud Run has no volume that a database can trust: its network disks have no "
                "locks",
                hint=f"remove volumes from {where}, and keep HelixDB's data in object storage: "
                'add object_storage = "<bucket>"; see docs/providers/gcp.md',
            )
        if self.instance.object_storage and self._settings.max_instances > 1:
            raise ConfigurationError(
                f"{self._settings.max_instances} containers would have the same data open at once",
                hint="set max_instances = 1: HelixDB has a single writer",
            )
        if self.instance.object_storage:
            self.context.notes.append(
                "Cloud Run starts the new container before the old one ends: the old one's last "
                "writes may be refused, see docs/concepts/data.md"
            )
        if self.instance.strategy == "stop-first":
            raise ConfigurationError(
                "Cloud Run starts a revision before it stops the one before",
                hint=f"remove strategy from {where}; what must never run twice at once needs a "
                "machine of its own: see docs/providers/docker.md",
            )

    def _check_names(self) -> None:
        if not run.SERVICE_NAME.fullmatch(self._service_id):
            raise ConfigurationError(
                f"«{self._service_id}» cannot name a Cloud Run service: at most 49 lower-case "
                "letters, digits and hyphens, the first a letter",
                hint=f'set service = "…" in [cloud.{self.instance.name}.gcp]',
            )
        taken = run.RESERVED & {*self.instance.env, *self.instance.secrets}
        if taken:
            raise ConfigurationError(
                f"Cloud Run sets {', '.join(sorted(taken))} itself",
                hint=f"remove it from [deploy.{self.instance.name}]; the port is `port`",
            )

    def _check_registry(self) -> None:
        registry = self.instance.registry
        if registry is None:
            if self.instance.build.kind != "image":
                raise ConfigurationError(
                    f"Cloud Run pulls the image of «{self.instance.name}», and no registry is "
                    "named",
                    hint=f'add [deploy.{self.instance.name}.registry] with kind = "gar"',
                )
            return
        host = registry.repository.split("/", 1)[0]
        known = registry.kind in ("gar", "docker_hub") or host.endswith(PULLABLE)
        if not known and not self._settings.endpoint:
            raise ConfigurationError(
                f"Cloud Run does not pull from {host or registry.kind}",
                hint='use a registry of kind "gar", or a remote repository of Artifact Registry in '
                "front of yours",
            )

    def _refuse_stranger(self, service: run_v2.Service) -> None:
        owner = service.annotations.get(names.LABEL_INSTANCE, "")
        if owner not in ("", self.instance.key):
            raise Conflict(
                f"the service {self._service_id} belongs to the instance {owner}",
                hint=f'set service = "…" in [cloud.{self.instance.name}.gcp]',
            )

    def _check_permissions(self) -> None:
        if lacking := self.lacking():
            raise PermissionDenied(
                f"these credentials lack {', '.join(lacking)} on {self._name}",
                hint="grant roles/run.developer: see docs/providers/gcp.md",
            )

    def current(self) -> Revision | None:
        """The revision with the most traffic. A split among several is remembered with it."""
        service = self._find()
        return self._current(service) if service is not None else None

    def _current(self, service: run_v2.Service) -> Revision | None:
        shares = run.serving(service)
        if not shares:
            return None
        first = max(shares, key=lambda one: one.percent)
        found = self._find_revision(first.revision)
        return run.revision_of(found, service) if found is not None else None

    # Start ----------------------------------------------------------------------------------------

    def start(self, release: Release, previous: Revision | None) -> str:
        """See `CloudProvider.start`. The etag keeps two callers from overwriting each other."""
        service = self._find()
        name = run.revision_name(self._service_id, release.deployment)
        if service is None:
            operation = self._create(release, name)
            return self._handle(name, release.number, [], operation=operation)
        self._refuse_stranger(service)
        newest = Marks.of(service.template)
        if newest.release > release.number and newest.instance == self.instance.key:
            raise superseded(newest.release, release.number)
        tags = run.others_tags(service)
        if newest.deployment == release.deployment:
            return self._handle(name, release.number, tags)  # an attempt before this one came here
        if (current := self._unchanged(release, service)) is not None:
            return self._handle(current, release.number, tags)
        service.template = run.template(
            release, self._settings, name, self._put_secrets(release.instance)
        )
        service.annotations[names.LABEL_INSTANCE] = self.instance.key
        shares = run.serving(service)
        candidate = Target(revision=name, percent=0 if shares else 100, tag=run.CANDIDATE)
        operation = self._update(service, [*shares, *tags, candidate], "template", "annotations")
        return self._handle(name, release.number, tags, operation=operation)

    def _handle(
        self, revision: str, release: int, tags: Sequence[Target], *, operation: str = ""
    ) -> str:
        return Handle(
            revision=revision,
            release=release,
            operation=operation,
            public=self._settings.public,
            targets=[Target(revision=revision, percent=100), *tags],
        ).model_dump_json(exclude_defaults=True)

    def _unchanged(self, release: Release, service: run_v2.Service) -> str | None:
        """The current revision, if it is all that runs and would be the same."""
        shares = run.serving(service)
        found = self._find_revision(shares[0].revision) if len(shares) == 1 else None
        if found is None or not release.artifact.identity:
            return None
        marks = Marks.of(found)
        wanted = release.artifact.identity, release.instance.config_digest
        fits = (marks.artifact, marks.config) == wanted and marks.instance == self.instance.key
        return run.short(found.name) if fits else None

    def _create(self, release: Release, name: str) -> str:
        candidate = Target(revision=name, percent=100, tag=run.CANDIDATE)
        service = run_v2.Service(
            labels=run.MANAGED,
            annotations={names.LABEL_INSTANCE: self.instance.key},
            template=run.template(
                release, self._settings, name, self._put_secrets(release.instance)
            ),
            traffic=run.messages([candidate]),
            ingress=run_v2.IngressTraffic.INGRESS_TRAFFIC_ALL,
            invoker_iam_disabled=self._settings.public,
        )
        request = run_v2.CreateServiceRequest(
            parent=self._parent, service=service, service_id=self._service_id
        )
        try:
            return self._begin(self._api.services.create_service, request, "run.services.create")
        except Conflict as error:
            # It came into being since we looked: by us, whose answer was lost, or by another.
            raise Transient(error.message, hint="it is looked for again") from None

    def _put_secrets(self, instance: Instance) -> dict[str, Version]:
        found = {}
        for name, reference in instance.secrets.items():
            linked = Secrets.linked(reference)
            found[name] = linked or self._secrets.put(name, self.context.secret(reference))
        return found

    # While it runs --------------------------------------------------------------------------------

    def poll(self, handle: str) -> Rollout:
        """What the revision says of itself; before it says anything, what the operation says."""
        wanted = Handle.model_validate_json(handle)
        service = self._find()
        if service is None:
            return Rollout(phase=Phase.FAILED, detail=f"the service {self._service_id} is gone")
        revision = self._find_revision(wanted.revision)
        ready = run.readiness(revision) if revision is not None else run_v2.Condition()
        if run.failed(ready):
            return self._failed(wanted.revision, run.explain(ready))
        if ready.state == run.State.CONDITION_SUCCEEDED:
            if any(one.revision == wanted.revision for one in run.observed(service)):
                return Rollout(phase=Phase.RUNNING, detail="ready")
            operation = self._operation(wanted.operation) if wanted.operation else None
            if operation is not None and operation.HasField("error"):
                return self._failed(wanted.revision, operation.error.message)
            return Rollout(phase=Phase.STARTING, detail="traffic is being routed")
        if wrong := self._never_came(wanted, service):
            return self._failed(wanted.revision, wrong)
        return Rollout(phase=Phase.STARTING, detail=ready.message or "starting")

    def _never_came(self, wanted: Handle, service: run_v2.Service) -> str:
        """Why there will be no revision; empty if there may still be one."""
        operation = self._operation(wanted.operation) if wanted.operation else None
        if operation is not None and not operation.done:
            return ""
        if operation is not None and operation.HasField("error"):
            # The revision may have failed since it was read, and knows better why.
            revision = self._find_revision(wanted.revision)
            ready = run.readiness(revision) if revision is not None else run_v2.Condition()
            return run.explain(ready) if run.failed(ready) else str(operation.error.message)
        if service.reconciling or run.short(service.template.revision) != wanted.revision:
            return ""
        end = service.terminal_condition
        return run.explain(end) if run.failed(end) else ""

    def _operation(self, name: str) -> Operation | None:
        """A change that was begun, perhaps by another worker. None: Google forgets operations
        after a while."""
        request = GetOperationRequest(name=name)
        try:
            return self._api.read(self._api.services.get_operation, request, "run.operations.get")
        except NotFound:
            return None

    def _failed(self, revision: str, why: str) -> Rollout:
        logs = ""
        with suppress(HelixError):  # they only illustrate; the verdict stands without them
            logs = "\n".join(self._logs(revision).tail(EVIDENCE))
        return Rollout(phase=Phase.FAILED, detail=why or "Cloud Run gives no reason", logs=logs)

    def endpoint(self, handle: str) -> Endpoint | None:
        """The address of the tag; of the service, once all traffic is the revision's. A private
        service is asked with a token; without one it cannot be reached from here."""
        wanted = Handle.model_validate_json(handle)
        service = self._get()
        url = run.address(service, wanted.revision)
        if not url:
            raise Transient(f"{wanted.revision} has no address yet")
        if service.invoker_iam_disabled:
            return Endpoint(url=url)
        # The audience is the service's own address, also for a request to a tag.
        if service.uri not in self._tokens:
            self._tokens[service.uri] = self._api.id_token(service.uri)
        token = self._tokens[service.uri]
        return Endpoint(url=url, headers={"authorization": f"Bearer {token}"}) if token else None

    def probe(self, handle: str) -> str:
        """What the platform says of the revision, whose port it has seen open."""
        rollout = self.poll(handle)
        return "" if rollout.phase is Phase.RUNNING else rollout.detail

    def run_check(self, handle: str, command: Sequence[str], timeout: float) -> tuple[int, str]:
        """Cloud Run runs no commands beside a container.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            "Cloud Run cannot run a command inside a container",
            hint=f'set kind = "http" in [deploy.{self.instance.name}.health_check]',
        )

    # Promote and restore --------------------------------------------------------------------------

    def promote(self, handle: str) -> Revision:
        """See `CloudProvider.promote`. Returns when the traffic has moved."""
        wanted = Handle.model_validate_json(handle)
        service = self._get()
        newest = Marks.of(service.template)
        if newest.release > wanted.release and newest.instance == self.instance.key:
            raise superseded(newest.release, wanted.release)
        exact = run.same(run.asked(service), wanted.targets)
        if not exact or service.invoker_iam_disabled != wanted.public:
            service.invoker_iam_disabled = wanted.public
            self._update(service, wanted.targets, "invoker_iam_disabled")
        self._until(
            lambda: run.same(run.observed(self._get()), wanted.targets),
            f"the traffic moves to {wanted.revision}",
        )
        if wanted.undo:
            self._remove_revision(wanted.undo)
        found = self._find_revision(wanted.revision)
        if found is None:
            raise Transient(f"{wanted.revision} has the traffic, and cannot be read")
        return run.revision_of(found, self._get())

    def restore(self, deployment: str, previous: Revision | None) -> str | None:
        """See `CloudProvider.restore`. The failed revision loses traffic and address here, and is
        removed once the previous one has the traffic."""
        service = self._find()
        name = run.revision_name(self._service_id, deployment)
        if previous is None:
            self._clear(service, deployment, name)
            return None
        if service is None or self._find_revision(previous.id) is None:
            raise NothingToRestore(
                f"the revision {previous.id} is gone", hint="push a release that works"
            )
        current = self._current(service)
        if (
            current is not None
            and current.release > previous.release
            and current.deployment != deployment
        ):
            raise superseded(current.release, previous.release)
        tags = run.others_tags(service)
        targets = [*run.shares_of(previous), *tags]
        newest = Marks.of(service.template)
        # A later deployment may already be trying its own candidate.
        others = [one for one in run.asked(service) if one.tag == run.CANDIDATE]
        candidates = [one for one in others if one.revision != name and not one.percent]
        if newest.deployment != deployment and newest.release > previous.release:
            targets += candidates
        if not run.same(run.asked(service), targets):
            self._update(service, targets)
        return Handle(
            revision=previous.id,
            release=max(newest.release, previous.release),
            undo=name,
            public=json.loads(previous.detail.get("public", "false")),
            targets=targets,
        ).model_dump_json(exclude_defaults=True)

    def _clear(self, service: run_v2.Service | None, deployment: str, name: str) -> None:
        """Leave nothing of a first deployment: the service that it made, and its secrets, which are
        there before the service is."""
        if service is not None:
            if Marks.of(service.template).deployment != deployment:
                return
            others = [one for one in run.observed(service) if one.percent and one.revision != name]
            if others:
                raise Conflict(
                    f"{others[0].revision} serves {self._service_id}, and was not there before",
                    hint="another deployment, or a person, has taken over; see: helix status",
                )
            self._delete(service)
        self._secrets.destroy()

    # For people -----------------------------------------------------------------------------------

    def public_url(self) -> str:
        """The service's own address."""
        service = self._find()
        return service.uri if service is not None else ""

    def logs(
        self, *, since: datetime | None = None, tail: int | None = None, follow: bool = False
    ) -> Iterator[str]:
        """What the current revision printed, and the requests it answered.

        Raises:
            NotFound: nothing runs.
        """
        service = self._find()
        current = self._current(service) if service is not None else None
        if service is None:
            raise NotFound(
                f"nothing was deployed to {self.instance.key}",
                hint=f"run: helix push {self.instance.name}",
            )
        yield from self._logs(current.id if current else "").read(since, tail, follow)

    def _logs(self, revision: str) -> Logs:
        own = self._settings
        return Logs(self._api, own.project_id, own.region, self._service_id, revision)

    # Tidy up --------------------------------------------------------------------------------------

    def prune(self, keep: Sequence[Revision]) -> None:
        """Remove our older revisions that nothing needs, then the versions of secrets that no
        revision refers to. Revisions without traffic run nothing; they are only clutter."""
        service = self._find()
        current = self._current(service) if service is not None else None
        if service is None or current is None:
            return
        kept = {one.id for one in keep} | {one.revision for one in run.asked(service)}
        kept |= {current.id, run.short(service.latest_created_revision)}
        used: set[Version] = set()
        for one in self._revisions():
            marks = Marks.of(one)
            ours = marks.instance == self.instance.key and marks.release < current.release
            if ours and run.short(one.name) not in kept:
                self._remove_revision(run.short(one.name))
            else:
                used |= _secrets_of(one)
        self._secrets.prune(used)

    def destroy(self, *, data: bool) -> None:
        """Remove the service with all its revisions, and its secrets. There is no other data."""
        service = self._find()
        if service is not None:
            self._refuse_stranger(service)
            self._delete(service)
        self._secrets.destroy()

    # Cloud Run ------------------------------------------------------------------------------------

    def _find(self) -> run_v2.Service | None:
        request = run_v2.GetServiceRequest(name=self._name)
        try:
            found: run_v2.Service = self._api.read(
                self._api.services.get_service, request, "run.services.get"
            )
        except NotFound:
            return None
        if found.delete_time:
            raise Busy(f"the service {self._service_id} is being deleted")
        return found

    def _get(self) -> run_v2.Service:
        service = self._find()
        if service is None:
            raise NotFound(
                f"the service {self._name} is gone", hint=f"run: helix push {self.instance.name}"
            )
        return service

    def _find_revision(self, name: str) -> run_v2.Revision | None:
        request = run_v2.GetRevisionRequest(name=f"{self._name}/revisions/{name}")
        try:
            found: run_v2.Revision = self._api.read(
                self._api.revisions.get_revision, request, "run.revisions.get"
            )
        except NotFound:
            return None
        return found

    def _revisions(self) -> list[run_v2.Revision]:
        request = run_v2.ListRevisionsRequest(parent=self._name)
        found: list[run_v2.Revision] = self._api.read(
            self._api.revisions.list_revisions, request, "run.revisions.list"
        )
        return found

    def _update(self, service: run_v2.Service, targets: Sequence[Target], *fields: str) -> str:
        """Ask for this traffic, and for what else is named. What the mask leaves out stays: above
        all the template, since a revision's name may not be used for another one."""
        service.traffic = run.messages(targets)
        request = run_v2.UpdateServiceRequest(
            service=service, update_mask=FieldMask(paths=["traffic", *fields])
        )
        return self._begin(self._api.services.update_service, request, "run.services.update")

    def _begin(self, method: Callable[..., object], request: object, doing: str) -> str:
        """Begin a change. Returns Google's name for it, by which anyone can ask how it goes."""
        operation = self._api.call(method, request, doing).operation
        return str(operation.name)

    def _delete(self, service: run_v2.Service) -> None:
        """Delete the service, and return when it is gone."""
        request = run_v2.DeleteServiceRequest(name=self._name, etag=service.etag)
        with suppress(NotFound):
            self._begin(self._api.services.delete_service, request, "run.services.delete")

        def gone() -> bool:
            try:
                return self._find() is None
            except Busy:
                return False

        self._until(gone, f"the service {self._service_id} is deleted")

    def _remove_revision(self, name: str) -> None:
        """Delete a revision. Cloud Run keeps the last one that was created, and whatever traffic
        still leaves: a later release's prune gets them."""
        request = run_v2.DeleteRevisionRequest(name=f"{self._name}/revisions/{name}")
        with suppress(NotFound, ConfigurationError, Busy):
            self._begin(self._api.revisions.delete_revision, request, "run.revisions.delete")

    def _until(self, done: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + SETTLE_SECONDS
        while not done():
            if time.monotonic() > end:
                raise Transient(f"{what}, which takes longer than {SETTLE_SECONDS:.0f} s")
            self.context.report(what)
            time.sleep(LOOK_SECONDS)


def _secrets_of(revision: run_v2.Revision) -> set[Version]:
    return {
        Version(run.short(one.value_source.secret_key_ref.secret),
                one.value_source.secret_key_ref.version)
        for container in revision.containers
        for one in container.env
        if one.value_source.secret_key_ref.secret
    }  # fmt: skip
