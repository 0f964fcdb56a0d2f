"""Keeps sources, bundles and logs by URL, so that a worker elsewhere can fetch them.

    store = Store("file:///home/me/.local/state/helix/store")
    url = store.put_file(archive, "sources/0f3a….tar.gz")
    Store("s3://acme-deploys/shop").put_bytes(b"…", "bundles/…")

A file store is private to its user: folders of mode 0700, files of mode 0600. What is put appears
whole or not at all, everywhere.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any

import fsspec
from fsspec.core import split_protocol

from model.errors import (
    AuthExpired,
    ConfigurationError,
    HelixError,
    NotFound,
    PermissionDenied,
    PlatformUnhealthy,
    QuotaExceeded,
    Throttled,
    Transient,
)

PROTOCOLS = {"file": "", "s3": "aws", "gs": "gcp", "abfs": "azure"}
"""URL scheme -> the extra of helix-deploy that brings its library."""

_CHUNK = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT}
_STATUS: dict[int, type[HelixError]] = {
    401: AuthExpired,
    402: QuotaExceeded,
    403: PermissionDenied,
    404: NotFound,
    408: Transient,
    429: Throttled,
    507: PlatformUnhealthy,
}
_NAMES: dict[str, type[HelixError]] = {
    "NoCredentialsError": PermissionDenied,
    "PartialCredentialsError": PermissionDenied,
    "CredentialUnavailableError": PermissionDenied,
    "ClientAuthenticationError": PermissionDenied,
    "DefaultCredentialsError": PermissionDenied,
    "RefreshError": AuthExpired,
    "NoSuchBucket": NotFound,
    "ParamValidationError": ConfigurationError,
}
"""Exception classes of the cloud libraries, by name: they are imported only where they are used."""

_HINTS: dict[type[HelixError], str] = {
    PermissionDenied: "give this machine's credentials read and write access to it",
    AuthExpired: "sign in to the cloud again",
    NotFound: "create the bucket, or push again so that the content is stored anew",
    PlatformUnhealthy: "free disk space where the store is kept, then push again",
}


class Store:
    """Content kept under one URL.

    Args:
        url: file:///folder, s3://bucket/prefix, gs://bucket/prefix or abfs://container/prefix. A
            plain path is a folder of this machine.

    Raises:
        ConfigurationError: the scheme is unknown, or its library is not installed.
    """

    def __init__(self, url: str) -> None:
        self._fs, self._root, self.scheme = _open(url)

    def url(self, name: str) -> str:
        """Where content of this name is, or would be."""
        return str(self._fs.unstrip_protocol(self._path(name)))

    def put_file(self, local: Path, name: str) -> str:
        """Keep a copy of a file. Content is never replaced: a name that is there stays as it is.

        Args:
            local: the file.
            name: relative, with slashes; it should name the content, as by its digest.

        Returns:
            The URL under which any worker can fetch it.

        Raises:
            PermissionDenied, Transient, PlatformUnhealthy: the store does not take it.
        """
        path = self._path(name)
        with translated(self.url(name)):
            if not self._fs.exists(path):
                self._put(local, path)
        return self.url(name)

    def put_bytes(self, content: bytes, name: str) -> str:
        """As `put_file`, from memory."""
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder, "content")
            local.write_bytes(content)
            return self.put_file(local, name)

    def fetch(self, url: str, to: Path) -> None:
        """Copy what is at a URL, of this store or another, to a local file of mode 0600.

        Raises:
            NotFound: it is not there (any more).
        """
        fs, path, _ = _open(url)
        partial = to.with_name(f".{to.name}.{os.getpid()}.part")
        with translated(url):
            try:
                with fs.open(path, "rb") as source, open_private(partial, "wb") as target:
                    shutil.copyfileobj(source, target, _CHUNK)
                partial.replace(to)
            finally:
                partial.unlink(missing_ok=True)

    def read_text(self, url: str, tail: int | None = None) -> str:
        """The text at a URL; of its end only, if `tail` lines are wanted.

        Raises:
            NotFound: it is not there (yet).
        """
        fs, path, _ = _open(url)
        with translated(url):
            if tail is None:
                return bytes(fs.cat_file(path)).decode(errors="replace")
            size, span = int(fs.info(path)["size"]), max(1, tail) * 256
            while True:
                content: bytes = fs.cat_file(path, start=max(0, size - span), end=size)
                lines = content.decode(errors="replace").splitlines(keepends=True)
                if span >= size or len(lines) > tail:
                    return "".join(lines[-tail:]) if tail > 0 else ""
                span *= 4

    def size(self, name: str) -> int | None:
        """The bytes kept under a name, or None if nothing is."""
        with translated(self.url(name)):
            try:
                return int(self._fs.info(self._path(name))["size"])
            except FileNotFoundError:
                return None

    def exists(self, name: str) -> bool:
        """Whether content is kept under a name."""
        return self.size(name) is not None

    def delete(self, url: str) -> None:
        """Remove what is at a URL; nothing happens if it is not there."""
        fs, path, _ = _open(url)
        with translated(url), suppress(FileNotFoundError):
            fs.rm_file(path)

    def _path(self, name: str) -> str:
        parts = PurePosixPath(name).parts
        if not parts or ".." in parts or parts[0] == "/":
            raise ConfigurationError(f"«{name}» cannot name something in a store")
        return "/".join((self._root, *parts))

    def _put(self, local: Path, path: str) -> None:
        if self.scheme != "file":
            self._fs.put_file(str(local), path)  # an object store shows nothing before the end
            return
        target = Path(path)
        make_private(target.parent)
        partial = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}.part")
        try:
            with local.open("rb") as source, open_private(partial, "wb") as sink:
                shutil.copyfileobj(source, sink, _CHUNK)
                sink.flush()
                os.fsync(sink.fileno())
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


class LogWriter:
    """A log that grows line by line, in a file that others on this machine can follow.

        with LogWriter(store, "logs/3f2a/build.log", folder) as log:
            log.write("#1 [internal] load build definition")

    With a file store the local file is the log. With any other, it is uploaded when the log is
    closed, and `url` names the place from the beginning. An existing file is appended to, so that
    all attempts of a step are in one log.

    Args:
        store: where the log ends up.
        name: relative, with slashes.
        folder: the local folder it grows in.
    """

    def __init__(self, store: Store, name: str, folder: Path) -> None:
        self._store, self._name = store, name
        self.path = folder / name
        with translated(str(self.path)):
            make_private(self.path.parent)
            self._file = open_private(self.path, "a", encoding="utf-8", errors="replace")
        self.url = f"file://{self.path.absolute()}" if store.scheme == "file" else store.url(name)

    def write(self, line: str) -> None:
        """Append one line; it can be read at once.

        Raises:
            PlatformUnhealthy: the disk is full.
        """
        with translated(str(self.path)):
            self._file.write(line.rstrip("\n") + "\n")
            self._file.flush()

    def close(self) -> None:
        """Upload the log where the store is not local. Idempotent."""
        if self._file.closed:
            return
        self._file.close()
        if self._store.scheme != "file":
            with translated(self.url):
                self._store._put(self.path, self._store._path(self._name))

    def __enter__(self) -> LogWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except HelixError:
            if error is None:
                raise  # else the first error is the one to show


def make_private(folder: Path) -> None:
    """Create a folder, and the missing ones above it, for this user alone (mode 0700)."""
    for missing in reversed([at for at in (folder, *folder.parents) if not at.exists()]):
        with suppress(FileExistsError):
            missing.mkdir(mode=0o700)


def open_private(path: Path, mode: str, **options: Any) -> Any:
    """Open a file for writing that only this user can read (mode 0600)."""
    opener: Callable[[str, int], int] = lambda name, flags: os.open(name, flags, 0o600)  # noqa: E731
    return open(path, mode, opener=opener, **options)


def _open(url: str) -> tuple[Any, str, str]:
    """The file system of a URL, the path in it, and the scheme."""
    scheme, rest = split_protocol(url)
    scheme = {None: "file", "local": "file", "gcs": "gs", "az": "abfs", "abfss": "abfs"}.get(
        scheme, scheme
    )
    if scheme not in PROTOCOLS:
        raise ConfigurationError(
            f"a store cannot be kept at «{url}»",
            hint="use one of " + ", ".join(f"{known}://" for known in PROTOCOLS),
        )
    try:
        # A cached listing would hide what another worker has just stored.
        fs = fsspec.filesystem(
            scheme, **({} if scheme == "file" else {"use_listings_cache": False})
        )
    except ImportError:
        raise ConfigurationError(
            f"a store at {scheme}:// needs a library that is not installed",
            hint=f"pip install 'helix-deploy[{PROTOCOLS[scheme]}]'",
        ) from None
    if scheme == "file":
        return fs, os.path.abspath(os.path.expanduser(rest)), scheme
    return fs, str(fs._strip_protocol(url)).rstrip("/"), scheme


@contextmanager
def translated(place: str, errors: type[Exception] = Exception) -> Iterator[None]:
    """Errors of the local disk and of three clouds' libraries, as those of `model.errors`.

    Args:
        place: the URL or path worked on, for the message.
        errors: what to translate; the rest passes.
    """
    try:
        yield
    except HelixError:
        raise
    except errors as error:
        cls = _class_of(error)
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        said = f"cannot use {place}: {str(reason).splitlines()[0][:300]}"
        if cls is NotFound:
            said = f"there is nothing at {place}"
        raise cls(said, hint=_HINTS.get(cls, "")) from None


def _class_of(error: BaseException) -> type[HelixError]:
    known: list[tuple[Any, type[HelixError]]] = [
        ((FileNotFoundError, NotADirectoryError, IsADirectoryError), NotFound),
        (PermissionError, PermissionDenied),
        ((ConnectionError, TimeoutError), Transient),
    ]
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return PlatformUnhealthy
        if (status := _status(seen)) is not None:
            return _STATUS.get(status, Transient if status >= 500 else ConfigurationError)
        for base in type(seen).__mro__:
            if base.__name__ in _NAMES:
                return _NAMES[base.__name__]
        for classes, cls in known:
            if isinstance(seen, classes):
                return cls
        seen = seen.__cause__ or seen.__context__
    return Transient


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error of a cloud library carries, wherever that library puts it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    for value in (response, getattr(error, "status_code", None), getattr(error, "code", None)):
        if str(value).isdigit() and 400 <= int(str(value)) < 600:
            return int(str(value))
    return None
