"""Turns a build context into an immutable, content-addressed source, and back into a folder.

    source = snapshot(Path("."), store)
    fetch(source, Path("/tmp/scratch"), store)

The digest covers names, modes, link targets and contents, and nothing else: not times, owners, the
order a file system lists things in, or the compression. Equal contexts have equal digests on every
machine. The first snapshot reads every file; a later one only those whose size, times or inode
have changed since.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import posixpath
import stat
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from model.artifact import Source
from model.base import digest_of
from model.errors import ConfigurationError, HelixError, NotFound
from project.ignore import Ignore, Inherited, read_patterns
from project.store import Store, make_private, open_private, translated

Report = Callable[[str, int, int], None]
"""Takes what is going on, and the bytes done and to do."""

ALWAYS_OUT = (".helix",)
"""Our own folder, which holds the data of local instances. A «!.helix» brings it back."""

_ATTEMPTS = 3
_CHUNK = 1 << 20
_SETTLED = 2_000_000_000
"""Nanoseconds after which a change of a file is sure to change its times: younger files are read
again by the next snapshot."""


class _Changed(Exception):
    """A file was written to, or vanished, while it was read."""


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    """Relative to the context, with slashes."""
    kind: str
    """`d`, `f` or `l`."""
    mode: int
    size: int = 0
    target: str = ""
    """Where a link points."""
    stamp: tuple[int, ...] = ()
    """Size, times and inode: equal means that the content is the same."""


def snapshot(
    context: Path,
    store: Store,
    *,
    dockerfile: str = "Dockerfile",
    cache: Path | None = None,
    report: Report = lambda text, done, of: None,
) -> Source:
    """Make a source of a build context and keep it in the store, unless it is there already.

    `.dockerignore` (or `<dockerfile>.dockerignore`, which wins) is honoured as Docker does; both,
    and the Dockerfile, are always part of the source. Links stay links. Sockets, pipes and devices
    are left out.

    Args:
        context: the folder.
        store: where the archive goes, as `sources/<digest>.tar.gz`.
        dockerfile: relative to the context; empty if the context needs none.
        cache: a folder to remember digests of files in, such as the project's `.helix`.
        report: told how far it is; what it raises ends the snapshot and leaves nothing behind.

    Raises:
        ConfigurationError: no such folder or Dockerfile, nothing in it, a file that cannot be read
            or is written to all the time, or a link or Dockerfile outside the context.
    """
    context = context.resolve()
    if not context.is_dir():
        raise ConfigurationError(
            f"the build context {context} is not a folder", hint="correct `context` in helix.toml"
        )
    wanted = _dockerfile(context, dockerfile)
    ignore = Ignore([*ALWAYS_OUT, *_patterns(context, dockerfile)])
    memory = _Memory(context, cache)
    changed = ""
    for _ in range(_ATTEMPTS):
        try:
            return _snapshot(context, store, ignore, wanted, memory, report)
        except _Changed as error:
            changed = str(error)
            time.sleep(0.1)
    raise ConfigurationError(
        f"{changed} keeps changing while it is read",
        hint="add it to .dockerignore, or stop its writer",
    )


def fetch(source: Source, into: Path, store: Store | None = None) -> None:
    """Put a source's files into a new or empty folder, and verify that they are what it names.

    Raises:
        NotFound: the archive is gone from the store, or damaged (and then removed from it).
        ConfigurationError: the archive holds a name that leads outside the folder.
    """
    store = store or Store(source.url)
    make_private(into)
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=".fetch-") as folder:
        archive = Path(folder, "source.tar.gz")
        store.fetch(source.url, archive)
        with translated(str(into), OSError):
            intact = _unpack(archive, into, source)
    if not intact:
        store.delete(source.url)
        raise _damaged(source)


def look(source: Source, name: str, store: Store) -> tuple[str | None, dict[str, str]]:
    """Read one small text file of a source, and what else is in it, without unpacking it.

    Args:
        source: what to look into.
        name: the file, relative to the context.
        store: any store; the source's own URL says where it is.

    Returns:
        The text, or None if there is no such file; and each name with its kind: `d`, `f` or `l`.

    Raises:
        NotFound: the archive is gone from the store, or damaged.
    """
    text, names = None, {}
    with tempfile.TemporaryDirectory(prefix="helix-source-") as folder:
        archive = Path(folder, "source.tar.gz")
        store.fetch(source.url, archive)
        try:
            with tarfile.open(archive, "r:gz", errors="surrogateescape") as tar:
                for member in tar:
                    kind = "d" if member.isdir() else "l" if member.issym() else "f"
                    names[member.name] = kind
                    wanted = posixpath.normpath(name) == member.name
                    if wanted and (file := tar.extractfile(member)) is not None:
                        text = file.read(_CHUNK).decode(errors="replace")
        except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError):
            raise _damaged(source) from None
    return text, names


def _damaged(source: Source) -> NotFound:
    return NotFound(
        f"the stored source {source.url} is damaged", hint="push again: it is then stored anew"
    )


def _snapshot(
    context: Path,
    store: Store,
    ignore: Ignore,
    wanted: frozenset[str],
    memory: _Memory,
    report: Report,
) -> Source:
    entries = sorted(_walk(context, ignore, wanted), key=lambda entry: os.fsencode(entry.name))
    if not entries:
        raise ConfigurationError(
            f"there is nothing to build in {context}",
            hint="correct `context` in helix.toml, or its .dockerignore",
        )
    for entry in entries:
        _stays_inside(entry)
    total = sum(entry.size for entry in entries)
    try:
        digest = _digest(
            context, entries, memory, lambda done: report("reading the source", done, total)
        )
    finally:
        memory.save()
    name = f"sources/{digest}.tar.gz"
    size = store.size(name)
    if size is None:
        with tempfile.TemporaryDirectory(prefix="helix-source-") as folder:
            archive = Path(folder, "source.tar.gz")
            progress = lambda done: report("packing the source", done, total)  # noqa: E731
            with translated(str(archive), OSError):
                _pack(context, entries, archive, memory, progress)
                size = archive.stat().st_size
            report("storing the source", 0, size)
            store.put_file(archive, name)
    files = sum(entry.kind != "d" for entry in entries)
    return Source(digest=digest, url=store.url(name), size=size, files=files)


def _dockerfile(context: Path, name: str) -> frozenset[str]:
    """Check the Dockerfile; what must be in the source because of it, ignored or not."""
    if not name:
        return frozenset((".dockerignore",))
    path = context / name
    real = path.resolve()
    if not real.is_relative_to(context):
        raise ConfigurationError(
            f"the Dockerfile {name} lies outside the build context {context}",
            hint="move it into the context, or widen `context` in helix.toml",
        )
    if not real.is_file():
        raise ConfigurationError(
            f"there is no Dockerfile at {path}",
            hint="create it, or set `dockerfile` to its path relative to the context",
        )
    own = posixpath.normpath(name)
    return frozenset(
        (own, real.relative_to(context).as_posix(), f"{own}.dockerignore", ".dockerignore")
    )


def _patterns(context: Path, dockerfile: str) -> list[str]:
    """The patterns of the first ignore file there is."""
    for name in (f"{dockerfile}.dockerignore", ".dockerignore"):
        with suppress(FileNotFoundError):
            return read_patterns((context / name).read_text(errors="replace"))
    return []


def _stays_inside(entry: _Entry) -> None:
    """An absolute link means the image's own files, as for Docker; only a relative one can leave
    the context."""
    if entry.kind != "l" or posixpath.isabs(entry.target):
        return
    landing = posixpath.normpath(posixpath.join(posixpath.dirname(entry.name), entry.target))
    if landing == ".." or landing.startswith("../"):
        raise ConfigurationError(
            f"the link {entry.name} points outside the build context, to {entry.target}",
            hint=f"add {entry.name} to .dockerignore, or replace it by what it points to",
        )


def _walk(
    root: Path, ignore: Ignore, wanted: frozenset[str], folder: str = "", inherited: Inherited = ()
) -> Iterator[_Entry]:
    """What is in a context. A folder that is left out still appears if something in it does not."""
    try:
        found = sorted(os.scandir(root / folder), key=lambda item: item.name)
    except FileNotFoundError:
        raise _Changed(folder) from None
    except PermissionError:
        raise _unreadable(root / folder) from None
    for item in found:
        name = f"{folder}/{item.name}" if folder else item.name
        out, passed = ignore.match(name, inherited)
        forced = name in wanted
        try:
            info = item.stat(follow_symlinks=False)
            entry = None if out and not forced else _entry(name, info, item.path)
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(info.st_mode):
            if entry is not None:
                yield entry
            continue
        deeper = ignore.may_keep_inside(name) or any(w.startswith(f"{name}/") for w in wanted)
        if entry is not None:
            yield entry
            yield from _walk(root, ignore, wanted, name, passed)
        elif deeper:
            inside = _walk(root, ignore, wanted, name, passed)
            first = next(inside, None)
            if first is not None:
                yield cast(_Entry, _entry(name, info, item.path))
                yield first
                yield from inside


def _entry(name: str, info: os.stat_result, path: str) -> _Entry | None:
    """None for what Docker leaves out as well: sockets, and here pipes and devices."""
    mode = stat.S_IMODE(info.st_mode)
    if stat.S_ISDIR(info.st_mode):
        return _Entry(name, "d", mode)
    if stat.S_ISLNK(info.st_mode):
        return _Entry(name, "l", 0o777, target=os.readlink(path))
    if stat.S_ISREG(info.st_mode):
        stamp = (info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino)
        return _Entry(name, "f", mode, info.st_size, stamp=stamp)
    return None


def _digest(
    root: Path,
    entries: Iterable[_Entry],
    memory: _Memory,
    progress: Callable[[int], None] = lambda done: None,
) -> str:
    """The digest of a context. No field can hold a NUL, so the encoding is unambiguous."""
    whole, done = hashlib.sha256(), 0
    for entry in sorted(entries, key=lambda entry: os.fsencode(entry.name)):
        content = entry.target if entry.kind == "l" else ""
        if entry.kind == "f":
            content = memory.digest(root, entry)
            done += entry.size
            progress(done)
        fields = (entry.kind, f"{entry.mode:o}", entry.name, content)
        whole.update(b"".join(os.fsencode(field) + b"\0" for field in fields))
    return whole.hexdigest()


class _Memory:
    """The digests of a context's files by their stamps, kept between snapshots."""

    def __init__(self, context: Path, folder: Path | None = None) -> None:
        self._path = folder and folder / f"source-{digest_of(str(context))[:16]}.json"
        self._known: dict[str, list[Any]] = {}
        self._seen: dict[str, list[Any]] = {}
        if self._path is not None:
            with suppress(OSError, ValueError):
                known = json.loads(self._path.read_text())
                self._known = known if isinstance(known, dict) else {}

    def digest(self, root: Path, entry: _Entry) -> str:
        """The sha256 of a file, read if its stamp is new or too young to be trusted."""
        known = self._known.get(entry.name)
        if known is not None and known[:-1] == list(entry.stamp):
            self._seen[entry.name] = known
            return str(known[-1])
        started = time.time_ns()
        with _reading(root, entry) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
            info = os.fstat(file.fileno())
        if (info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino) != entry.stamp:
            raise _Changed(entry.name)
        record = [*entry.stamp, digest]
        self._known[entry.name] = record
        if max(info.st_mtime_ns, info.st_ctime_ns) + _SETTLED < started:
            self._seen[entry.name] = record
        return digest

    def forget(self, entry: _Entry) -> None:
        """Read a file again next time: its stamp is the same, its content is not."""
        self._known.pop(entry.name, None)
        self._seen.pop(entry.name, None)

    def save(self) -> None:
        """Keep what was learnt. Failing to is no reason to fail a push."""
        if self._path is None:
            return
        partial = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with suppress(OSError):
            make_private(self._path.parent)
            with open_private(partial, "w") as file:
                json.dump(self._seen, file)
            partial.replace(self._path)


def _reading(root: Path, entry: _Entry) -> IO[bytes]:
    """Open a file of the context, and only a file: a link that took its place is not followed."""
    try:
        handle = os.open(root / entry.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError:
        raise _unreadable(root / entry.name) from None
    except OSError:
        raise _Changed(entry.name) from None
    return os.fdopen(handle, "rb")


def _unreadable(path: Path) -> HelixError:
    return ConfigurationError(
        f"{path} cannot be read", hint="allow it with chmod, or add it to .dockerignore"
    )


class _Checked:
    """A file on its way into the archive: hashed again, since it may have changed meanwhile."""

    def __init__(self, file: IO[bytes], progress: Callable[[int], None]) -> None:
        self._file, self._progress = file, progress
        self.hash = hashlib.sha256()

    def read(self, size: int) -> bytes:
        chunk = self._file.read(size)
        self.hash.update(chunk)
        self._progress(len(chunk))
        return chunk


def _pack(
    root: Path,
    entries: Iterable[_Entry],
    archive: Path,
    memory: _Memory,
    progress: Callable[[int], None],
) -> None:
    """Write the archive of entries. GNU format: BuildKit takes a PAX header for a Dockerfile."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done)

    with (
        open_private(archive, "wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw, mtime=0) as packed,
        tarfile.TarFile(
            fileobj=packed, mode="w", format=tarfile.GNU_FORMAT, errors="surrogateescape"
        ) as tar,
    ):
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.mode = entry.mode
            if entry.kind == "d":
                info.type = tarfile.DIRTYPE
            elif entry.kind == "l":
                info.type, info.linkname = tarfile.SYMTYPE, entry.target
            if entry.kind != "f":
                tar.addfile(info)
            else:
                info.size = entry.size
                with _reading(root, entry) as file:
                    checked = _Checked(file, advance)
                    try:
                        tar.addfile(info, cast(IO[bytes], checked))
                    except OSError as error:
                        if error.errno is not None:
                            raise
                        raise _Changed(entry.name) from None  # shorter than it was
                    if checked.hash.hexdigest() != memory.digest(root, entry):
                        memory.forget(entry)
                        raise _Changed(entry.name)
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep one per file


def _unpack(archive: Path, into: Path, source: Source) -> bool:
    """Whether the archive was whole and holds what the source names."""
    try:
        _extract(archive, into)
        found = _walk(into, Ignore(()), frozenset())
        return _digest(into, found, _Memory(into)) == source.digest
    except _Unsafe as error:
        raise ConfigurationError(f"the source {source.url} is not safe: {error}") from None
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError):
        return False


class _Unsafe(Exception):
    """An archive that would write outside of its folder, or more than files, folders and links."""


def _check(member: tarfile.TarInfo) -> None:
    """Its name must stay inside. What a symbolic link points to is never followed here."""
    name = PurePosixPath(member.name)
    if name.is_absolute() or ".." in name.parts:
        raise _Unsafe(f"«{member.name}» is outside of it")
    if not (member.isreg() or member.isdir() or member.issym()):
        raise _Unsafe(f"«{member.name}» is no file, folder or symbolic link")


def _extract(archive: Path, into: Path) -> None:
    """Unpack with the archive's modes; links last, so that nothing is written through one.

    Python 3.11 has tarfile's own filters from 3.11.4 on, and Debian 12 has an earlier one.
    """
    folders: list[tarfile.TarInfo] = []
    links: list[tarfile.TarInfo] = []
    with tarfile.open(archive, "r:gz", errors="surrogateescape") as tar:
        tar.extraction_filter = lambda member, _: member  # it is checked here
        for member in tar:
            _check(member)
            if member.issym():
                links.append(member)
                continue
            tar.extract(member, into, set_attrs=False)
            if member.isdir():
                folders.append(member)
            else:
                os.chmod(into / member.name, member.mode)
        for link in links:
            tar.extract(link, into, set_attrs=False)
    for folder in reversed(folders):  # a folder may be read-only: its content comes first
        os.chmod(into / folder.name, folder.mode)
