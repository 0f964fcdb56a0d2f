"""Runs releases on Azure Container Apps.

A release is one revision of the instance's app, whose name follows from the deployment's id and
which says in its environment all that must be known of it later. It starts without traffic, with
the label `candidate`, and is checked at its own address. `promote` moves the traffic by name, then
stops the revision before; a rollback starts that one again and gives it the traffic back, and
builds nothing. What is current is said by one fact: who has the traffic and not that label.

Success is what our revision says of itself. An app whose last change succeeded may run a container
that crashes, and a change that fails is reported with HTTP 200.

With a volume, the revision before is stopped first: in every mode of its own Azure would run both
for a while, and both would have the files open.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import ClassVar

from azure.mgmt.appcontainers import models as az
from pydantic import BaseModel

from model import names
from model.errors import (
    ConfigurationError,
    Conflict,
    HelixError,
    NotFound,
    NothingToRestore,
    Transient,
)
from model.instance import Instance
from model.platform import Capabilities, Endpoint, Identity, Phase, Release, Revision, Rollout
from providers import azure_app as aca
from providers.azure_api import Api
from providers.azure_app import AzureSettings, Handle, Marks, Target
from providers.azure_calls import App
from providers.azure_envelope import Envelope
from providers.azure_logs import Logs
from providers.azure_preflight import Preflight
from providers.azure_secrets import Secrets, names_in, password_names
from providers.base import CloudProvider, Context, superseded

DRAIN_SECONDS = 5.0
"""Between the move of the traffic and the end of the revision that had it: Azure's proxies learn of
it one by one."""
EVIDENCE = 20
"""Log lines of a failed revision."""


class AzureProvider(CloudProvider):
    """One container app."""

    kind: ClassVar[str] = "azure"
    capabilities: ClassVar[Capabilities] = Capabilities(
        start_first=True, volumes=True, logs=True, scale_to_zero=True
    )
    Settings: ClassVar[type[BaseModel]] = AzureSettings

    def __init__(self, instance: Instance, context: Context) -> None:
        super().__init__(instance, context)
        self._settings = own = AzureSettings.model_validate(instance.target.settings)
        self._api = Api(own.subscription_id, own.endpoint)
        name = aca.app_name(own, instance)
        self._app = App(self._api, own.resource_group, name, own.location, context.report)

    def close(self) -> None:
        """Give back the connections."""
        self._api.close()

    # Before anything changes ----------------------------------------------------------------------

    def identity(self) -> Identity:
        """Whose credentials these are, and that Container Apps takes them."""
        who, expires_at = self._api.who()
        self._app.find()
        own = self._settings
        where = f"Container Apps {own.resource_group}/{self._app.name} in {own.subscription_id}"
        return Identity(where=where, who=who, expires_at=expires_at)

    def preflight(self) -> None:
        """See that names, registry, environment, storage, permissions and quota will do."""
        app = self._app.find()
        if app is not None:
            self._refuse_stranger(app)
        self._preflight.run(app is None)

    def lacking(self) -> list[str]:
        """See `CloudProvider.lacking`. On the resource group."""
        return self._preflight.lacking()

    @property
    def _preflight(self) -> Preflight:
        return Preflight(self._api, self.instance, self._settings, self.context.notes)

    def _refuse_stranger(self, app: az.ContainerApp) -> None:
        owner = (app.tags or {}).get(names.LABEL_INSTANCE, "")
        if owner not in ("", self.instance.key):
            raise Conflict(
                f"the container app {self._app.name} belongs to the instance {owner}",
                hint=f'set app = "…" in [cloud.{self.instance.name}.azure]',
            )

    def current(self) -> Revision | None:
        """The revision with the most traffic. A split among several is remembered with it."""
        app = self._app.find()
        return self._current(app) if app is not None else None

    def _current(self, app: az.ContainerApp) -> Revision | None:
        shares = aca.serving(app)
        if shares:
            name = max(shares, key=lambda one: one.weight).revision
        else:
            name = self._stopped_for_candidate(app)
        found = self._app.revision(name) if name else None
        return aca.revision_of(found, app) if found is not None else None

    def down(self) -> str:
        """See `CloudProvider.down`. Azure lets people stop a revision that has all the traffic."""
        current = self.current()
        found = self._app.revision(current.id) if current is not None else None
        if found is None or aca.state(found).active:
            return ""
        return f"the revision {found.name} is stopped"

    def _stopped_for_candidate(self, app: az.ContainerApp) -> str:
        """The revision that a candidate, which alone is routed to, was started instead of."""
        for one in aca.asked(app):
            candidate = self._app.revision(one.revision) if one.weight else None
            if candidate is not None:
                return Marks.of(aca.state(candidate).template).previous
        return ""

    # Start ----------------------------------------------------------------------------------------

    def start(self, release: Release, previous: Revision | None) -> str:
        """See `CloudProvider.start`. Azure carries out one change of an app at a time."""
        app = self._app.find()
        name = aca.revision_name(self._app.name, release.deployment)
        secrets = Secrets(self._app, self._settings.identity)
        alone = Target(revision=name, weight=100, label=aca.CANDIDATE)
        if app is None:
            envelope = Envelope(release, self._settings, secrets, self.context)
            self._app.create(envelope.new([alone]))
            return self._handle(name, release.number, [])
        self._refuse_stranger(app)
        newest = aca.newest(app)
        if newest.release > release.number and newest.instance == self.instance.key:
            raise superseded(newest.release, release.number)
        labels = [] if self.instance.stop_first else aca.labelled(app)
        if newest.deployment == release.deployment:
            return self._handle(name, release.number, labels)  # an attempt before this came here
        if (unchanged := self._unchanged(release, app)) is not None:
            return self._handle(unchanged, release.number, aca.labelled(app))
        secrets.load()
        envelope = Envelope(release, self._settings, secrets, self.context)
        if self.instance.stop_first:
            stopped = self._stop_current(
                app, f"{self._app.name} stops for release {release.number}"
            )
            change = envelope.change(app, [alone], stopped)
        else:
            shares = aca.serving(app)
            candidate = alone.model_copy(update={"weight": 0}) if shares else alone
            change = envelope.change(app, aca.joined(shares, labels, [candidate]), "")
        self._app.change(change)
        return self._handle(name, release.number, labels)

    def _handle(self, revision: str, release: int, labels: Sequence[Target]) -> str:
        return Handle(
            revision=revision,
            release=release,
            public=self._settings.public,
            targets=aca.joined([Target(revision=revision, weight=100)], labels),
        ).model_dump_json(exclude_defaults=True)

    def _unchanged(self, release: Release, app: az.ContainerApp) -> str | None:
        """The current revision, if it is all that runs and would be the same."""
        shares = aca.serving(app)
        found = self._app.revision(shares[0].revision) if len(shares) == 1 else None
        if found is None or not aca.state(found).active or not release.artifact.identity:
            return None
        marks = Marks.of(aca.state(found).template)
        wanted = release.artifact.identity, release.instance.config_digest
        fits = (marks.artifact, marks.config) == wanted and marks.instance == self.instance.key
        return found.name if fits else None

    def _stop_current(self, app: az.ContainerApp, why: str) -> str:
        """Stop whatever runs, and return when none of its containers does. Returns what served."""
        current = self._current(app)
        running = {str(one.name) for one in self._app.revisions() if aca.state(one).active}
        routed = {one.revision for one in aca.asked(app)}  # one that was stopped may still be at it
        self._app.stop(sorted(running | routed), self.instance.stop_grace, why)
        return current.id if current is not None else ""

    # While it runs --------------------------------------------------------------------------------

    def poll(self, handle: str) -> Rollout:
        """What the revision says of itself, and where it says nothing, its containers."""
        wanted = Handle.model_validate_json(handle)
        revision = self._app.revision(wanted.revision)
        if revision is None:
            return self._without(wanted.revision)
        if wrong := aca.broken(revision):
            return self._failed(wanted.revision, wrong)
        if not aca.runs(revision):
            replicas = self._app.replicas(wanted.revision)
            if crash := aca.crash(replicas):
                return self._failed(wanted.revision, crash, replicas)
            detail = aca.plain(aca.state(revision).running_state) or "starting"
            return Rollout(phase=Phase.STARTING, detail=detail.lower())
        if aca.provisioning(self._app.get()) == "InProgress":
            return Rollout(phase=Phase.STARTING, detail="Azure is still changing the app")
        return Rollout(phase=Phase.RUNNING, detail="running")

    def _without(self, name: str) -> Rollout:
        """How it stands while there is no such revision."""
        app = self._app.find()
        if app is None:
            return Rollout(phase=Phase.FAILED, detail=f"the container app {self._app.name} is gone")
        state = aca.provisioning(app)
        if state in ("Failed", "Canceled"):
            why = f"az monitor activity-log list -g {self._app.group}"
            detail = f"Azure made no revision {name}: the change {state.lower()}; its reason: {why}"
            return Rollout(phase=Phase.FAILED, detail=detail)
        return Rollout(phase=Phase.STARTING, detail="Azure makes the revision")

    def _failed(
        self, revision: str, why: str, replicas: Sequence[az.Replica] | None = None
    ) -> Rollout:
        logs = ""
        with suppress(HelixError):  # they only illustrate; the verdict stands without them
            if replicas is None:
                replicas = self._app.replicas(revision)
            if (crash := aca.crash(replicas)) not in ("", why):
                why = f"{why}; {crash}"
            logs = "\n".join(self._logs(replicas).tail(EVIDENCE))
        return Rollout(phase=Phase.FAILED, detail=why, logs=logs)

    def endpoint(self, handle: str) -> Endpoint | None:
        """The revision's own address: a label could be moved to another one meanwhile. An app that
        is not public cannot be reached from here."""
        wanted = Handle.model_validate_json(handle)
        if not aca.is_public(self._app.get()):
            return None
        revision = self._app.revision(wanted.revision)
        address = aca.state(revision).fqdn if revision is not None else ""
        if not address:
            raise Transient(f"{wanted.revision} has no address yet")
        return Endpoint(url=f"https://{address}")

    def probe(self, handle: str) -> str:
        """What the platform says of the revision, whose port it has seen open."""
        rollout = self.poll(handle)
        return "" if rollout.phase is Phase.RUNNING else rollout.detail

    def run_check(self, handle: str, command: Sequence[str], timeout: float) -> tuple[int, str]:
        """Azure offers a terminal into a container, and no way to learn how a command ended.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError(
            "Container Apps cannot run a command inside a container",
            hint=f'set kind = "http" in [deploy.{self.instance.name}.health_check]',
        )

    # Promote and restore --------------------------------------------------------------------------

    def promote(self, handle: str) -> Revision:
        """See `CloudProvider.promote`. Returns when the traffic has moved and what had it stops."""
        wanted = Handle.model_validate_json(handle)
        app = self._app.get()
        newest = aca.newest(app)
        if newest.release > wanted.release and newest.instance == self.instance.key:
            raise superseded(newest.release, wanted.release)
        before = [one.revision for one in aca.serving(app)]
        routed = aca.same(aca.asked(app), wanted.targets)
        if not routed or aca.is_public(app) != wanted.public:
            self._app.finish(
                az.Configuration(
                    ingress=az.Ingress(external=wanted.public, traffic=aca.weights(wanted.targets))
                ),
                f"the traffic moves to {wanted.revision}",
            )
        self._stop_others(wanted, before, drain=bool(before) and not routed)
        found, app = self._app.revision(wanted.revision), self._app.get()
        if found is None:
            raise Transient(f"{wanted.revision} has the traffic, and cannot be read")
        return aca.revision_of(found, app)

    def _stop_others(self, wanted: Handle, before: Sequence[str], *, drain: bool) -> None:
        """Stop what has lost the traffic, and earlier releases that failed."""
        kept = {one.revision for one in wanted.targets}
        running = [one for one in self._app.revisions() if aca.state(one).active]
        others = [
            str(one.name)
            for one in running
            if one.name not in kept and (one.name in before or self._is_ours(one, wanted.release))
        ]
        if others and drain:
            self._app.wait(DRAIN_SECONDS, "requests under way come to their end")
        for name in others:
            self._app.deactivate(name)

    def _is_ours(self, revision: az.Revision, up_to: int) -> bool:
        marks = Marks.of(aca.state(revision).template)
        return marks.instance == self.instance.key and marks.release <= up_to

    def restore(self, deployment: str, previous: Revision | None) -> str | None:
        """See `CloudProvider.restore`. A failed revision without traffic is stopped here; one that
        has it, as soon as the previous one has it back."""
        app = self._app.find()
        name = aca.revision_name(self._app.name, deployment)
        if previous is None:
            self._clear(app, deployment, name)
            return None
        shares = aca.shares_of(previous)
        wanted = [self._app.revision(one.revision) for one in shares] if app is not None else []
        if app is None or None in wanted:
            raise NothingToRestore(
                f"the revision {previous.id} is gone", hint="push a release that works"
            )
        current = self._current(app)
        if (
            current is not None
            and current.release > previous.release
            and current.deployment != deployment
        ):
            raise superseded(current.release, previous.release)
        self._stop_failed(app, name)
        for one in wanted:
            if one is not None and not aca.state(one).active:
                self._app.activate(str(one.name))
        newest = aca.newest(app)
        theirs = []
        if newest.deployment != deployment and newest.release > previous.release:
            # A later deployment may already be trying its own candidate.
            theirs = [
                one
                for one in aca.asked(app)
                if one.label == aca.CANDIDATE and one.revision != name and not one.weight
            ]
        return Handle(
            revision=previous.id,
            release=max(newest.release, previous.release),
            public=json.loads(previous.detail.get("public", "false")),
            targets=aca.joined(shares, aca.labelled(app), theirs),
        ).model_dump_json(exclude_defaults=True)

    def _stop_failed(self, app: az.ContainerApp, name: str) -> None:
        """Stop the revision of a deployment that is undone, unless requests would then find none.
        That also ends Azure's wait for a container that never comes up, which holds every change of
        the app back for many minutes."""
        found = self._app.revision(name)
        if found is None or not aca.state(found).active:
            return
        if self.instance.stop_first:
            self._app.stop([name], self.instance.stop_grace, f"{name} stops")
        elif not any(one.revision == name for one in aca.serving(app)):
            self._app.deactivate(name)

    def _clear(self, app: az.ContainerApp | None, deployment: str, name: str) -> None:
        """Leave nothing of a first deployment: the app, if it made it, else its revision."""
        if app is None or aca.newest(app).deployment != deployment:
            return
        others = [one for one in aca.asked(app) if one.weight and one.revision != name]
        if others:
            raise Conflict(
                f"{others[0].revision} serves {self._app.name}, and was not there before",
                hint="another deployment, or a person, has taken over; see: helix status",
            )
        with suppress(NotFound):
            self._app.deactivate(name)  # which ends Azure's wait for it
        if (app.tags or {}).get(names.LABEL_DEPLOYMENT) == deployment:
            self._app.delete()

    # For people -----------------------------------------------------------------------------------

    def public_url(self) -> str:
        """The app's own address; inside its environment only, unless it is public."""
        app = self._app.find()
        ingress = aca.configuration(app).ingress if app is not None else None
        return f"https://{ingress.fqdn}" if ingress is not None and ingress.fqdn else ""

    def logs(
        self, *, since: datetime | None = None, tail: int | None = None, follow: bool = False
    ) -> Iterator[str]:
        """What the current revision's containers print.

        Raises:
            NotFound: nothing runs.
        """
        current = self.current()
        if current is None:
            raise NotFound(
                f"nothing was deployed to {self.instance.key}",
                hint=f"run: helix push {self.instance.name}",
            )
        replicas = self._app.replicas(current.id)
        if not replicas:
            raise NotFound(
                f"no container of {current.id} runs: it scaled to zero",
                hint="ask the environment's Log Analytics workspace for the table "
                "ContainerAppConsoleLogs_CL, or set min_replicas = 1",
            )
        yield from self._logs(replicas).read(since, tail, follow)

    def _logs(self, replicas: Iterable[az.Replica]) -> Logs:
        return Logs(self._app, replicas)

    # Tidy up --------------------------------------------------------------------------------------

    def prune(self, keep: Sequence[Revision]) -> None:
        """Stop our older revisions, then let Azure forget those that nothing needs and the secrets
        that only they refer to. It has no call that removes a revision: it keeps a number of those
        that are stopped, the latest ones."""
        app = self._app.find()
        current = self._current(app) if app is not None else None
        if app is None or current is None:
            return
        routed = {one.revision for one in aca.asked(app) if one.weight or one.label}
        revisions = sorted(self._app.revisions(), key=lambda one: str(aca.state(one).created_time))
        for one in revisions:
            older = self._is_ours(one, current.release) and one.name != current.id
            if older and aca.state(one).active and one.name not in routed:
                self._app.deactivate(str(one.name))
        kept = routed | {current.id, *(one.id for one in keep)}
        first = next((at for at, one in enumerate(revisions) if one.name in kept), 0)
        left = revisions[first:]
        inactive = [one for one in left if one.name not in routed and one.name != current.id]
        most = min(aca.MOST_INACTIVE, len(inactive))
        secrets = Secrets(self._app, self._settings.identity)
        secrets.load()
        used = {one for revision in left for one in names_in(aca.state(revision).template)}
        dropped = secrets.forget(used | password_names(app))
        change = az.Configuration(max_inactive_revisions=most)
        if dropped:  # merged, the list stays as it is when it is left out
            change.secrets = list(secrets.all.values())
        if dropped or aca.configuration(app).max_inactive_revisions != most:
            self._app.finish(change, "old revisions go")

    def destroy(self, *, data: bool) -> None:
        """Remove the app with all its revisions and secrets.

        Raises:
            ConfigurationError: `data`, and the volumes' files stay: they are in a share that Azure
                lets us mount and not empty.
        """
        app = self._app.find()
        if app is None:
            return
        self._refuse_stranger(app)
        self._app.delete()
        if data and self.instance.volumes:
            raise ConfigurationError(
                f"the files in «{self._app.name}» of the storage {self._settings.storage} stay: "
                "Azure has no call that removes them",
                hint="mount the share and remove the folder, or delete the share: az storage "
                "share-rm delete",
            )
