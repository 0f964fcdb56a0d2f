"""One container app, read and changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from azure.mgmt.appcontainers import models as az

from model.errors import Busy, NotFound, Transient
from providers import azure_app as aca
from providers.azure_api import Api

APPS = "Microsoft.App/containerApps"
SETTLE_SECONDS = 30.0
"""How long containers may take to stop before the attempt ends; the next one goes on waiting."""
LOOK_SECONDS = 0.5


class App:
    """An app by its name, whether it is there or not.

    Args:
        report: says what is waited for; may raise to give up the wait.
    """

    def __init__(
        self, api: Api, group: str, name: str, location: str, report: Callable[[str], None]
    ) -> None:
        self.name = name
        self.group = group
        self._api = api
        self._location = location
        self._report = report

    # Read -----------------------------------------------------------------------------------------

    def find(self) -> az.ContainerApp | None:
        """The app; None if there is none.

        Raises:
            NotFound: there is not even its resource group.
        """
        try:
            found: az.ContainerApp = self._read(self._apps.get, doing=f"{APPS}/read")
        except NotFound as error:
            if "ResourceGroupNotFound" in error.message:
                raise
            return None
        return found

    def get(self) -> az.ContainerApp:
        """The app.

        Raises:
            NotFound: there is none.
        """
        app = self.find()
        if app is None:
            raise NotFound(f"the container app {self.name} is gone", hint="run: helix push")
        return app

    def revision(self, name: str) -> az.Revision | None:
        """One revision; None if there is none of that name."""
        method = self._api.client.container_apps_revisions.get_revision
        try:
            found: az.Revision = self._read(method, name, doing=f"{APPS}/revisions/read")
        except NotFound:
            return None
        return found

    def revisions(self) -> list[az.Revision]:
        """All revisions that Azure remembers, running or not."""
        method = self._api.client.container_apps_revisions.list_revisions
        found: list[az.Revision] = self._read(method, doing=f"{APPS}/revisions/read")
        return found

    def replicas(self, revision: str) -> list[az.Replica]:
        """The running copies of a revision."""
        method = self._api.client.container_apps_revision_replicas.list_replicas
        try:
            found = self._read(method, revision, doing=f"{APPS}/revisions/replicas/read")
        except NotFound:
            return []
        return list(found.value or ())

    def secrets(self) -> list[az.ContainerAppSecret]:
        """The app's secrets with their values."""
        found = self._read(self._apps.list_secrets, doing=f"{APPS}/listSecrets/action")
        return list(found.value or ())

    def stream_token(self) -> str:
        """What opens the log streams of the app's containers."""
        found = self._read(self._apps.get_auth_token, doing=f"{APPS}/getAuthToken/action")
        return str(found.properties.token)

    # Change ---------------------------------------------------------------------------------------

    def create(self, app: az.ContainerApp) -> None:
        """Begin to make it. How that goes is seen at the revision, by any worker."""
        self._write(self._apps.begin_create_or_update, app, polling=False)

    def change(self, change: az.ContainerApp) -> None:
        """Begin to merge a change into it."""
        self._write(self._apps.begin_update, change, polling=False)

    def finish(self, configuration: az.Configuration, what: str) -> None:
        """Change what holds for all revisions, and wait until it does."""
        properties = az.ContainerAppProperties(configuration=configuration)
        self._api.finish(
            self._apps.begin_update,
            self.group,
            self.name,
            az.ContainerApp(location=self._location, properties=properties),
            doing=f"{APPS}/write",
            report=lambda: self._report(what),
        )

    def delete(self) -> None:
        """Delete it, once no other change is under way, and return when it is gone."""
        what = f"{self.name} is being deleted"

        def gone() -> bool:
            try:
                self._api.finish(
                    self._apps.begin_delete,
                    self.group,
                    self.name,
                    doing=f"{APPS}/delete",
                    report=lambda: self._report(what),
                )
            except Busy:
                return False
            except NotFound:
                return True
            return True

        self._until(gone, 0, what)

    def activate(self, revision: str) -> None:
        """Begin to run a revision that was stopped."""
        method = self._api.client.container_apps_revisions.activate_revision
        self._write(method, revision, doing=f"{APPS}/revisions/activate/action")

    def deactivate(self, revision: str) -> None:
        """Begin to stop a revision. It can be activated again."""
        method = self._api.client.container_apps_revisions.deactivate_revision
        self._write(method, revision, doing=f"{APPS}/revisions/deactivate/action")

    def stop(self, revisions: Sequence[str], grace: float, what: str) -> None:
        """Stop revisions, and return when no container of theirs runs."""
        for one in revisions:
            found = self.revision(one)
            if found is not None and aca.state(found).active:
                self.deactivate(one)
        self._until(lambda: not any(self.replicas(one) for one in revisions), grace, what)

    def wait(self, seconds: float, what: str) -> None:
        """Let some time go by."""
        end = time.monotonic() + seconds
        self._until(lambda: time.monotonic() >= end, seconds, what)

    @property
    def _apps(self) -> Any:
        return self._api.client.container_apps

    def _read(self, method: Callable[..., Any], *arguments: Any, doing: str) -> Any:
        return self._api.read(method, self.group, self.name, *arguments, doing=doing)

    def _write(
        self, method: Callable[..., Any], *arguments: Any, doing: str = f"{APPS}/write", **more: Any
    ) -> None:
        self._api.call(method, self.group, self.name, *arguments, doing=doing, **more)

    def _until(self, done: Callable[[], bool], grace: float, what: str) -> None:
        end = time.monotonic() + SETTLE_SECONDS + grace
        while not done():
            if time.monotonic() > end:
                raise Transient(f"{what}, which takes longer than {SETTLE_SECONDS + grace:.0f} s")
            self._report(what)
            time.sleep(LOOK_SECONDS)
