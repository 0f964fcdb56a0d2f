"""The `oci` kind: any registry that speaks the distribution API. Other kinds build on it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from model.artifact import Image
from model.errors import ConfigurationError, HelixError, NotFound, PermissionDenied
from model.instance import RegistryTarget
from model.platform import Identity
from model.tokens import claims
from registries.auth import login_hint
from registries.base import Credentials, Registry, RegistryContext
from registries.credentials import from_docker
from registries.distribution import OCI_CONFIG, OCI_MANIFEST, Distribution, Manifest, Trust
from registries.reference import Reference, is_loopback

_NO_MANIFEST = "sha256:" + "0" * 64
"""A digest that nothing has: asks whether a registry deletes, and deletes nothing."""


class OciSettings(BaseModel):
    """What `[deploy.<instance>.registry]` may say of a registry besides kind and repository."""

    model_config = ConfigDict(extra="forbid")

    username: str = ""
    """Who to log in as; empty: what `docker login` stored, else nobody."""
    password: str = ""
    """A secret reference, never the password itself."""
    ca: Path | None = None
    """A PEM file, on the worker's machine, of the authority that signed the certificate."""
    insecure: bool = False
    """Believe any certificate; for loopback addresses only."""
    registry_host: str | None = None
    """Another host for the images themselves, such as a private endpoint, a proxy or a stand-in."""


class OciRegistry(Registry):
    """Any registry that speaks the OCI distribution API: Harbor, GitLab, Artifactory, Zot, …

    A kind with logins of its own overrides `credentials` and, where a repository must be created
    first, `ensure_repository`.
    """

    kind: ClassVar[str] = "oci"
    Settings: ClassVar[type[BaseModel]] = OciSettings
    denied_hint: ClassVar[str] = ""
    """What this kind usually lacks when it refuses a push."""

    settings: OciSettings

    def __init__(self, target: RegistryTarget, context: RegistryContext) -> None:
        super().__init__(target, context)
        try:
            self.settings = self._check(target.settings)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise ConfigurationError(
                f"the registry's setting `{key}` is wrong: {first['msg']}",
                hint=f"an {self.kind} registry takes: {', '.join(self.Settings.model_fields)}",
            ) from None
        self.reference = Reference.parse(self._repository())
        if self.settings.registry_host:
            self.reference = replace(self.reference, host=self.settings.registry_host)
        if self.reference.tag or self.reference.digest:
            raise ConfigurationError(
                f"the registry's repository «{target.repository}» has a tag or a digest",
                hint=f"write only {self.reference.repository}",
            )

    @classmethod
    def _check(cls, settings: dict[str, Any]) -> OciSettings:
        checked = cls.Settings.model_validate(settings)
        assert isinstance(checked, OciSettings)
        return checked

    def _repository(self) -> str:
        """What the target names; a kind may put its host before it."""
        return self.target.repository

    @property
    def repository(self) -> str:
        return self.reference.repository

    @cached_property
    def api(self) -> Distribution:
        """The client of our repository."""
        return self._open(self.reference)

    def authenticate(self) -> Identity:
        """Log in, and learn whether pull and push are allowed: from the token's own claims where it
        shows them, else by a pull of nothing and an upload that is cancelled."""
        try:
            self.api.ping()
            if not self._granted({"pull", "push"}):
                self.api.digest(_NO_MANIFEST)
                self._try_push()
        except NotFound:
            # No repository yet: creating it is the next step's business.
            pass
        except PermissionDenied as error:
            raise self._refused(error) from None
        credentials = self.credentials()
        who = self.api.auth.user or (credentials.username if credentials else "anonymous")
        return Identity(where=self.host, who=who, expires_at=_expiry(credentials))

    def credentials(self) -> Credentials | None:
        """From the settings, else from Docker's own configuration."""
        if self.settings.username:
            return Credentials(self.settings.username, self._password())
        return from_docker(self.host)

    def ensure_repository(self) -> None:
        """Nothing to do: the first push creates it."""

    def find(self, reference: str) -> str | None:
        return self.api.digest(reference)

    def tag(self, digest: str, tag: str) -> str | None:
        previous = self.api.digest(tag)
        if previous != digest:
            self.api.put_manifest(self.api.manifest(digest), tag)
        return previous

    def untag(self, tag: str, previous: str | None) -> None:
        """Undo `tag`.

        Raises:
            ConfigurationError: the tag is new, and the registry deletes nothing.
            PermissionDenied: the tag is new, and we may not delete here.
        """
        if previous is not None:
            self.tag(previous, tag)
        elif self.api.digest(tag) is not None:
            try:
                self._remove(tag)
            except (ConfigurationError, PermissionDenied) as error:
                raise type(error)(
                    f"{self.repository}:{tag} stays: {error.message}",
                    hint="allow deletion in the registry, or remove the tag by its own means",
                    request_id=error.request_id,
                ) from None

    def copy(self, reference: str, origin: Registry | None = None) -> Image:
        source = Reference.parse(reference)
        reader = origin if isinstance(origin, OciRegistry) else self
        same_host = source.host == self.reference.host
        also = (f"repository:{source.path}:pull",) if same_host else ()
        target = self._open(self.reference, also=also)
        with target, reader._open(source, actions=("pull",)) as there:
            transfer = _Transfer(there, target, same_host, self.context.report)
            digest = transfer.run(source.version)
        return Image(repository=self.repository, digest=digest)

    def close(self) -> None:
        if "api" in self.__dict__:
            self.api.close()

    def _open(
        self,
        reference: Reference,
        actions: tuple[str, ...] = ("pull", "push"),
        also: tuple[str, ...] = (),
    ) -> Distribution:
        """A client of a repository here, or of one elsewhere that we only read."""
        here = reference.host == self.reference.host
        credentials = self.credentials if here else lambda: from_docker(reference.host)
        return Distribution(reference, credentials, self._trust(reference.host), actions, also)

    def _trust(self, host: str) -> Trust:
        here = host == self.reference.host
        return Trust(self.settings.ca, self.settings.insecure and (here or is_loopback(host)))

    def _password(self) -> SecretStr:
        if not self.settings.password:
            raise ConfigurationError(
                f"the registry {self.host} has a username but no password",
                hint='set its password to a secret reference, for example "env:REGISTRY_PASSWORD"',
            )
        return self.context.secret(self.settings.password)

    def _granted(self, wanted: set[str]) -> bool:
        """Whether our token says by itself that it allows all this."""
        access = claims(self.api.auth.token).get("access")
        return any(
            entry.get("name") == self.reference.path
            and ({*entry.get("actions", ())} >= wanted or "*" in entry.get("actions", ()))
            for entry in (access if isinstance(access, list) else [])
            if isinstance(entry, dict)
        )

    def _try_push(self) -> None:
        try:
            self.api.try_upload()
        except ConfigurationError as error:
            raise PermissionDenied(
                f"it takes no pushes: {error.message}", request_id=error.request_id
            ) from None

    def _refused(self, error: HelixError) -> PermissionDenied:
        user = self.api.auth.user
        who = f"user «{user}»" if user else "an anonymous client"
        hint = "; ".join(part for part in (login_hint(self.host), self.denied_hint) if part)
        return PermissionDenied(
            f"the registry {self.host} refused {who} for {self.repository} ({error.message})",
            hint=hint,
            request_id=error.request_id,
        )

    def _remove(self, tag: str) -> None:
        """Delete a tag and nothing else. Where a registry deletes by digest only, which would take
        other tags of the image along, the tag is first moved to an empty manifest of its own."""
        with self._open(self.reference, actions=("pull", "push", "delete")) as api:
            if api.delete_tag(tag):
                return
            # Ask first whether anything can be deleted, lest the empty manifest stays instead.
            with suppress(NotFound):
                api.delete_manifest(_NO_MANIFEST)
            empty = self._empty_manifest(tag)
            api.put_manifest(empty, tag)
            api.delete_manifest(empty.digest)

    def _empty_manifest(self, tag: str) -> Manifest:
        config = json.dumps({"architecture": "", "os": "", "helix.removed": tag}).encode()
        digest = self.api.upload_bytes(config)
        body = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": {"mediaType": OCI_CONFIG, "size": len(config), "digest": digest},
                "layers": [],
            }
        ).encode()
        return Manifest(OCI_MANIFEST, body, f"sha256:{hashlib.sha256(body).hexdigest()}")


class _Transfer:
    """One copy from repository to repository. What is there already is not sent again, so that a
    copy which was interrupted goes on rather than starts over."""

    def __init__(
        self,
        origin: Distribution,
        target: Distribution,
        same_host: bool,
        report: Callable[[str, int, int], None],
    ) -> None:
        self.origin = origin
        self.target = target
        self.same_host = same_host
        self.report = report
        self.done = 0
        self.total = 0

    def run(self, version: str) -> str:
        """Copy a tag or digest and return its digest. Layers go before what names them."""
        root = self.origin.manifest(version)
        manifests = [*self._leaves(root)]
        blobs = {
            descriptor["digest"]: int(descriptor["size"])
            for manifest in manifests
            for descriptor in _blobs(manifest)
        }
        self.total = sum(blobs.values())
        for digest, size in blobs.items():
            self._blob(digest, size)
        for manifest in manifests:
            self.target.put_manifest(manifest, manifest.digest)
        return root.digest

    def _leaves(self, manifest: Manifest) -> list[Manifest]:
        """A manifest with all that it lists before it."""
        found = []
        if manifest.is_index():
            for entry in json.loads(manifest.body).get("manifests", []):
                found += self._leaves(self.origin.manifest(entry["digest"]))
        return [*found, manifest]

    def _blob(self, digest: str, size: int) -> None:
        before = self.done
        self.report("copying", before, self.total)
        if not self.target.has_blob(digest) and not (
            self.same_host and self.target.mount(digest, self.origin.reference.path)
        ):
            self.target.upload(digest, size, lambda: self.origin.blob(digest), self._seen)
        self.done = before + size

    def _seen(self, count: int) -> None:
        self.done += count
        self.report("copying", min(self.done, self.total), self.total)


def _blobs(manifest: Manifest) -> list[dict[str, Any]]:
    """The config and layers of a manifest, but those a registry must not keep (with `urls`)."""
    if manifest.is_index():
        return []
    content = json.loads(manifest.body)
    if content.get("schemaVersion") != 2 or "config" not in content:
        raise ConfigurationError(
            f"the image {manifest.digest} has an outdated or unknown format",
            hint="push it again with a current Docker",
        )
    return [content["config"], *(layer for layer in content["layers"] if not layer.get("urls"))]


def _expiry(credentials: Credentials | None) -> datetime | None:
    """When credentials end, if they are a token that says so."""
    if credentials is None:
        return None
    end = claims(credentials.password.get_secret_value()).get("exp")
    return datetime.fromtimestamp(end, UTC) if isinstance(end, int | float) else None
