"""Cloud Run's part of the stand-in for Google Cloud.

It keeps the rules that the API's own description states, above all on reconciliation: a change
takes a while; where it fails, `traffic_statuses`, `observed_generation` and `latest_ready_revision`
stay as they were; «latest» means the latest ready revision. Beyond it: a service is reported as
failed for as long as its last template has no ready revision, whatever its traffic does; a
revision's name cannot be used again for another template; a revision that has traffic, a tag or is
the last one created cannot be deleted.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn

from google.cloud import run_v2
from google.iam.v1 import iam_policy_pb2
from google.longrunning import operations_pb2

from tests.fakes.database import begin
from tests.fakes.gcp_refused import Refused

if TYPE_CHECKING:
    from tests.fakes.gcp import FakeGcp

LATEST = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST
SUCCEEDED = run_v2.Condition.State.CONDITION_SUCCEEDED
FAILED = run_v2.Condition.State.CONDITION_FAILED
RECONCILING = run_v2.Condition.State.CONDITION_RECONCILING
RETRIED = (
    run_v2.Condition.CommonReason.IMMEDIATE_RETRY,
    run_v2.Condition.CommonReason.POSTPONED_RETRY,
)
Revisions = dict[str, run_v2.Revision]
STORAGE = "https://storage.googleapis.com"
"""Where containers find Cloud Storage's XML API."""


@dataclass
class Behaviour:
    """How the containers of an image fare."""

    reason: str = ""
    """The RevisionReason or CommonReason with which they fail to start; they start if empty."""
    status: int = 200
    """What they answer."""
    message: str = "The container failed to start."
    """What Cloud Run says of one that fails."""
    name: str = ""
    """What they call themselves."""

    @classmethod
    def of(cls, env: dict[str, str]) -> Behaviour:
        """What a release's environment asks for, by its BEHAVIOUR: `serve`, `exit`, `hang` (Cloud
        Run answers 504 for it), or be `sick`."""
        name = env.get("NAME", "")
        match env.get("BEHAVIOUR"):
            case "exit":
                reason, message = "HEALTH_CHECK_CONTAINER_ERROR", "Container called exit(3)."
                return cls(reason=reason, message=message, name=name)
            case "hang" | "sick" as how:
                return cls(status=504 if how == "hang" else 500, name=name)
        return cls(name=name)


class CloudRun:
    """Services and revisions."""

    def __init__(self, cloud: FakeGcp) -> None:
        self.cloud = cloud
        self.services: dict[str, run_v2.Service] = {}
        self.revisions: dict[str, Revisions] = {}
        """Service -> its revisions, by their full names."""
        self.storage = ""
        """Where Cloud Storage is reached."""
        self.data: dict[str, list[str]] = {}
        """Revision -> what it read from its database as it began, if it has one in a bucket."""
        self.behaviours: dict[str, Behaviour] = {}
        """Digest of an image -> how it fares."""
        self.lag = 0.0
        """Seconds for which a new revision is not seen, and a changed service reads as before."""
        self._before: dict[str, tuple[float, run_v2.Service]] = {}
        self._made: dict[str, float] = {}

    def methods(self) -> dict[str, dict[str, tuple[Callable[[Any], Any], Any, Any]]]:
        """Service -> method -> what does it, and its messages."""
        lro = operations_pb2.Operation
        return {
            "google.cloud.run.v2.Services": {
                "GetService": (self._get, run_v2.GetServiceRequest, run_v2.Service),
                "CreateService": (self._create, run_v2.CreateServiceRequest, lro),
                "UpdateService": (self._update, run_v2.UpdateServiceRequest, lro),
                "DeleteService": (self._delete, run_v2.DeleteServiceRequest, lro),
                "TestIamPermissions": (
                    self._test_permissions,
                    iam_policy_pb2.TestIamPermissionsRequest,
                    iam_policy_pb2.TestIamPermissionsResponse,
                ),
            },
            "google.cloud.run.v2.Revisions": {
                "GetRevision": (self._get_revision, run_v2.GetRevisionRequest, run_v2.Revision),
                "ListRevisions": (
                    self._list_revisions,
                    run_v2.ListRevisionsRequest,
                    run_v2.ListRevisionsResponse,
                ),
                "DeleteRevision": (self._delete_revision, run_v2.DeleteRevisionRequest, lro),
            },
        }

    # What a person or a test sees -----------------------------------------------------------------

    def by_id(self, service_id: str) -> run_v2.Service | None:
        """A service by its short name."""
        return next((one for name, one in self.services.items() if _id(name) == service_id), None)

    def respond(self, service: run_v2.Service, tag: str, path: str) -> tuple[int, dict[str, Any]]:
        """What a request to a service, or to the revision with a tag, is answered."""
        share = next(
            (one for one in service.traffic_statuses if (one.tag == tag if tag else one.percent)),
            None,
        )
        if share is None:
            return 404, {"error": "no revision has this address"}
        name = share.revision or _id(service.latest_ready_revision)
        revision = self.revisions[service.name][f"{service.name}/revisions/{name}"]
        behaviour = self._behaviour(revision)
        self.cloud.log(_id(service.name), name, f"answered {path} with {behaviour.status}")
        about = {"revision": name, "image": revision.containers[0].image, "name": behaviour.name}
        if revision.name in self.data:
            about["data"] = ",".join(self.data[revision.name])
        return behaviour.status, about

    def _behaviour(self, revision: run_v2.Revision) -> Behaviour:
        container = revision.containers[0]
        env = {one.name: one.value for one in container.env}
        found = self.behaviours.get(container.image.rsplit("@", 1)[-1])
        return found or Behaviour.of(env)

    # Services -------------------------------------------------------------------------------------

    def _get(self, given: run_v2.GetServiceRequest) -> run_v2.Service:
        before = self._before.get(given.name)
        if before is not None and time.monotonic() < before[0]:
            return before[1]
        return self._find(given.name)

    def _find(self, name: str) -> run_v2.Service:
        self._need("run.services.get", name)
        if name not in self.services:
            _refuse("NOT_FOUND", f"Resource '{_id(name)}' of kind 'SERVICE' does not exist.")
        return self.services[name]

    def _create(self, given: run_v2.CreateServiceRequest) -> Any:
        self._need("run.services.create", given.parent)
        name = f"{given.parent}/services/{given.service_id}"
        if not re.fullmatch(r"[a-z]([a-z0-9-]{0,47}[a-z0-9])?", given.service_id):
            _refuse("INVALID_ARGUMENT", f"Violation in service_id: {given.service_id}")
        if name in self.services:
            _refuse("ALREADY_EXISTS", f"Resource '{given.service_id}' already exists.")
        made = _copy(given.service)
        made.name = name
        return self._accept(made, run_v2.Service(), templated=True)

    def _update(self, given: run_v2.UpdateServiceRequest) -> Any:
        name = given.service.name
        self._need("run.services.update", name)
        old = self._find(name)
        if given.service.etag and given.service.etag != old.etag:
            _refuse("ABORTED", f"Conflict for resource '{_id(name)}': version mismatch.")
        new, paths = _copy(old), list(given.update_mask.paths)
        fields = run_v2.Service.pb(new).DESCRIPTOR.fields_by_name
        for path in paths or ["template", "traffic", "annotations", "labels"]:
            if path not in fields:
                _refuse("INVALID_ARGUMENT", f"unknown field {path}")
            setattr(new, path, getattr(given.service, path))
        return self._accept(new, old, templated=not paths or "template" in paths)

    def _accept(self, new: run_v2.Service, old: run_v2.Service, *, templated: bool) -> Any:
        name = new.name
        self._check(new)
        revisions = self.revisions.setdefault(name, {})
        if templated:
            self._stamp(new, revisions)
        known = {_id(one) for one in revisions}
        for target in new.traffic:
            if target.type_ != LATEST and target.revision not in known:
                _refuse("INVALID_ARGUMENT", f"Revision {target.revision} does not exist")
        if name in self.services:
            self._before[name] = time.monotonic() + self.lag, _copy(old)
        new.generation = old.generation + 1
        new.etag = f'"{new.generation}"'
        new.uri = f"{self.cloud.web.address}/run/{_id(name)}"
        new.reconciling = True
        new.terminal_condition = run_v2.Condition(type_="Ready", state=RECONCILING)
        self.services[name] = new
        return self.cloud.begin(name.rsplit("/services/", 1)[0], lambda: self._reconcile(name))

    def _check(self, service: run_v2.Service) -> None:
        if sum(one.percent for one in service.traffic) != 100:
            _refuse("INVALID_ARGUMENT", "traffic percentages must sum to 100")
        tags = [one.tag for one in service.traffic if one.tag]
        if len(tags) != len(set(tags)):
            _refuse("INVALID_ARGUMENT", "a tag is used twice")
        for labels in (service.labels, service.template.labels):
            for key, value in labels.items():
                if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key) or not re.fullmatch(
                    r"[a-z0-9_-]{0,63}", value
                ):
                    _refuse("INVALID_ARGUMENT", f"bad label {key}={value}")
        container = service.template.containers[0]
        if "@sha256:" not in container.image:
            _refuse("INVALID_ARGUMENT", f"expected an image path: {container.image}")
        reserved = {"PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION"}
        if taken := reserved & {one.name for one in container.env}:
            _refuse("INVALID_ARGUMENT", f"reserved env names were provided: {taken}")

    def _stamp(self, service: run_v2.Service, revisions: Revisions) -> None:
        """Make the revision of a template, unless it is there."""
        template = service.template
        if not template.revision:
            template.revision = f"{_id(service.name)}-{len(revisions) + 1:05}-abc"
        if not re.fullmatch(rf"{_id(service.name)}-[a-z0-9-]*[a-z0-9]", template.revision):
            _refuse("INVALID_ARGUMENT", f"bad revision name {template.revision}")
        name = f"{service.name}/revisions/{template.revision}"
        made = run_v2.Revision(
            name=name,
            service=service.name,
            create_time=datetime.now(UTC),
            labels=template.labels,
            annotations=template.annotations,
            containers=template.containers,
            scaling=template.scaling,
            service_account=template.service_account,
            reconciling=True,
            conditions=[run_v2.Condition(type_="Ready", state=RECONCILING, message="Deploying")],
        )
        if name in revisions:
            if list(revisions[name].containers) != list(made.containers):
                _refuse(
                    "ALREADY_EXISTS",
                    f"Revision named '{template.revision}' with different configuration already "
                    "exists.",
                )
            return
        revisions[name] = made
        self._made[name] = time.monotonic()
        service.latest_created_revision = name

    def _reconcile(self, name: str) -> run_v2.Service:
        service, revisions = self.services[name], self.revisions[name]
        for revision in revisions.values():
            if revision.reconciling:
                self._begin_to_run(revision, service)
        ready = {_id(one.name) for one in revisions.values() if _is_ready(one)}
        created = _id(service.latest_created_revision)
        if created in ready:
            service.latest_ready_revision = service.latest_created_revision
        latest = _id(service.latest_ready_revision)
        routes = [latest if one.type_ == LATEST else one.revision for one in service.traffic]
        routed = all(one in ready for one in routes)
        if routed:
            service.traffic_statuses = [
                run_v2.TrafficTargetStatus(
                    type_=one.type_,
                    # As the API does: «latest» is not resolved here.
                    revision=one.revision if one.type_ != LATEST else "",
                    percent=one.percent,
                    tag=one.tag,
                    uri=f"{service.uri}/tag/{one.tag}" if one.tag else "",
                )
                for one in service.traffic
            ]
        service.reconciling = False
        self._mark_retired(service)
        if routed and created in ready:
            service.observed_generation = service.generation
            service.terminal_condition = run_v2.Condition(type_="Ready", state=SUCCEEDED)
            return service
        bad = revisions.get(service.latest_created_revision)
        end = bad.conditions[0] if bad is not None else run_v2.Condition(message="no revision")
        why = end.reason
        message = f"Revision '{created}' is not ready and cannot serve traffic. {end.message}"
        service.terminal_condition = run_v2.Condition(
            type_="Ready",
            state=FAILED,
            message=message,
            reason=why if why in RETRIED else run_v2.Condition.CommonReason.REVISION_FAILED,
        )
        raise Refused("FAILED_PRECONDITION", message)

    def _begin_to_run(self, revision: run_v2.Revision, service: run_v2.Service) -> None:
        revision.reconciling = False
        behaviour = self._behaviour(revision)
        if behaviour.name:
            self.cloud.log(_id(service.name), _id(revision.name), f"starting {behaviour.name}")
        condition = run_v2.Condition(type_="Ready", state=SUCCEEDED)
        missing = self._missing_secret(revision)
        if why := ("SECRETS_ACCESS_CHECK_FAILED" if missing else behaviour.reason):
            condition = run_v2.Condition(
                type_="Ready", state=FAILED, message=missing or behaviour.message
            )
            if why in run_v2.Condition.RevisionReason.__members__:
                condition.revision_reason = run_v2.Condition.RevisionReason[why]
            else:
                condition.reason = run_v2.Condition.CommonReason[why]
            last = "it is broken" if behaviour.name else "panic: cannot open the database"
            self.cloud.log(_id(service.name), _id(revision.name), last)
        revision.conditions = [condition]
        if condition.state == SUCCEEDED:
            env = self._environment(revision)
            if "S3_BUCKET" in env:
                self.data[revision.name] = begin(env, {STORAGE: self.storage})

    def _environment(self, revision: run_v2.Revision) -> dict[str, str]:
        """What its container has, secrets included."""
        env = {}
        for one in revision.containers[0].env:
            selector = one.value_source.secret_key_ref
            env[one.name] = one.value
            if selector.secret:
                name = f"{_secret(revision, selector)}/versions/{selector.version}"
                env[one.name] = self.cloud.secret(name)
        return env

    def _missing_secret(self, revision: run_v2.Revision) -> str:
        for one in revision.containers[0].env:
            selector = one.value_source.secret_key_ref
            if not selector.secret:
                continue
            path = _secret(revision, selector)
            if int(selector.version) > len(self.cloud.versions.get(path, [])):
                return f"Secret {path}/versions/{selector.version} was not found"
        return ""

    def _mark_retired(self, service: run_v2.Service) -> None:
        """Say of a revision without traffic that its minimum of instances is not there."""
        routed = {one.revision for one in service.traffic_statuses if one.percent}
        for revision in self.revisions[service.name].values():
            idle = run_v2.Condition(
                type_="MinInstancesProvisioned",
                state=FAILED,
                revision_reason=run_v2.Condition.RevisionReason.MIN_INSTANCES_NOT_PROVISIONED,
            )
            waits = revision.scaling.min_instance_count and _id(revision.name) not in routed
            revision.conditions = [*revision.conditions[:1], *([idle] if waits else [])]

    def _delete(self, given: run_v2.DeleteServiceRequest) -> Any:
        self._need("run.services.delete", given.name)
        service = self._find(given.name)
        if given.etag and given.etag != service.etag:
            _refuse("ABORTED", "version mismatch")
        service.delete_time = datetime.now(UTC)

        def finish() -> run_v2.Service:
            self.services.pop(given.name, None)
            self.revisions.pop(given.name, None)
            self._before.pop(given.name, None)
            return service

        return self.cloud.begin(given.name.rsplit("/services/", 1)[0], finish)

    def _test_permissions(self, given: Any) -> Any:
        granted = [one for one in given.permissions if one not in self.cloud.denied]
        return iam_policy_pb2.TestIamPermissionsResponse(permissions=granted)

    # Revisions ------------------------------------------------------------------------------------

    def _get_revision(self, given: run_v2.GetRevisionRequest) -> run_v2.Revision:
        service, found = self._of(given.name)
        hidden = time.monotonic() < self._made.get(given.name, 0) + self.lag
        if found is None or (hidden and service is not None):
            _refuse("NOT_FOUND", f"Resource '{_id(given.name)}' of kind 'REVISION' does not exist.")
        return found

    def _of(self, name: str) -> tuple[run_v2.Service | None, run_v2.Revision | None]:
        parent = name.rsplit("/revisions/", 1)[0]
        return self.services.get(parent), self.revisions.get(parent, {}).get(name)

    def _list_revisions(self, given: run_v2.ListRevisionsRequest) -> run_v2.ListRevisionsResponse:
        found = list(self.revisions.get(given.parent, {}).values())
        found.reverse()
        start = int(given.page_token or 0)
        end = start + 2  # small pages, so that they are turned
        return run_v2.ListRevisionsResponse(
            revisions=found[start:end], next_page_token=str(end) if end < len(found) else ""
        )

    def _delete_revision(self, given: run_v2.DeleteRevisionRequest) -> Any:
        service, found = self._of(given.name)
        if service is None or found is None:
            _refuse("NOT_FOUND", f"{given.name} does not exist")
        used = {one.revision for one in service.traffic}
        used |= {one.revision for one in service.traffic_statuses}
        if _id(given.name) in used or service.latest_created_revision == given.name:
            _refuse("FAILED_PRECONDITION", f"Revision '{_id(given.name)}' cannot be deleted.")
        del self.revisions[service.name][given.name]
        return self.cloud.begin(service.name.rsplit("/services/", 1)[0], lambda: found)

    def _need(self, permission: str, resource: str) -> None:
        if permission in self.cloud.denied:
            _refuse("PERMISSION_DENIED", f"Permission '{permission}' denied on '{resource}'")


def _secret(revision: run_v2.Revision, selector: run_v2.SecretKeySelector) -> str:
    """The whole name of a secret that a revision refers to."""
    if "/" in selector.secret:
        return selector.secret
    return f"projects/{revision.name.split('/')[1]}/secrets/{selector.secret}"


def _id(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _copy(service: run_v2.Service) -> run_v2.Service:
    copy = run_v2.Service()
    run_v2.Service.copy_from(copy, service)
    return copy


def _is_ready(revision: run_v2.Revision) -> bool:
    return bool(revision.conditions) and revision.conditions[0].state == SUCCEEDED


def _refuse(code: str, message: str) -> NoReturn:
    raise Refused(code, message)
