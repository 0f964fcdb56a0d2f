"""The public images that the examples, the demo and the edge are made from.

Where the engine can pull nothing, a stand-in of the same name is made from Debian's packages, and
from what the set-up has compiled: the programs and the libraries they need, and nothing else. Its
label says that it is one.
"""

from __future__ import annotations

import functools
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scripts.setup import packages
from scripts.setup.shell import SetupFailed, program, run, say

PULL_SECONDS = 120
"""A network that is there and slow; one that is not there refuses within a second or two."""
LABEL = "helix.stand-in"

LEFT_OUT = frozenset(
    {
        "__pycache__", "distutils", "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test",
        "tkinter", "turtledemo", "unittest", "venv",
    }
)  # fmt: skip
"""Parts of the standard library that no service of ours needs; what is compiled is made anew."""
BUILD_BASE = "python:3.11-slim-bookworm"
"""What the worker's image is built from. Debian 12's own Python is of this version as well."""


@dataclass(frozen=True)
class StandIn:
    """What an image of this machine's programs holds."""

    programs: tuple[str, ...]
    python: bool = False
    """With the standard library."""
    left_out: frozenset[str] = LEFT_OUT
    """Of the standard library."""
    parts: tuple[str, ...] = ()
    """What else must be installed on this machine."""
    libraries: tuple[str, ...] = ()
    """That programs put in later are linked with."""
    changes: tuple[str, ...] = ()
    """Lines of a Dockerfile."""
    folders: tuple[str, ...] = ()
    """That are there in the public image, for files that are put in later."""
    paths: dict[str, str] = field(default_factory=dict)
    """Program -> where the public image has it, where that is not /usr/bin."""
    files: dict[str, Path] = field(default_factory=dict)
    """Place in the image -> a file or a folder of this machine."""
    owners: dict[str, int] = field(default_factory=dict)
    """Folder, made if it is not there -> the number of its user, where that is not root."""
    users: dict[str, int] = field(default_factory=dict)
    """Name -> number, besides root."""


IMAGES = {
    "caddy:2": StandIn(
        ("caddy",),
        changes=(
            "ENV XDG_CONFIG_HOME=/config XDG_DATA_HOME=/data",
            'CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile"]',
        ),
        folders=("etc/caddy", "config", "data"),
    ),
    "registry:2": StandIn(
        ("docker-registry",),
        changes=(
            'ENTRYPOINT ["registry"]',
            'CMD ["serve", "/etc/docker/registry/config.yml"]',
            "VOLUME /var/lib/registry",
        ),
        folders=("etc/docker/registry", "var/lib/registry"),
        paths={"docker-registry": "/bin/registry"},
    ),
    "python:3-slim": StandIn(("busybox", "python3"), python=True, changes=('CMD ["python3"]',)),
    BUILD_BASE: StandIn(
        ("busybox", "python3"),
        python=True,
        left_out=LEFT_OUT - {"distutils", "ensurepip", "lib2to3", "unittest", "venv"},
        parts=("venv",),
        libraries=(
            "libdl.so.2",
            "libgcc_s.so.1",
            "libpthread.so.0",
            "libresolv.so.2",
            "librt.so.1",
            "libstdc++.so.6",
            "libutil.so.1",
        ),
        files={"/usr/share/python-wheels": Path("/usr/share/python-wheels")},
        changes=('CMD ["python3"]',),
    ),
    "redis:7-bookworm": StandIn(
        ("busybox", "python3", "redis-server"), python=True, changes=('CMD ["redis-server"]',)
    ),
}
"""The name of a public image -> what stands in for it. The front of the stateful example is written
in Python, so the stand-in for Redis has it; the public one gets it when the example is built."""


def ensure(*names: str) -> None:
    """Have these images, or all of them, in the engine."""
    for name in missing(names or IMAGES):
        make(name, IMAGES[name])


def missing(names: Iterable[str]) -> list[str]:
    """Those of the images that the engine neither has nor can pull."""
    lacking: list[str] = []
    for name in names:
        if _is_here(name):
            say("images", f"found {name}")
        elif not lacking and _pull(name):
            say("images", f"pulled {name}")
        else:
            lacking.append(name)
    return lacking


def _is_here(name: str) -> bool:
    command = ["docker", "image", "inspect", "--format", "{{.Id}}", name]
    return subprocess.run(command, capture_output=True).returncode == 0


def _pull(name: str) -> bool:
    say("images", f"docker pull {name} …")
    try:
        command = ["docker", "pull", "--quiet", name]
        return subprocess.run(command, capture_output=True, timeout=PULL_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def make(name: str, image: StandIn) -> None:
    """Put a stand-in under the name of a public image.

    Raises:
        SetupFailed: what it is made of is not here.
    """
    mend = f"let the engine pull {name}, or run this on Debian as root"
    try:
        known = (one for one in image.programs if one in packages.PACKAGES)
        packages.ensure(*known, *image.parts)
        found = {one: _find(one) for one in image.programs}
    except SetupFailed as error:
        raise SetupFailed(f"{name} cannot be pulled; {error.what}", mend) from None
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "root")
        for place in ("tmp", "bin", "usr/bin", "etc", *image.folders, *image.owners):
            (root / place).mkdir(parents=True, exist_ok=True)
        (root / "tmp").chmod(0o1777)
        users = {"root": 0, **image.users}
        for file, line in (("passwd", "{0}:x:{1}:{1}:{0}:/:/bin/sh\n"), ("group", "{0}:x:{1}:\n")):
            text = "".join(line.format(user, number) for user, number in users.items())
            Path(root, "etc", file).write_text(text)
        _put_programs(root, found, image.paths)
        _put_libraries(root, image.libraries)
        for place, source in image.files.items():
            _put_files(root, source, place)
        if image.python:
            _put_python(root, image.left_out)
        archive = Path(folder, "image.tar")
        with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT) as tar:
            tar.add(root, arcname=".", filter=functools.partial(_owned, image.owners))
        changes = ["ENV PATH=/usr/bin:/bin", f"LABEL {LABEL}={name}", *image.changes]
        options = [word for change in changes for word in ("--change", change)]
        run(
            ["docker", "import", *options, archive, name],
            mend="see that the engine's disk has room",
        )
    say("images", f"made a stand-in for {name}, as it cannot be pulled here")


def _find(name: str) -> Path:
    """A program of Debian's, or one of those that the set-up has compiled."""
    if name == "python3":
        return Path("/usr/bin/python3")
    found = packages.find(name) or program(name)
    if found is None:
        raise SetupFailed(f"there is no {name} here", "run: make tools")
    return Path(found)


def _put_programs(root: Path, found: Mapping[str, Path], paths: Mapping[str, str]) -> None:
    for name, source in found.items():
        _copy(source, root, paths.get(name, f"/usr/bin/{name}"))
        if name == "busybox":
            for applet in run([source, "--list"], mend="").split():
                (root / "bin" / applet).symlink_to("/usr/bin/busybox")


def _put_libraries(root: Path, names: Iterable[str]) -> None:
    lines = run(["ldconfig", "-p"], mend="").splitlines()
    where = {line.split()[0]: line.split()[-1] for line in reversed(lines)}  # the first one counts
    for name in names:
        _copy(Path(where[name]), root)


def _put_files(root: Path, source: Path, place: str) -> None:
    """A file, or all that is in a folder."""
    files = [source] if source.is_file() else [one for one in source.rglob("*") if one.is_file()]
    for file in files:
        inside = file.relative_to(source)
        _copy(file, root, place if file == source else f"{place}/{inside}")


def _copy(source: Path, root: Path, place: str | None = None) -> None:
    """Copy a file, and the libraries it is linked with to where the loader looks for them."""
    targets = {place or str(source): source}
    targets |= {library: Path(library) for library in _libraries(source)}
    for target, file in targets.items():
        goal = root / target.lstrip("/")
        if not goal.exists():
            goal.parent.mkdir(parents=True, exist_ok=True)
            goal.write_bytes(file.read_bytes())
            goal.chmod(file.stat().st_mode)


def _libraries(binary: Path) -> Iterable[str]:
    """`ldd` has a library as «name => /path (address)» and the loader as «/path (address)»."""
    if not (os.access(binary, os.X_OK) or ".so" in binary.suffixes):
        return []
    done = subprocess.run(["ldd", binary], capture_output=True, text=True)
    words = done.stdout.split() if done.returncode == 0 else []
    return [word for word in words if word.startswith("/")]


def _put_python(root: Path, left_out: frozenset[str]) -> None:
    """The standard library, where Debian's interpreter looks for it, already compiled."""
    ask = "import sysconfig; print(sysconfig.get_path('stdlib'))"
    library = Path(run(["/usr/bin/python3", "-I", "-c", ask], mend="").strip())
    for file in sorted(library.rglob("*")):
        parts = file.relative_to(library).parts
        if not file.is_file() or left_out.intersection(parts) or "config-" in str(file):
            continue
        _copy(file, root)
    goal = root / str(library).lstrip("/")
    compiler = ["/usr/bin/python3", "-I", "-m", "compileall", "-q"]
    run([*compiler, "--invalidation-mode", "unchecked-hash", str(goal)], mend="")


def _owned(owners: Mapping[str, int], member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = owners.get(member.name.removeprefix("./"), 0)
    member.uname = member.gname = ""
    return member
