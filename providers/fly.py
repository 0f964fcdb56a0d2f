"""The `fly` kind: Fly Machines.

A release with a volume runs on one machine, which is updated in place: Fly stops the old version
before it starts the new one, so the database's files are never open twice. Any other release gets a
machine of its own beside the previous one, without traffic until it is promoted.

Nothing is remembered here: a machine's metadata says which deployment made it, which release it
runs, and whether it was promoted; Fly itself keeps every version of a machine's config.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from typing import ClassVar

from pydantic import BaseModel

from model.base import Record
from model.errors import (
    ConfigurationError,
    Conflict,
    HelixError,
    NotFound,
    NothingToRestore,
)
from model.fly import fly_app, fly_token
from model.instance import Instance
from model.platform import Capabilities, Endpoint, Identity, Phase, Release, Revision, Rollout
from providers import fly_preflight as preflight
from providers.base import CloudProvider, Context, superseded
from providers.fly_api import FlyApi, Json
from providers.fly_app import READ_EVERY, FlyApp
from providers.fly_logs import LogReader
from providers.fly_machine import (
    ARTIFACT,
    CONFIG,
    DEPLOYMENT,
    INSTANCE,
    REPLACED,
    SERVING,
    FlySettings,
    checks_of,
    config_of,
    in_place_of,
    is_down,
    is_gone,
    machine_name,
    metadata_of,
    mounts_of,
    release_of,
    revision_of,
    serving_of,
)

SETTLING = 30.0
"""Seconds after a change in which the API may still show what was before it."""
CRASHES = 3
"""A release that exits so often does not run, though Fly would start it again."""
LOG_PAUSE = 1.0
"""Seconds between two looks for new log lines."""


class FlyHandle(Record):
    """What any worker needs to go on with a release."""

    machine: str
    version: str
    """The version of the machine that is the release."""
    replaces: str = ""
    """The version it had before, which a late answer may still show."""
    beside: tuple[str, ...] = ()
    """Other machines that serve together with it."""
    at: float = 0
    """When it was begun: Unix time."""


class FlyProvider(CloudProvider):
    """Runs releases of an instance as Fly Machines, in an app of its own."""

    kind: ClassVar[str] = "fly"
    capabilities: ClassVar[Capabilities] = Capabilities(volumes=True)
    Settings: ClassVar[type[BaseModel]] = FlySettings

    def __init__(self, instance: Instance, context: Context) -> None:
        super().__init__(instance, context)
        self.settings = FlySettings.model_validate(instance.target.settings)

    @cached_property
    def app(self) -> FlyApp:
        """The app, existing or not."""
        token = fly_token(self.settings.auth_type, self.settings.token, self.context.secret)
        return FlyApp(FlyApi(fly_app(self.instance.project, self.instance.name), token))

    def close(self) -> None:
        if "app" in self.__dict__:
            self.app.api.close()

    # Before anything is changed ------------------------------------------------------------------

    def identity(self) -> Identity:
        found = self.app.api.call("GET", "//tokens/current", "ask Fly.io whose token it is") or {}
        tokens = found.get("tokens") or [{}]
        who = tokens[0].get("user") or tokens[0].get("organization") or tokens[0].get("org_slug")
        return Identity(where="fly.io", who=str(who or "a token"))

    def preflight(self) -> None:
        preflight.check_settings(self.instance, self.settings)
        preflight.check_region(self.settings.region, self._regions().get("regions") or [])
        found = self.app.describe()
        preflight.check_app(self.app, found, self.settings)
        machines = self.app.machines() if found else []
        preflight.check_machines(self.app, machines, self.instance)
        preflight.check_volume(self._volume(machines) if found else None, self.settings)
        self.context.notes.extend(preflight.notes(self.instance, serving_of(machines)))

    # What runs -----------------------------------------------------------------------------------

    def current(self) -> Revision | None:
        machines = self.app.machines()
        serving = serving_of(machines)
        if serving:
            ids = [str(one["id"]) for one in serving]
            first = serving[0]
            return revision_of(first, first["instance_id"], first.get("config") or {}, ids)
        machine = in_place_of(machines)
        if machine is None:
            return None
        # What a release replaces in place is still the current one, until that is promoted.
        version = metadata_of(machine)[REPLACED]
        return revision_of(machine, version, self.app.version(machine["id"], version) or {}, [])

    # A release begins ----------------------------------------------------------------------------

    def start(self, release: Release, previous: Revision | None) -> str:
        image = release.artifact.image
        if image is None or not image.digest:
            raise ConfigurationError(
                "Fly.io can only run an image that is in a registry", hint="push it first"
            )
        self.app.create(self.settings.org or "personal")
        machines = self.app.machines()
        mine = [one for one in machines if metadata_of(one).get(DEPLOYMENT) == release.deployment]
        if mine:
            for double in mine[1:]:  # two attempts at once; the first stays
                self.app.delete(double)
            return _handle(mine[0], replaces=metadata_of(mine[0]).get(REPLACED, ""))
        self._fence(release, machines)
        serving = serving_of(machines)
        if len(serving) == 1 and self._unchanged(release, serving[0]):
            self.app.start(serving[0])
            return _handle(serving[0])
        secrets = self._store_secrets()
        volume = self._ensure_volume(machines)
        for left in machines:
            if _is_left_over(left) and left not in serving:
                self.app.delete(left)
        machines = [one for one in machines if not _is_left_over(one) or one in serving]
        self.context.report("starting the machine")
        place = self._place(machines, serving, volume)
        if self.instance.stop_first:
            for machine in machines:
                if machine is not place:
                    self.app.retire(machine)
        if place is not None:
            return self._update(release, place, volume, secrets)
        return self._create(release, volume, secrets)

    def _fence(self, release: Release, machines: list[Json]) -> None:
        for machine in machines:
            metadata = metadata_of(machine)
            if metadata.get(INSTANCE) == self.instance.key and (
                release_of(metadata) > release.number
            ):
                raise superseded(release_of(metadata), release.number)

    def _unchanged(self, release: Release, machine: Json) -> bool:
        metadata = metadata_of(machine)
        same = metadata.get(ARTIFACT), metadata.get(CONFIG)
        checks = (machine.get("config") or {}).get("checks") or {}
        return (
            same == (release.artifact.identity, release.instance.config_digest)
            and _same_checks(checks, checks_of(release.instance))
            and machine.get("state") in ("started", "starting", "stopped", "suspended")
        )

    def _store_secrets(self) -> int:
        """Give the app its secrets. Returns the version that a machine must have."""
        values = {
            name: self.context.secret(reference).get_secret_value()
            for name, reference in self.instance.secrets.items()
        }
        return self.app.set_secrets(values) if values else 0

    def _place(self, machines: list[Json], serving: list[Json], volume: Json | None) -> Json | None:
        """The machine to update in place, if the release goes in place of the previous one and is
        mounted alike: Fly cannot give an existing machine another volume."""
        if not self.instance.stop_first:
            return None
        mounts = [(volume["id"], self.instance.volumes[0].mount)] if volume else []
        alike = [one for one in machines if mounts_of(one) == mounts]
        return next((one for one in alike if one in serving), alike[-1] if alike else None)

    def _update(self, release: Release, machine: Json, volume: Json | None, secrets: int) -> str:
        metadata = metadata_of(machine)
        adopted = INSTANCE not in metadata
        before = str(machine["instance_id"])
        served = before if adopted or SERVING in metadata else metadata.get(REPLACED, "")
        if volume is not None:
            self.app.snapshot(volume)
        config = config_of(release, self.settings, volume["id"] if volume else "", served)
        request: Json = {"config": config, "skip_service_registration": True}
        if secrets:
            request["min_secrets_version"] = secrets
        changed = self.app.update(machine, request, f"helix deployment {release.deployment}")
        return _handle(changed, replaces=before)

    def _create(self, release: Release, volume: Json | None, secrets: int) -> str:
        config = config_of(release, self.settings, volume["id"] if volume else "", "")
        request: Json = {
            "name": machine_name(release),
            "config": config,
            "skip_service_registration": True,
        }
        region = volume["region"] if volume else self.settings.region
        if region:
            request["region"] = region
        if secrets:
            request["min_secrets_version"] = secrets
        return _handle(self.app.create_machine(request))

    def _volume(self, machines: list[Json]) -> Json | None:
        """The instance's volume; None if it wants none, or there is none yet.

        Raises:
            Conflict: a machine that is not ours has it, or there are several.
        """
        if not self.instance.volumes:
            return None
        name = self.instance.volumes[0].name
        volumes = self.app.volumes(name)
        ids = {str(one["id"]) for one in machines}
        attached = [one for one in volumes if one.get("attached_machine_id") in ids]
        free = [one for one in volumes if not one.get("attached_machine_id")]
        found = attached or free
        if len(found) > 1 or (volumes and not found):
            listed = ", ".join(
                f"{one['id']} ({one.get('attached_machine_id') or 'free'})" for one in volumes
            )
            raise Conflict(
                f"it is not clear which volume «{name}» of {self.app.name} has the data: {listed}",
                hint="remove those that are not needed: fly volumes destroy <id>",
            )
        return found[0] if found else None

    def _ensure_volume(self, machines: list[Json]) -> Json | None:
        if not self.instance.volumes:
            return None
        wanted = self.instance.volumes[0]
        size = wanted.size_gb or self.settings.volume_initial_size
        volume = self._volume(machines)
        if volume is None:
            region = self.settings.region or str(self._regions().get("nearest") or "iad")
            return self.app.create_volume(wanted.name, region, max(1, size))
        self.app.extend(volume, size)
        return volume

    def _regions(self) -> Json:
        found: Json = self.app.api.call("GET", "//platform/regions", "list Fly.io's regions") or {}
        return found

    # How far it is -------------------------------------------------------------------------------

    def poll(self, handle: str) -> Rollout:
        given = FlyHandle.model_validate_json(handle)
        settling = time.time() - given.at < SETTLING
        machine = self.app.machine(given.machine)
        if machine is None:
            if settling:
                return Rollout(phase=Phase.STARTING, detail="the machine is being created")
            return Rollout(phase=Phase.FAILED, detail=f"the machine {given.machine} is gone")
        seen = machine.get("instance_id")
        if seen != given.version:
            if seen == given.replaces:
                return Rollout(phase=Phase.STARTING, detail="the machine is being updated")
            return Rollout(
                phase=Phase.FAILED, detail=f"someone else updated the machine {given.machine}"
            )
        state = str(machine.get("state"))
        crashed = _exits(machine)
        if machine.get("host_status") == "unreachable":
            return self._failed(given, "the machine's host cannot be reached")
        if len(crashed) >= CRASHES or (crashed and is_down(machine)):
            return self._failed(given, f"it exited: {crashed[0]}")
        if is_down(machine) and not settling:
            return self._failed(given, f"the machine is {state}")
        if state == "started":
            return Rollout(phase=Phase.RUNNING, detail=f"the machine {given.machine} runs")
        return Rollout(phase=Phase.STARTING, detail=f"the machine is {state}")

    def _failed(self, handle: FlyHandle, detail: str) -> Rollout:
        lines: list[str] = []
        with suppress(HelixError):  # the failure itself is what matters
            lines = [*LogReader(self.app.api, handle.machine).new()][-HelixError.EVIDENCE_LINES :]
        return Rollout(phase=Phase.FAILED, detail=detail, logs="\n".join(lines))

    def endpoint(self, handle: str) -> Endpoint | None:
        """None: until it is promoted, a machine has no traffic, not even from us."""
        return None

    def probe(self, handle: str) -> str:
        given = FlyHandle.model_validate_json(handle)
        machine = self.app.machine(given.machine) or {}
        if machine.get("instance_id") != given.version:
            return "the machine is being updated"
        if machine.get("state") != "started":
            return f"the machine is {machine.get('state')}"
        expected = (machine.get("config") or {}).get("checks") or {}
        found = {one.get("name"): one for one in machine.get("checks") or []}
        for name in expected:
            check = found.get(name) or {}
            if check.get("status") != "passing":
                said = str(check.get("output") or "not checked yet").strip().splitlines()
                return f"Fly.io's check «{name}»: {said[0][:200] if said else 'failing'}"
        return ""

    def run_check(self, handle: str, command: Sequence[str], timeout: float) -> tuple[int, str]:
        given = FlyHandle.model_validate_json(handle)
        done = self.app.execute(given.machine, list(command), max(1, math.ceil(timeout)))
        output = f"{done.get('stdout') or ''}{done.get('stderr') or ''}"
        return int(done.get("exit_code") or 0), output

    # The end, good or bad ------------------------------------------------------------------------

    def promote(self, handle: str) -> Revision:
        given = FlyHandle.model_validate_json(handle)
        serve = {given.machine, *given.beside}
        first = self.app.machine(given.machine)
        if first is None:
            raise NotFound(f"the machine {given.machine} is gone", hint="push again")
        machines = self.app.machines()
        ours = [first, *(one for one in machines if one["id"] in given.beside)]
        self.app.ensure_addresses(private=self.settings.private)
        for machine in ours:
            self.app.open(machine)
        for machine in machines:
            if machine["id"] not in serve:
                self.app.retire(machine)
        return revision_of(
            first, given.version, first.get("config") or {}, [str(one["id"]) for one in ours]
        )

    def restore(self, deployment: str, previous: Revision | None) -> str | None:
        machines = self.app.machines()
        mine = [one for one in machines if metadata_of(one).get(DEPLOYMENT) == deployment]
        if previous is None:
            for machine in mine:
                self.app.delete(machine)
            return None
        home = previous.detail.get("machine", "")
        updated = next((one for one in mine if one["id"] == home), None)
        if updated is None:
            # Its volume, if it had one, is free again only when ours is gone.
            for machine in mine:
                self.app.delete(machine)
            return self._bring_back(machines, previous)
        for machine in mine:
            if machine is not updated:
                self.app.delete(machine)
        config = self.app.version(home, previous.id)
        if not config:
            raise NothingToRestore(
                f"Fly.io does not know the version {previous.id} of the machine {home} any more",
                hint="push the last good source again",
            )
        metadata = {**(config.get("metadata") or {}), SERVING: "1"}
        request = {"config": {**config, "metadata": metadata}}
        restored = self.app.update(updated, request, f"helix: undo {deployment}")
        return _handle(restored, replaces=str(updated["instance_id"]))

    def _bring_back(self, machines: list[Json], previous: Revision) -> str:
        """Start the machines of the previous release again, which were not changed."""
        wanted = previous.detail.get("machines", previous.detail.get("machine", "")).split(",")
        found = [one for one in machines if one["id"] in wanted]
        if not found:
            raise NothingToRestore(
                f"the machine {', '.join(wanted)} of release {previous.release} is gone",
                hint="push the last good source again",
            )
        for machine in found:
            self.app.start(machine)
        beside = tuple(str(one["id"]) for one in found[1:])
        return _handle(found[0], beside=beside)

    def public_url(self) -> str:
        if self.settings.private:
            return f"http://{self.app.name}.internal:{self.instance.port}"
        return f"https://{self.app.name}.fly.dev"

    def prune(self, keep: Sequence[Revision]) -> None:
        machines = self.app.machines()
        kept = {one["id"] for one in serving_of(machines)}
        kept |= {
            name for revision in keep for name in revision.detail.get("machines", "").split(",")
        }
        for machine in machines:
            if machine["id"] not in kept and INSTANCE in metadata_of(machine):
                self.app.delete(machine)

    def destroy(self, *, data: bool) -> None:
        if self.app.describe() is None:
            return
        gone = {one["id"] for one in self.app.machines()}
        for machine_id in gone:
            self.app.delete({"id": machine_id})
        self._wait_until_gone(gone)
        if data and self.instance.volumes:
            for volume in self.app.volumes(self.instance.volumes[0].name):
                self.app.delete_volume(volume)
        if self.app.other_machines(gone) or self.app.volumes():
            self.app.ensure_addresses(private=True)  # what is left is not ours to remove
        else:
            self.app.remove()

    def _wait_until_gone(self, machines: Iterable[str]) -> None:
        """A volume is free only when its machine is gone."""
        end = time.monotonic() + SETTLING
        while time.monotonic() < end:
            if all(is_gone(self.app.machine(one)) for one in machines):
                return
            self.context.report("waiting until the machines are gone")
            time.sleep(READ_EVERY)

    # Logs ----------------------------------------------------------------------------------------

    def logs(
        self, *, since: datetime | None = None, tail: int | None = None, follow: bool = False
    ) -> Iterator[str]:
        revision = self.current()
        if revision is None:
            return
        reader = LogReader(self.app.api, revision.detail["machine"], since)
        yield from deque(reader.new(), maxlen=tail)
        while follow:
            time.sleep(LOG_PAUSE)
            yield from reader.new()


def _handle(machine: Json, *, replaces: str = "", beside: tuple[str, ...] = ()) -> str:
    return FlyHandle(
        machine=machine["id"],
        version=machine["instance_id"],
        replaces=replaces,
        beside=beside,
        at=time.time(),
    ).model_dump_json()


def _is_left_over(machine: Json) -> bool:
    """Whether a failed deployment made the machine, and nothing served on it before."""
    metadata = metadata_of(machine)
    return INSTANCE in metadata and SERVING not in metadata and REPLACED not in metadata


def _same_checks(found: Json, wanted: Json) -> bool:
    """Whether a machine's checks are those we would ask for; Fly may add fields of its own."""
    return found.keys() == wanted.keys() and all(
        found[name].get(key) == value for name in wanted for key, value in wanted[name].items()
    )


def _exits(machine: Json) -> list[str]:
    """How often this version of the machine ended without being asked to, newest first."""
    found = []
    events = sorted(
        machine.get("events") or [], key=lambda one: one.get("timestamp") or 0, reverse=True
    )
    for event in events:
        if event.get("type") in ("launch", "update"):
            break
        ended = (event.get("request") or {}).get("exit_event") or {}
        if event.get("type") == "exit" and not ended.get("requested_stop"):
            why = "out of memory, " if ended.get("oom_killed") else ""
            found.append(f"{why}exit code {ended.get('exit_code', 'unknown')}")
    return found
