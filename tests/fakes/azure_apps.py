"""Container Apps' part of the stand-in for Azure.

It keeps what Azure's documentation and its users' reports say of it: one change of an app at a
time; a change is done when its revision runs, and fails after a while if it never does; the status
of a change that failed is read with HTTP 200; weights add up to 100; a revision's suffix cannot be
used again for another template; secrets belong to the app and are named all together; a revision is
stopped and started, never removed, and the oldest stopped ones are forgotten; traffic may be given
to a stopped revision, and answers nothing then.
"""

from __future__ import annotations

import copy
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from azure.mgmt.appcontainers import models as az

from tests.fakes.azure_containers import Running
from tests.fakes.azure_models import checked
from tests.fakes.azure_refused import Refused
from tests.fakes.azure_web import Front

if TYPE_CHECKING:
    from tests.fakes.azure import FakeAzure

Body = dict[str, Any]
RESTARTS = 3
"""How often a container that ends is started again before its revision has failed."""


@dataclass
class Operation:
    """A change under way."""

    done: Callable[[], bool]
    """Looked at whenever somebody calls; raises `Refused` if the change fails."""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = "InProgress"
    error: Refused | None = None


class Revision:
    """One revision: its template, and its container while it is active."""

    def __init__(self, apps: Apps, app: App, name: str, template: Body) -> None:
        self.apps = apps
        self.app = app
        self.name = name
        self.template = template
        self.created = datetime.now(UTC)
        self.active = True
        self.container: Running | None = None
        self.restarts = 0
        self.error = ""
        self.was_ready = False
        self._started = 0.0
        self._stopping: tuple[float, Running] | None = None
        self.front = Front(apps.cloud.certificates, self.address)
        self.start()

    def start(self) -> None:
        """Begin to run its container."""
        one = self.template["containers"][0]
        others = [other for other in self.app.revisions.values() if other is not self]
        if one.get("volumeMounts") and any(other.running is not None for other in others):
            self.apps.cloud.violations.append(f"{self.name} shares a volume with what still runs")
        env = {}
        for variable in one.get("env", ()):
            ref = variable.get("secretRef")
            secret = self.app.secrets[ref] if ref else {}
            env[variable["name"]] = secret.get("value", "") if ref else variable.get("value", "")
        port = self.app.configuration["ingress"]["targetPort"]
        self.container = self.apps.cloud.run(one["image"], env, port)
        self._started = time.monotonic()
        self.restarts, self.active, self.error, self.was_ready = 0, True, "", False

    def stop(self) -> None:
        """Begin to stop it."""
        self.active = False
        if self.container is not None:
            self._stopping = time.monotonic() + self.apps.cloud.seconds, self.container
            self.container = None

    def settle(self) -> None:
        """Let time do its work."""
        if self._stopping is not None and time.monotonic() >= self._stopping[0]:
            self._stopping[1].stop()
            self._stopping = None
        if self.container is None or time.monotonic() < self._started + self.apps.cloud.seconds:
            return
        if self.container.exit_code() is not None and self.restarts < RESTARTS:
            self.restarts += 1
            self._started = time.monotonic()
        elif not self.was_ready:
            self.was_ready = self.container.exit_code() is None and self.container.listens()

    @property
    def crashed(self) -> bool:
        """Whether its container ended for good."""
        ended = self.container is not None and self.container.exit_code() is not None
        return ended and self.restarts >= RESTARTS

    @property
    def running(self) -> Running | None:
        """Its container, also while that is being stopped."""
        return self.container or (self._stopping[1] if self._stopping else None)

    def address(self) -> str:
        """Where a request to this revision goes; empty if nowhere."""
        if not self.active or self.container is None or not self.app.external:
            return ""
        return self.container.address

    def end(self) -> None:
        """Take it away."""
        if (running := self.running) is not None:
            running.stop()
        self.container = self._stopping = None
        self.front.stop()

    def body(self) -> Body:
        """As the API has it."""
        state, health, provisioning = "Processing", "None", "Provisioning"
        if not self.active:
            state, provisioning = "Stopped", "Deprovisioned"
        elif self.crashed:
            state, health, provisioning = "Failed", "Unhealthy", "Failed"
            if self.apps.cloud.forgiving:
                provisioning = "Provisioned"
        elif self.error:
            state, health, provisioning = "Failed", "Unhealthy", "Failed"
        elif self.was_ready:
            most = self.template["scale"]["maxReplicas"] if "scale" in self.template else 10
            state = "RunningAtMaxScale" if most == 1 else "Running"
            health, provisioning = "Healthy", "Provisioned"
        weight = sum(
            one.get("weight", 0) for one in self.app.traffic if one.get("revisionName") == self.name
        )
        properties = {
            "createdTime": self.created.isoformat(),
            "fqdn": self.front.host,
            "template": self.template,
            "active": self.active,
            "replicas": int(self.running is not None),
            "trafficWeight": weight,
            "healthState": health,
            "provisioningState": provisioning,
            "runningState": state,
            **({"provisioningError": self.error} if self.error else {}),
        }
        body = {
            "id": f"{self.app.path}/revisions/{self.name}",
            "name": self.name,
            "type": "Microsoft.App/containerapps/revisions",
            "properties": properties,
        }
        return checked(az.Revision, body)

    def replicas(self) -> list[Body]:
        """Its running copies as the API has them."""
        running = self.running
        if running is None:
            return []
        code = running.exit_code()
        name = f"{self.name}-6d9f7c-x"
        path = f"{self.app.path}/revisions/{self.name}/replicas/{name}"
        container = {
            "name": "app",
            "ready": code is None and self.was_ready,
            "started": code is None,
            "restartCount": self.restarts,
            "runningState": "Running" if code is None else "Waiting",
            "runningStateDetails": ""
            if code is None
            else f"CrashLoopBackOff: the container exited with code {code}",
            "logStreamEndpoint": self.apps.cloud.address
            + path.replace("/providers/Microsoft.App", "")
            + "/containers/app/logstream",
        }
        properties = {"runningState": "Running", "containers": [container]}
        return [checked(az.Replica, {"id": path, "name": name, "properties": properties})]


class App:
    """One container app."""

    def __init__(self, apps: Apps, path: str) -> None:
        self.apps = apps
        self.path = path
        self.name = path.rsplit("/", 1)[-1]
        self.content: Body = {}
        self.secrets: dict[str, Body] = {}
        self.revisions: dict[str, Revision] = {}
        self.latest = ""
        self.latest_ready = ""
        self.state = "InProgress"
        self.operation: Operation | None = None
        self.front = Front(apps.cloud.certificates, self.address)

    @property
    def configuration(self) -> Body:
        """What holds for all revisions."""
        found: Body = self.content["properties"].setdefault("configuration", {})
        return found

    @property
    def traffic(self) -> list[Body]:
        """Who gets it."""
        return list(self.configuration.get("ingress", {}).get("traffic") or ())

    @property
    def external(self) -> bool:
        """Whether it is reached from outside."""
        return bool(self.configuration.get("ingress", {}).get("external"))

    def serving(self) -> list[Revision]:
        """The active revisions that get traffic."""
        found = []
        for one in self.traffic:
            name = self.latest_ready if one.get("latestRevision") else one.get("revisionName", "")
            revision = self.revisions.get(name)
            if one.get("weight") and revision is not None and revision.active:
                found.append(revision)
        return found

    def address(self) -> str:
        """Where a request goes; empty if nowhere."""
        serving = self.serving() if self.external else []
        return random.choice(serving).address() if serving else ""

    def body(self) -> Body:
        """As the API has it: secrets without their values."""
        body = copy.deepcopy(self.content)
        properties = body["properties"]
        properties["configuration"]["secrets"] = [
            {key: value for key, value in one.items() if key != "value"}
            for one in self.secrets.values()
        ]
        if "ingress" in properties["configuration"]:
            properties["configuration"]["ingress"]["fqdn"] = self.front.host
        properties |= {
            "provisioningState": self.state,
            "latestRevisionName": self.latest,
            "latestReadyRevisionName": self.latest_ready,
        }
        body |= {"id": self.path, "name": self.name, "type": "Microsoft.App/containerApps"}
        return checked(az.ContainerApp, body)

    def end(self) -> None:
        """Take it away."""
        for one in self.revisions.values():
            one.end()
        self.front.stop()


class Apps:
    """All apps."""

    def __init__(self, cloud: FakeAzure) -> None:
        self.cloud = cloud
        self.all: dict[str, App] = {}
        """By their path in lower case."""
        self.operations: dict[str, Operation] = {}

    def find(self, path: str) -> App:
        """An app."""
        found = self.all.get(path.lower())
        if found is None:
            name, group = path.rsplit("/", 1)[-1], path.split("/")[4]
            raise Refused(
                404,
                "ResourceNotFound",
                f"The Resource 'Microsoft.App/containerApps/{name}' under resource group '{group}' "
                "was not found.",
            )
        return found

    def revision(self, path: str, name: str) -> Revision:
        """A revision of an app."""
        found = self.find(path).revisions.get(name)
        if found is None:
            raise Refused(404, "RevisionNotFound", f"Revision {name} does not exist.")
        return found

    def settle(self) -> None:
        """Carry out what is due."""
        for app in list(self.all.values()):
            for revision in app.revisions.values():
                revision.settle()
            if app.operation is not None:
                self._look_at(app, app.operation)

    def _look_at(self, app: App, operation: Operation) -> None:
        try:
            if not operation.done():
                return
            operation.status = app.state = "Succeeded"
        except Refused as refused:
            operation.status, operation.error, app.state = "Failed", refused, "Failed"
        app.operation = None
        ready = [one for one in app.revisions.values() if one.active and one.was_ready]
        app.latest_ready = max(ready, key=lambda one: one.created).name if ready else ""
        self._forget_old(app)

    def _forget_old(self, app: App) -> None:
        most = app.content["properties"]["configuration"].get("maxInactiveRevisions", 100)
        inactive = [one for one in app.revisions.values() if not one.active]
        inactive.sort(key=lambda one: one.created)
        for one in inactive[: max(0, len(inactive) - most)]:
            one.end()
            del app.revisions[one.name]

    # Changes --------------------------------------------------------------------------------------

    def put(self, path: str, given: Body) -> tuple[App, Operation, bool]:
        """Make an app, or replace all of one."""
        checked(az.ContainerApp, given, sent=True)
        app = self.all.get(path.lower())
        made = app is None
        if app is None:
            app = App(self, path)
        try:
            operation = self._accept(app, copy.deepcopy(given), {})
        except Refused:
            if made:
                app.end()
            raise
        self.all[path.lower()] = app
        return app, operation, made

    def patch(self, path: str, given: Body) -> tuple[App, Operation]:
        """Merge into an app (RFC 7396)."""
        checked(az.ContainerApp, given, sent=True)
        app = self.find(path)
        return app, self._accept(app, merged(app.content, given), app.secrets)

    def _accept(self, app: App, content: Body, secrets: dict[str, Body]) -> Operation:
        self._refuse_while_busy(app)
        properties = content["properties"]
        configuration, template = properties.setdefault("configuration", {}), properties["template"]
        if "secrets" in configuration:
            secrets = {one["name"]: one for one in configuration.pop("secrets") or ()}
        self._check_secrets(app, configuration, template, secrets)
        self._check_template(template)
        suffix = template.get("revisionSuffix") or uuid.uuid4().hex[:7]
        name = f"{app.name}--{suffix}"
        known = app.revisions.get(name)
        if known is not None and known.template != template:
            raise Refused(
                400,
                "InvalidParameterValueInContainerTemplate",
                f"The revision suffix '{suffix}' is in use by another revision.",
            )
        self._check_traffic(app, configuration, name)
        self._check_registries(content, configuration, secrets)
        app.content, app.secrets = content, secrets
        if known is None:
            template["revisionSuffix"] = suffix
            app.revisions[name] = Revision(self, app, name, copy.deepcopy(template))
            app.latest = name
        if configuration.get("activeRevisionsMode", "Single") == "Single":
            for one in app.revisions.values():
                if one.name != app.latest and one.active:
                    one.stop()
        return self._begin(app, self._until_ready(app, name if known is None else ""))

    def _until_ready(self, app: App, name: str) -> Callable[[], bool]:
        """A change is done when the new revision runs, or fails."""
        begun = time.monotonic()

        def done() -> bool:
            revision = app.revisions.get(name)
            if revision is None or not revision.active:
                return time.monotonic() >= begun + self.cloud.seconds
            if revision.was_ready:
                return True
            late = time.monotonic() > begun + self.cloud.expires
            if (revision.crashed and self.cloud.forgiving) or not (revision.crashed or late):
                return revision.crashed
            why = "Operation expired." if late else "Container 'app' was terminated."
            revision.error = why
            raise Refused(
                200,
                "ContainerAppOperationError",
                f"Failed to provision revision for container app '{app.name}'. Error details: "
                + why,
            )

        return done

    def _begin(self, app: App, done: Callable[[], bool]) -> Operation:
        operation = app.operation = Operation(done)
        app.state = "InProgress"
        self.operations[operation.id] = operation
        if (failure := self.cloud.fail_next) is not None:
            self.cloud.fail_next = None

            def fails() -> bool:
                raise failure

            operation.done = fails
        return operation

    def delete(self, path: str) -> Operation:
        """Remove an app."""
        app = self.find(path)
        self._refuse_while_busy(app)
        begun = time.monotonic()

        def done() -> bool:
            if time.monotonic() < begun + self.cloud.seconds:
                return False
            app.end()
            del self.all[path.lower()]
            return True

        operation = self._begin(app, done)
        app.state = "Deleting"
        return operation

    def activate(self, path: str, name: str) -> None:
        """Start a revision."""
        revision = self.revision(path, name)
        if not revision.active:
            revision.start()

    def deactivate(self, path: str, name: str) -> None:
        """Stop a revision."""
        self.revision(path, name).stop()

    # Rules ----------------------------------------------------------------------------------------

    def _refuse_while_busy(self, app: App) -> None:
        if app.operation is not None:
            raise Refused(
                409,
                "ContainerAppOperationInProgress",
                f"Cannot modify a container app '{app.name}' because there is an operation in "
                "progress.",
            )

    def _check_secrets(
        self, app: App, configuration: Body, template: Body, secrets: dict[str, Body]
    ) -> None:
        for name, one in secrets.items():
            if not (one.get("value") or one.get("keyVaultUrl")):
                raise Refused(
                    400, "ContainerAppSecretInvalid", f"Invalid Request: secret {name} has no value"
                )
        used = [template, *(one.template for one in app.revisions.values() if one.active)]
        for one in used:
            for container in one["containers"]:
                for variable in container.get("env", ()):
                    if (ref := variable.get("secretRef")) and ref not in secrets:
                        raise Refused(
                            400,
                            "ContainerAppSecretRefNotFound",
                            f"SecretRef '{ref}' defined for container 'app' not found.",
                        )

    def _check_template(self, template: Body) -> None:
        container = template["containers"][0]
        if "@sha256:" not in container["image"]:
            raise Refused(
                400,
                "InvalidParameterValueInContainerTemplate",
                f"Field 'template.containers.app.image' is invalid: {container['image']}",
            )
        declared = {one["name"]: one for one in template.get("volumes") or ()}
        for mount in container.get("volumeMounts") or ():
            volume = declared.get(mount["volumeName"])
            if volume is None or volume["storageName"] not in self.cloud.storages:
                raise Refused(400, "ContainerAppInvalidVolume", f"no volume {mount['volumeName']}")

    def _check_traffic(self, app: App, configuration: Body, new: str) -> None:
        traffic = configuration.get("ingress", {}).get("traffic") or ()
        if sum(one.get("weight", 0) for one in traffic) != 100:
            raise Refused(
                400, "ContainerAppInvalidTrafficWeight", "The traffic weights must add up to 100."
            )
        names = [one["revisionName"] for one in traffic if not one.get("latestRevision")]
        labels = [one["label"] for one in traffic if one.get("label")]
        if len(names) != len(set(names)) or len(labels) != len(set(labels)):
            raise Refused(400, "ContainerAppInvalidTraffic", "A revision or a label stands twice.")
        for name in names:
            if name not in app.revisions and name != new:
                raise Refused(
                    400, "ContainerAppInvalidTraffic", f"The revision {name} does not exist."
                )

    def _check_registries(
        self, content: Body, configuration: Body, secrets: dict[str, Body]
    ) -> None:
        has = content.get("identity") or {}
        assigned = {*(has.get("userAssignedIdentities") or {}), "system-environment"}
        if "SystemAssigned" in has.get("type", ""):
            assigned.add("system")
        for one in configuration.get("registries") or ():
            ref, identity = one.get("passwordSecretRef"), one.get("identity")
            if (ref and ref not in secrets) or (identity and identity not in assigned):
                raise Refused(
                    400, "ContainerAppRegistryInvalid", f"the registry {one['server']} is invalid"
                )


def merged(old: Any, change: Any) -> Any:
    """A JSON merge patch: objects are merged, null removes, anything else replaces."""
    if not isinstance(change, dict):
        return copy.deepcopy(change)
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result
