"""An app on Fly.io as the provider sees it: machines, leases, volumes, secrets, addresses.

One method is one thing to do, and may be done again.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from model.errors import Busy, Conflict, HelixError, NotFound
from providers.fly_api import FlyApi, Json
from providers.fly_machine import INSTANCE, SERVING, is_gone, metadata_of, serves

LEASE_SECONDS = 30
"""How long a machine stays ours if we die while we change it."""
READ_EVERY = 0.5
"""Seconds between two reads of the same machine; Fly allows five a second."""
PRIVATE_ADDRESS = "fdaa:"
"""How the addresses of Fly's private network begin."""


class FlyApp:
    """What one app has, and what can be done to it."""

    def __init__(self, api: FlyApi) -> None:
        self.api = api
        self._read: dict[str, tuple[float, Json | None]] = {}

    @property
    def name(self) -> str:
        return self.api.app

    # The app itself --------------------------------------------------------------------------

    def describe(self) -> Json | None:
        """What the API says of the app; None if there is none."""
        found: Json | None = self.api.find("", f"look for the app {self.name}")
        return found

    def create(self, org: str) -> None:
        """Create the app if there is none."""
        if self.describe() is None:
            body = {"name": self.name, "org_slug": org}
            self.api.call("POST", "//apps", f"create the app {self.name}", body)

    def remove(self) -> None:
        """Remove the app, with whatever is left in it."""
        with suppress(NotFound):
            self.api.call("DELETE", "", f"remove the app {self.name}")

    # Machines --------------------------------------------------------------------------------

    def machines(self) -> list[Json]:
        """The machines of the group that serves, oldest first; none if there is no app."""
        found = self.api.find("/machines", f"list the machines of {self.name}") or []
        return sorted(filter(serves, found), key=lambda one: str(one.get("created_at", "")))

    def other_machines(self, than: Container[str]) -> list[Json]:
        """All machines of the app, of whatever group, but the given ids."""
        found = self.api.find("/machines", f"list what is left of {self.name}") or []
        return [one for one in found if one["id"] not in than and not is_gone(one)]

    def machine(self, machine_id: str) -> Json | None:
        """One machine, as it was at most `READ_EVERY` seconds ago; None if it is not there."""
        at, known = self._read.get(machine_id, (float("-inf"), None))
        if time.monotonic() - at >= READ_EVERY:
            known = self.api.find(f"/machines/{machine_id}", f"read the machine {machine_id}")
            self._read[machine_id] = (time.monotonic(), known)
        return known

    def create_machine(self, request: Json) -> Json:
        """Create one. Its `name` is taken once only, so that nothing is created twice.

        Raises:
            Busy: it was created a moment ago, and the list does not show it yet.
        """
        try:
            made: Json = self.api.call("POST", "/machines", "create a machine", request)
        except Conflict as error:
            if isinstance(error, Busy):
                raise
            raise Busy(f"the machine {request['name']} is there already: {error.message}") from None
        return made

    def update(self, machine: Json, request: Json, why: str) -> Json:
        """Give a machine another config, provided that it still has the version we know.

        Raises:
            Busy: someone else holds its lease, or has changed it.
        """
        machine_id = str(machine["id"])
        self._read.pop(machine_id, None)
        with self._leased(machine_id, why) as nonce:
            changed: Json = self.api.call(
                "POST",
                f"/machines/{machine_id}",
                f"update the machine {machine_id}",
                {**request, "current_version": machine["instance_id"]},
                nonce=nonce,
            )
        return changed

    def start(self, machine: Json) -> None:
        """Start a machine that does not run."""
        if machine.get("state") not in ("started", "starting"):
            self._act(machine, "start")

    def open(self, machine: Json) -> None:
        """Let a machine have traffic, and note that it serves."""
        self._act(machine, "uncordon")
        machine_id = machine["id"]
        self.api.call(
            "POST",
            f"/machines/{machine_id}/metadata/{SERVING}",
            f"note that the machine {machine_id} serves",
            {"value": "1"},
        )

    def retire(self, machine: Json) -> None:
        """Take a machine's traffic away and stop it; it can come back."""
        stopped = machine.get("state") in ("stopped", "stopping", "suspended")
        if stopped and INSTANCE in metadata_of(machine):
            return
        self._act(machine, "cordon")
        if not stopped:
            self._act(machine, "stop")

    def delete(self, machine: Json) -> None:
        """Remove a machine, whatever it does. Its volume stays."""
        machine_id = machine["id"]
        self._read.pop(machine_id, None)
        with suppress(NotFound):
            self.api.call(
                "DELETE",
                f"/machines/{machine_id}",
                f"remove the machine {machine_id}",
                query={"force": "true"},
            )

    def version(self, machine_id: str, version: str) -> Json | None:
        """The config that a machine had at a version; None if it is not known any more."""
        path = f"/machines/{machine_id}/versions"
        for one in self.api.find(path, f"list the versions of the machine {machine_id}") or []:
            if one.get("version") == version:
                config: Json | None = one.get("user_config")
                return config
        return None

    def execute(self, machine_id: str, command: list[str], timeout: int) -> Json:
        """Run a command in a machine."""
        result: Json = self.api.call(
            "POST",
            f"/machines/{machine_id}/exec",
            f"run {command[0]} in the machine {machine_id}",
            {"command": command, "timeout": timeout},
            timeout=timeout + 5,
        )
        return result

    def _act(self, machine: Json, verb: str) -> None:
        machine_id = machine["id"]
        self._read.pop(machine_id, None)
        self.api.call("POST", f"/machines/{machine_id}/{verb}", f"{verb} the machine {machine_id}")

    @contextmanager
    def _leased(self, machine_id: str, why: str) -> Iterator[str]:
        path = f"/machines/{machine_id}/lease"
        doing = f"get the lease of the machine {machine_id}"
        wanted = {"ttl": LEASE_SECONDS, "description": why}
        try:
            lease = self.api.call("POST", path, doing, wanted)
        except Busy as error:
            # An earlier attempt of ours may have died with it: then it ends soon.
            error.retry_after = error.retry_after or 5
            raise
        # The OpenAPI document has the lease itself; flyctl expects it under `data`.
        nonce = str(lease.get("nonce") or (lease.get("data") or {}).get("nonce") or "")
        try:
            yield nonce
        finally:
            with suppress(HelixError):  # it ends by itself
                self.api.call("DELETE", path, "give the lease back", nonce=nonce)

    # Volumes ---------------------------------------------------------------------------------

    def volumes(self, name: str = "") -> list[Json]:
        """The app's volumes, of one name if given; none if there is no app."""
        found = self.api.find("/volumes", f"list the volumes of {self.name}") or []
        return [
            one
            for one in found
            if "destroy" not in str(one.get("state", "")) and name in ("", one.get("name"))
        ]

    def create_volume(self, name: str, region: str, size_gb: int) -> Json:
        """Make an empty, encrypted volume."""
        body = {"name": name, "region": region, "size_gb": size_gb, "encrypted": True}
        made: Json = self.api.call("POST", "/volumes", f"make the volume {name}", body)
        return made

    def extend(self, volume: Json, size_gb: int) -> None:
        """Grow a volume; no volume ever shrinks."""
        if int(volume.get("size_gb") or 0) < size_gb:
            path = f"/volumes/{volume['id']}/extend"
            self.api.call("PUT", path, f"grow the volume {volume['id']}", {"size_gb": size_gb})

    def snapshot(self, volume: Json) -> None:
        """Begin a snapshot of a volume. Fly keeps it for some days."""
        path = f"/volumes/{volume['id']}/snapshots"
        self.api.call("POST", path, f"begin a snapshot of the volume {volume['id']}")

    def delete_volume(self, volume: Json) -> None:
        """Remove a volume with its data."""
        with suppress(NotFound):
            path = f"/volumes/{volume['id']}"
            self.api.call("DELETE", path, f"remove the volume {volume['id']}")

    # Secrets, addresses ----------------------------------------------------------------------

    def set_secrets(self, values: dict[str, str]) -> int:
        """Store secrets with the app; others that it has stay.

        Returns:
            The version from which on a machine has them.
        """
        answer = self.api.call(
            "POST", "/secrets", f"store the secrets {', '.join(sorted(values))}", {"values": values}
        )
        return int((answer or {}).get("version") or (answer or {}).get("Version") or 0)

    def ensure_addresses(self, *, private: bool) -> None:
        """Have a public address, or none."""
        path, doing = "/ip_assignments", f"see to the addresses of {self.name}"
        found: list[dict[str, Any]] = (self.api.call("GET", path, doing) or {}).get("ips") or []
        public = [one["ip"] for one in found if not one["ip"].startswith(PRIVATE_ADDRESS)]
        if private:
            for address in public:
                with suppress(NotFound):
                    self.api.call("DELETE", f"{path}/{address}", doing)
        elif not public:
            for kind in ("shared_v4", "v6"):
                self.api.call("POST", path, doing, {"type": kind})
