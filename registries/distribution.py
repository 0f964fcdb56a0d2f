"""A client of the OCI distribution API: one repository of one registry.

    with Distribution(Reference.parse("ghcr.io/acme/shop")) as shop:
        manifest = shop.manifest("latest")

Only plain calls live here; what to do with them is `registries.oci`. Every call may be repeated.
"""

from __future__ import annotations

import hashlib
import os
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx

from model.errors import ConfigurationError, HelixError, NotFound, Transient
from registries.auth import RegistryAuth
from registries.base import Credentials
from registries.errors import from_response, from_transport, speaks_http
from registries.reference import DOCKER_HUB, Reference, is_loopback

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
ACCEPT = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))
ENGINE_CERTIFICATES = Path("/etc/docker/certs.d")
"""Where an engine on this machine keeps the authorities of private registries, by host."""
CHUNK = 1 << 20
"""Bytes that are read, counted and sent at a time."""
MANIFEST_LIMIT = 4 << 20
"""Bytes of the largest manifest the specification asks registries to take."""
NO_TAG_DELETION = frozenset({400, 405, 501})
"""What registries answer that delete by digest only (400: registry 2.8.2)."""
TIMEOUT = httpx.Timeout(60, connect=10)
_PULL_PUSH = ("pull", "push")


@dataclass(frozen=True)
class Manifest:
    """A manifest or an index, exactly as the registry keeps it."""

    media_type: str
    body: bytes
    digest: str

    def is_index(self) -> bool:
        """Whether it lists manifests rather than layers."""
        return self.media_type in INDEXES


@dataclass(frozen=True)
class Trust:
    """Whom to believe on the way to a registry."""

    ca: Path | None = None
    """A PEM file of authorities to trust besides the system's own."""
    insecure: bool = False
    """Trust any certificate; for loopback addresses only."""


class Distribution:
    """One repository of one registry.

    Args:
        reference: which one; its tag and digest do not matter here.
        credentials: asked whenever a new token is needed.
        trust: whom to believe.
        actions: what tokens are asked for: `pull`, `push`.
        also: more scopes for the tokens, such as the repository to mount blobs from.

    Raises:
        ConfigurationError: `ca` cannot be read, or `insecure` is set for a host that is not
            loopback.
    """

    def __init__(
        self,
        reference: Reference,
        credentials: Callable[[], Credentials | None] = lambda: None,
        trust: Trust = Trust(),
        actions: Sequence[str] = _PULL_PUSH,
        also: Sequence[str] = (),
    ) -> None:
        self.reference = reference
        self.loopback = is_loopback(reference.host)
        scope = f"repository:{reference.path}:{','.join(actions)}"
        self.auth = RegistryAuth(reference.host, (scope, *also), credentials)
        self._client = httpx.Client(
            verify=tls_context(reference.host, trust),
            timeout=TIMEOUT,
            follow_redirects=True,
            trust_env=not self.loopback,
            headers={"User-Agent": "helix-deploy"},
        )
        self._base = ""

    def __enter__(self) -> Distribution:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the connections."""
        self._client.close()

    def ping(self) -> None:
        """Ask whether the registry is there and speaks this API, and log in if it wants that."""
        self._call("GET", "/v2/", "reach the registry")

    def digest(self, version: str) -> str | None:
        """The digest of a tag or digest; None if it is not there."""
        doing = f"look for {self._name(version)}"
        try:
            response = self._call("HEAD", self._manifest(version), doing, {"Accept": ACCEPT})
        except NotFound:
            return None
        # The header is optional in the specification; the content cannot lie.
        return response.headers.get("docker-content-digest") or self.manifest(version).digest

    def manifest(self, version: str) -> Manifest:
        """The manifest or index of a tag or digest, checked against its digest.

        Raises:
            NotFound: it is not there.
            Transient: what came is not what was asked for.
        """
        doing = f"read {self._name(version)}"
        response = self._call("GET", self._manifest(version), doing, {"Accept": ACCEPT})
        algorithm = version.partition(":")[0] if ":" in version else "sha256"
        digest = f"{algorithm}:{hashlib.new(algorithm, response.content).hexdigest()}"
        named = version if ":" in version else response.headers.get("docker-content-digest")
        if named and named.startswith(algorithm) and named != digest:
            raise Transient(f"{self._name(version)} came as {digest}: damaged on the way")
        media_type = response.headers.get("content-type", "").partition(";")[0].strip()
        return Manifest(media_type, response.content, digest)

    def put_manifest(self, manifest: Manifest, version: str) -> None:
        """Store a manifest under a tag or under its digest; its blobs must be there."""
        doing = f"write {self._name(version)}"
        headers = {"Content-Type": manifest.media_type}
        response = self._call("PUT", self._manifest(version), doing, headers, content=manifest.body)
        stored = response.headers.get("docker-content-digest", manifest.digest)
        if stored != manifest.digest:
            raise Transient(f"{self._name(version)} was stored as {stored}: damaged on the way")

    def delete_manifest(self, digest: str) -> None:
        """Delete a manifest by its digest, together with all its tags.

        Raises:
            NotFound: it was not there.
            ConfigurationError: the registry does not delete.
        """
        self._call("DELETE", self._manifest(digest), f"delete {self._name(digest)}")

    def delete_tag(self, tag: str, path: str = "") -> bool:
        """Delete a tag and nothing else; fine if it is gone already.

        Args:
            path: the registry's own call for that; the specification's if empty.

        Returns:
            Whether the registry can do that: the specification lets it choose.
        """
        response = self._send("DELETE", self._url(path or self._manifest(tag)), {})
        if response.status_code in NO_TAG_DELETION:
            return False
        if response.is_error and response.status_code != 404:
            raise self._error(response, f"delete {self._name(tag)}")
        return True

    def tags(self) -> list[str]:
        """All tags of the repository; none if there is no such repository."""
        found: list[str] = []
        path: str | None = f"/v2/{self.reference.path}/tags/list"
        while path is not None:
            try:
                response = self._call("GET", path, f"list the tags of {self.reference.repository}")
            except NotFound:
                break
            found += response.json().get("tags") or []
            following = response.links.get("next", {}).get("url")
            path = str(response.url.join(following)) if following else None
        return found

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has a blob."""
        try:
            self._call("HEAD", self._blob(digest), f"look for the layer {digest}")
        except NotFound:
            return False
        return True

    @contextmanager
    def blob(self, digest: str) -> Iterator[Iterator[bytes]]:
        """Stream a blob, checked against its digest at the end.

        Raises:
            NotFound: it is not there.
            Transient: the stream ended early or is not what was asked for.
        """
        doing = f"read the layer {digest[:19]} of {self.reference.repository}"
        algorithm, _, wanted = digest.partition(":")
        with (
            self._translated(),
            self._client.stream(
                "GET",
                self._url(self._blob(digest)),
                headers={"Accept-Encoding": "identity"},
                auth=self.auth,
            ) as response,
        ):
            if response.is_error:
                response.read()
                raise self._error(response, doing)

            def chunks() -> Iterator[bytes]:
                hasher = hashlib.new(algorithm)
                for chunk in response.iter_raw(CHUNK):
                    hasher.update(chunk)
                    yield chunk
                if hasher.hexdigest() != wanted:
                    raise Transient(f"the layer {digest} was damaged on the way")

            yield chunks()

    def mount(self, digest: str, source: str) -> bool:
        """Take over a blob from another repository of the same registry, without moving it.

        Returns:
            Whether that worked; if not, the blob must be uploaded.
        """
        path = f"/v2/{self.reference.path}/blobs/uploads/"
        query = {"mount": digest, "from": source}
        response = self._call("POST", path, f"mount the layer {digest}", params=query)
        if response.status_code == 201:
            return True
        self._cancel(response)
        return False

    def upload(
        self, digest: str, size: int, opened: Callable[[], Any], seen: Callable[[int], None]
    ) -> None:
        """Store a blob, streamed: POST, one PATCH with the whole of it, PUT (as engines do, which
        every registry therefore takes).

        Args:
            size: its bytes.
            opened: gives a context manager around its chunks; called again if the registry wants
                another token in between.
            seen: told the bytes of each chunk as it goes out.
        """
        doing = f"write the layer {digest[:19]} to {self.reference.repository}"
        for attempt in (1, 2):
            begun = self._call("POST", f"/v2/{self.reference.path}/blobs/uploads/", doing)
            with opened() as chunks:
                response = self._send(
                    "PATCH",
                    self._location(begun),
                    {"Content-Type": "application/octet-stream", "Content-Length": str(size)},
                    content=_counted(chunks, seen),
                )
            if response.status_code == 401 and attempt == 1:
                continue
            if response.is_error:
                raise self._error(response, doing)
            location = self._location(response).copy_merge_params({"digest": digest})
            self._call("PUT", str(location), doing, {"Content-Length": "0"})
            return

    def upload_bytes(self, content: bytes) -> str:
        """Store a small blob and return its digest."""
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if not self.has_blob(digest):
            doing = f"write to {self.reference.repository}"
            begun = self._call("POST", f"/v2/{self.reference.path}/blobs/uploads/", doing)
            location = self._location(begun).copy_merge_params({"digest": digest})
            headers = {"Content-Type": "application/octet-stream"}
            self._call("PUT", str(location), doing, headers, content=content)
        return digest

    def try_upload(self) -> None:
        """Begin an upload and cancel it: tells whether we may push, and leaves nothing.

        Raises:
            PermissionDenied: we may not.
            NotFound: the repository must be created first.
        """
        path = f"/v2/{self.reference.path}/blobs/uploads/"
        self._cancel(self._call("POST", path, f"push to {self.reference.repository}"))

    def _cancel(self, begun: httpx.Response) -> None:
        # Some registries know no cancelling; they forget an upload by themselves after a while.
        if "location" in begun.headers:
            self._send("DELETE", self._location(begun), {})

    def _call(
        self,
        method: str,
        path: str,
        doing: str,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> httpx.Response:
        response = self._send(method, self._url(path), headers or {}, **options)
        if response.is_error:
            raise self._error(response, doing)
        return response

    def _send(
        self, method: str, url: httpx.URL, headers: Mapping[str, str], **options: Any
    ) -> httpx.Response:
        # An upload may go on at another host, which must not see the credentials of this one.
        auth = self.auth if url.netloc == httpx.URL(self._base).netloc else None
        with self._translated():
            return self._client.request(method, url, headers=headers, auth=auth, **options)

    def _error(self, response: httpx.Response, doing: str) -> HelixError:
        error = from_response(response, doing)
        return self.auth.refused(error) if response.status_code == 401 else error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise from_transport(error, self.reference.host) from None
        except httpx.HTTPError as error:
            raise Transient(f"the registry {self.reference.host}: {error}") from None

    def _url(self, path: str) -> httpx.URL:
        if path.startswith(("http://", "https://")):
            return httpx.URL(path)
        if not self._base:
            self._base = self._find_base()
        return httpx.URL(self._base + path)

    def _find_base(self) -> str:
        """Scheme and host. Only a loopback registry may speak plain HTTP, and whether it does is
        found out by asking for TLS first, as an engine does."""
        host = self.reference.host
        if host == DOCKER_HUB:
            return "https://registry-1.docker.io"
        if not self.loopback:
            return f"https://{host}"
        try:
            self._client.get(f"https://{host}/v2/")
        except httpx.ConnectError as error:
            if speaks_http(error):
                return f"http://{host}"
            raise from_transport(error, host) from None
        except httpx.TransportError as error:
            raise from_transport(error, host) from None
        return f"https://{host}"

    def _location(self, response: httpx.Response) -> httpx.URL:
        """Where an upload goes on; may be relative, and may name another host."""
        location = response.headers.get("location")
        if not location:
            raise Transient(f"the registry {self.reference.host} began an upload without a place")
        url = response.url.join(location)
        if url.scheme == "http" and not is_loopback(url.host):
            raise ConfigurationError(
                f"the registry {self.reference.host} sends uploads to «http://{url.host}»",
                hint="plain HTTP is for loopback only: set the registry's own address to https://",
            )
        return url

    def _manifest(self, version: str) -> str:
        return f"/v2/{self.reference.path}/manifests/{version}"

    def _blob(self, digest: str) -> str:
        return f"/v2/{self.reference.path}/blobs/{digest}"

    def _name(self, version: str) -> str:
        return f"{self.reference.repository}{'@' if ':' in version else ':'}{version}"


def tls_context(host: str, trust: Trust) -> ssl.SSLContext:
    """The system's authorities, and those of `ca` or of an engine's folder for this host.

    Raises:
        ConfigurationError: `ca` cannot be read, or `insecure` is set for another machine.
    """
    if trust.insecure and not is_loopback(host):
        raise ConfigurationError(
            f"`insecure` is set for the registry {host}, which is not loopback",
            hint="remove it, and set `ca` if the registry has a private authority",
        )
    engines = sorted((ENGINE_CERTIFICATES / host).glob("*.crt"))
    try:
        files = [file for file in (trust.ca, *engines) if file is not None]
        system = (os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        states = tuple((file, file.stat().st_mtime_ns) for file in files)
        return _context(trust.insecure, states, system)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"cannot read the registry's `ca` {trust.ca}: {error.strerror or 'no certificate'}",
            hint="set it to a PEM file on the worker's machine",
        ) from None


@lru_cache(maxsize=32)
def _context(
    insecure: bool, files: tuple[tuple[Path, int], ...], _system: tuple[str | None, ...]
) -> ssl.SSLContext:
    """Made once for the same files in the same state, and the same place that says whom the system
    trusts: it takes longer than a call."""
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for file, _modified in files:
        context.load_verify_locations(file)
    return context


def _counted(chunks: Iterator[bytes], seen: Callable[[int], None]) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        seen(len(chunk))
