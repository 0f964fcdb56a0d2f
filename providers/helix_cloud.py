"""The `helix` kind, and `enterprise`: Helix Cloud, which runs queries rather than images.

A release is a bundle of queries. Helix Cloud has one set of them at a time and replaces it at once,
so a release is live as soon as `start` has succeeded, and what was there before comes back by being
deployed again: each bundle that was live is kept in our own store, by its deployment, or by its
content if somebody else deployed it.

`start` holds on until Helix Cloud has answered: it knows no operation that could be asked for
later. An answer that was lost is looked for in what Helix Cloud says it has, before anything is
sent again; where that does not prove that the queries were built, they are deployed again, which
changes nothing if they were.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, SecretStr

from model.base import Record
from model.errors import (
    ConfigurationError,
    Conflict,
    HealthCheckFailed,
    NotFound,
    NothingToRestore,
)
from model.instance import Instance
from model.platform import Capabilities, Endpoint, Identity, Phase, Release, Revision, Rollout
from providers.base import CloudProvider, Context, superseded
from providers.helix_api import HelixApi, base_url
from providers.helix_bundle import Content, body_of, content_from, content_of, dumped, loaded

AUTHORITY = "CLOUD_AUTHORITY"
"""The environment variable with another address of Helix Cloud; HelixDB's CLI reads it too."""
LOG_SECONDS = 3600
"""How far back logs are read if nobody says, as HelixDB's CLI does."""
LOG_PAUSE = 2.0
"""Seconds between two looks for new log lines."""


class HelixCloudSettings(BaseModel):
    """`[cloud.<instance>.helix]` and `[enterprise.<instance>]`."""

    model_config = ConfigDict(extra="ignore")

    cluster_id: str | None = None
    """The cluster to deploy to."""
    database: str | None = None
    """cluster:<id>, as the newest HelixDB CLI writes it instead."""
    gateway_url: str | None = None
    """Where queries go."""
    endpoint: str | None = None
    """Another address of Helix Cloud's API."""
    token: str | None = None
    """A secret reference to the user's key; what `helix auth login` stored if it is absent."""

    @property
    def cluster(self) -> str:
        """The cluster's id; empty if there is none."""
        return self.cluster_id or (self.database or "").removeprefix("cluster:")


class HelixHandle(Record):
    """What any worker needs to go on with a release."""

    deployment: str
    """Empty if somebody else deployed it."""
    digest: str
    """Of its files."""


class HelixCloudProvider(CloudProvider):
    """A standard cluster: `.hx` queries, which Helix Cloud compiles."""

    kind: ClassVar[str] = "helix"
    capabilities: ClassVar[Capabilities] = Capabilities(
        start_first=False,
        takes=frozenset({"bundle"}),
        promotes=False,
        removes=False,
        keeps_revisions=False,
    )
    Settings: ClassVar[type[BaseModel]] = HelixCloudSettings
    enterprise: ClassVar[bool] = False

    def __init__(self, instance: Instance, context: Context) -> None:
        super().__init__(instance, context)
        self._settings = HelixCloudSettings.model_validate(instance.target.settings)

    @cached_property
    def _key(self) -> tuple[str, SecretStr]:
        """Whose key, and the key: of the settings, else what HelixDB's CLI stored."""
        if self._settings.token:
            return "", self.context.secret(self._settings.token)
        folder = os.environ.get("HELIX_HOME") or "~/.helix"
        try:
            text = self.context.secret(f"file:{folder}/credentials").get_secret_value()
        except ConfigurationError:
            text = ""
        found = dict(re.findall(r"^\s*(helix_user_id|helix_user_key)\s*=\s*(\S+)", text, re.M))
        if not found.get("helix_user_key"):
            raise ConfigurationError(
                f"there is no key for Helix Cloud in {folder}/credentials",
                hint="run HelixDB's own `helix auth login` where the worker runs, or name a secret "
                "reference as `token`",
            )
        return found.get("helix_user_id", ""), SecretStr(found["helix_user_key"])

    @cached_property
    def _api(self) -> HelixApi:
        base = base_url(self._settings.endpoint or "", os.environ.get(AUTHORITY, ""))
        return HelixApi(base, self._settings.cluster, self.enterprise, self._key[1])

    def close(self) -> None:
        """Give back the connections."""
        if "_api" in self.__dict__:
            self._api.close()

    # Before anything changes ----------------------------------------------------------------------

    def identity(self) -> Identity:
        """The user of the credentials file, else the workspaces that the key may see."""
        spaces = ", ".join(str(one.get("name", "")) for one in self._api.workspaces())
        who = self._key[0] or (f"a member of {spaces}" if spaces else "a key")
        return Identity(where="Helix Cloud", who=who)

    def preflight(self) -> None:
        """See that there is a cluster that we may see, and nothing that it cannot be told."""
        if not self._settings.cluster:
            raise ConfigurationError(
                f"{self.instance.name} names no cluster",
                hint=f'helix set {self.instance.name}.cluster_id "…" with the id of your cluster',
            )
        if self.enterprise:
            self._refuse_environment()
            self._api.project()
        if self._live() is None:
            self.context.notes.append(
                "nothing was ever deployed to the cluster: Helix Cloud cannot take a first release "
                "back, so if it turns out bad it stays until the next one"
            )

    def _refuse_environment(self) -> None:
        told = sorted({*self.instance.env, *self.instance.secrets})
        if told:
            raise ConfigurationError(
                f"an enterprise cluster takes no environment variables: {', '.join(told)}",
                hint=f"remove env and secrets from [deploy.{self.instance.name}]",
            )

    def current(self) -> Revision | None:
        """What Helix Cloud has. From `start` on that is the new release: it keeps one only."""
        live = self._live()
        return live.revision() if live else None

    def _live(self) -> Content | None:
        snapshot = self._api.snapshot()
        if not snapshot:
            return None
        live = content_from(snapshot)
        return live if live.files else None

    # Start ----------------------------------------------------------------------------------------

    def start(self, release: Release, previous: Revision | None) -> str:
        """See `CloudProvider.start`: this one waits, and the release is live afterwards."""
        bundle = release.artifact.bundle
        if bundle is None:
            raise ConfigurationError(
                "Helix Cloud runs queries, and this release has an image",
                hint=f'set kind = "bundle" in [deploy.{self.instance.name}.build]',
            )
        content = content_of(release, self.context.bundles.read(bundle))
        live = self._live()
        mark = live.mark if live else None
        if live is not None and mark is not None:
            if mark.release > release.number:
                raise superseded(mark.release, release.number)
            same = (live.digest, mark.config) == (content.digest, release.instance.config_digest)
            ours = mark.deployment == release.deployment and self.enterprise
            if ours or (same and mark.deployment != release.deployment):
                return _handle(live)
        if live is not None and mark is None:
            self.context.bundles.keep(live.digest, dumped(live))
        self.context.bundles.keep(release.deployment, dumped(content))
        self._deploy(content)
        return _handle(content)

    def _deploy(self, content: Content) -> None:
        secrets = {
            name: self.context.secret(reference).get_secret_value()
            for name, reference in self.instance.secrets.items()
        }
        body = body_of(content, self.instance, secrets, enterprise=self.enterprise)
        self._api.deploy(body, self._tell)

    def _tell(self, text: str) -> None:
        # Not safe to stop at: Helix Cloud goes on without us, and what it has then is not known.
        with suppress(Exception):
            self.context.report(text)

    # While it runs --------------------------------------------------------------------------------

    def poll(self, handle: str) -> Rollout:
        """What Helix Cloud says it has is the release, and it is ready for queries."""
        wanted = HelixHandle.model_validate_json(handle)
        live = self._live()
        if live is None or not _is(live, wanted):
            return Rollout(phase=Phase.FAILED, detail="something else was deployed since")
        wrong = self._unready()
        if wrong:
            return Rollout(phase=Phase.STARTING, detail=wrong)
        return Rollout(phase=Phase.RUNNING, detail="Helix Cloud has it")

    def _unready(self) -> str:
        """Why it does not take queries yet; empty if it does, as far as is to be known."""
        return ""

    def endpoint(self, handle: str) -> Endpoint | None:
        """The cluster's gateway, if it is named."""
        url = self._settings.gateway_url
        return Endpoint(url=url.rstrip("/")) if url else None

    def probe(self, handle: str) -> str:
        """Helix Cloud's own word."""
        rollout = self.poll(handle)
        return "" if rollout.phase is Phase.RUNNING else rollout.detail

    def run_check(self, handle: str, command: Sequence[str], timeout: float) -> tuple[int, str]:
        """Refused: nobody runs commands on Helix Cloud."""
        raise ConfigurationError(
            "Helix Cloud runs no commands",
            hint='set kind = "http" or kind = "none" in its health_check',
        )

    # Promote and restore --------------------------------------------------------------------------

    def promote(self, handle: str) -> Revision:
        """See that it is still what Helix Cloud has: there is nothing to be moved."""
        live = self._live()
        if live is None or not _is(live, HelixHandle.model_validate_json(handle)):
            raise HealthCheckFailed("something else was deployed to the cluster since")
        return live.revision()

    def restore(self, deployment: str, previous: Revision | None) -> str | None:
        """Deploy the previous bundle again, as it was kept; nothing, if it is still there.

        Raises:
            NothingToRestore: it was not kept, or there was none and Helix Cloud has ours.
        """
        live = self._live()
        mark = live.mark if live else None
        if previous is None:
            if mark is not None and mark.deployment == deployment:
                raise NothingToRestore(
                    f"Helix Cloud cannot take queries back: release {mark.release} stays",
                    hint="push a release that works",
                )
            return None
        if live is not None and live.revision() == previous:
            return _handle(live)
        if mark is not None and mark.deployment != deployment and mark.release > previous.release:
            raise Conflict(
                f"release {mark.release} has taken over since",
                hint="nothing is to be done here; see: helix status",
            )
        kept = self.context.bundles.kept(previous.deployment or previous.id)
        content = loaded(kept) if kept is not None else None
        if content is None or (self.enterprise and not content.queries):
            raise NothingToRestore(
                f"the queries of release {previous.release} were not kept: "
                "somebody else's command deployed them"
                if not previous.deployment
                else f"the queries of release {previous.release} are gone from the store",
                hint="push the last good source again",
            )
        self._deploy(content)
        return _handle(content)

    # For people -----------------------------------------------------------------------------------

    def public_url(self) -> str:
        """The cluster's gateway, if it is named."""
        return self._settings.gateway_url or ""

    def logs(
        self, *, since: datetime | None = None, tail: int | None = None, follow: bool = False
    ) -> Iterator[str]:
        """Those of the cluster, of the last hour if nothing is said."""
        begin = int(since.timestamp()) if since else int(time.time()) - LOG_SECONDS
        end = int(time.time()) + 1
        lines = self._api.logs(begin, end) if begin < end else []
        yield from lines[-tail:] if tail else lines
        while follow:
            time.sleep(LOG_PAUSE)
            begin, end = end, int(time.time()) + 1
            yield from self._api.logs(begin, end) if begin < end else []

    # Tidy up --------------------------------------------------------------------------------------

    def prune(self, keep: Sequence[Revision]) -> None:
        """Nothing: Helix Cloud keeps one bundle, and ours are content in our store."""

    def destroy(self, *, data: bool) -> None:
        """Refused: Helix Cloud's known API deletes nothing."""
        raise ConfigurationError(
            f"Helix Cloud's API cannot delete the cluster {self._settings.cluster}",
            hint="delete it at https://cloud.helix-db.com, then: helix remove "
            f"{self.instance.name}",
        )


class EnterpriseProvider(HelixCloudProvider):
    """An enterprise cluster: compiled queries, and the sources they were compiled from."""

    kind: ClassVar[str] = "enterprise"
    enterprise: ClassVar[bool] = True

    def _unready(self) -> str:
        try:
            found = self._api.indexes()
        except NotFound:
            return ""  # this cluster does not tell
        writer = found.get("writer_backend") or {}
        if not writer:
            return f"no database machine writes yet (phase {found.get('phase', 'unknown')})"
        if not writer.get("healthy"):
            return f"the database machine {writer.get('pod', '')} is not healthy yet"
        return "" if writer.get("accepting_writes", True) else "it does not accept writes yet"


def _is(live: Content, wanted: HelixHandle) -> bool:
    mark = live.mark
    if wanted.deployment:
        return mark is not None and mark.deployment == wanted.deployment
    return live.digest == wanted.digest


def _handle(content: Content) -> str:
    mark = content.mark
    return HelixHandle(
        deployment=mark.deployment if mark else "", digest=content.digest
    ).model_dump_json()
