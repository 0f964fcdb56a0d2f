"""A real Docker engine for tests: unique names, a tiny image, and nothing left behind.

The image is `FROM scratch` with busybox: its web server answers from a CGI script, which can be
told by environment to be slow, to answer 500, to write to a volume, to exit at once or to hang.
"""

from __future__ import annotations

import io
import os
import shutil
import socket
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import docker
from docker.errors import APIError, DockerException, ImageNotFound
from docker.errors import NotFound as Missing

from model import names
from model.instance import Instance
from scripts.setup import images
from scripts.setup.shell import SetupFailed
from tests.services.need import missing

EDGE_IMAGE = "caddy:2"
APP_REPOSITORY = "helix-deploy-test/app"

START = r"""#!/bin/sh
# MODE: serve (default), exit (at once), die (after a second), hang (never listens), sick (500s)
# From the first moment on: a TERM that nobody takes is a KILL later, which leaves the lock behind.
trap '[ -n "$!" ] && kill $! && wait $!; [ -n "$LOCKED" ] && rmdir /data/lock; exit 0' TERM
echo "starting $NAME"
[ "$MODE" = exit ] && { echo "it is broken"; echo "cannot start" >&2; exit 3; }
if [ -d /data ]; then
    # Two processes must never have the data open at once.
    LOCKED=1
    mkdir /data/lock || { echo "the data is open elsewhere"; exit 9; }
fi
[ "$MODE" = hang ] && { sleep 3600 & wait; }
[ "$MODE" = die ] && { sleep 1; exit 4; }
httpd -f -p "${PORT:-8080}" -h /www &
wait $!
"""

ANSWER = r"""#!/bin/sh
# Answers with the release's name; a POST's body is appended to the data, then echoed.
[ -n "$SLOW" ] && sleep "$SLOW"
if [ "$REQUEST_METHOD" = POST ]; then
    body=$(head -c "$CONTENT_LENGTH")
    [ -d /data ] && echo "$body" >> /data/log
fi
[ "$MODE" = sick ] && printf 'Status: 500 Sick\r\n'
printf 'Content-Type: text/plain\r\n\r\n%s %s\n' "$NAME" "$body"
"""


def client() -> docker.DockerClient:
    """A client of the engine; skips, or fails where an engine is promised, if there is none."""
    try:
        found = docker.from_env(timeout=120)
        found.ping()
    except (DockerException, OSError) as error:
        missing("engine", f"no Docker engine answers ({error})", "start one: see CONTRIBUTING.md")
    return found


def ensure_edge_image() -> str:
    """The edge's image: the public one if it is here, else the stand-in from Debian's caddy."""
    try:
        images.ensure(EDGE_IMAGE)
    except SetupFailed as error:
        missing("engine", error.what, error.mend)
    return EDGE_IMAGE


def app_image(engine: docker.DockerClient, tag: str = "1", repository: str = APP_REPOSITORY) -> str:
    """The id of the tiny image; another tag has other content, and so another id."""
    name = f"{repository}:{tag}"
    with suppress(ImageNotFound):
        return str(engine.images.get(name).id)
    busybox = shutil.which("busybox")
    if busybox is None:
        missing("engine", "there is no busybox", "apt-get install busybox-static")
    files = {
        "bin/busybox": (Path(busybox).read_bytes(), 0o755),
        "start": (START.encode(), 0o755),
        "www/cgi-bin/answer": (ANSWER.encode(), 0o755),
        "www/index.html": (f"{tag}\n".encode(), 0o644),
        "etc/passwd": (b"root:x:0:0::/:/bin/sh\n", 0o644),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, (data, mode) in files.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), mode
            archive.addfile(info, io.BytesIO(data))
        for tool in [
            "sh",
            "cat",
            "echo",
            "env",
            "false",
            "head",
            "httpd",
            "kill",
            "mkdir",
            "printf",
            "rmdir",
            "sleep",
            "true",
        ]:
            info = tarfile.TarInfo(f"bin/{tool}")
            info.type, info.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(info)
    engine.api.import_image_from_data(
        buffer.getvalue(),
        repository=repository,
        tag=tag,
        changes=['CMD ["/start"]', "ENV PATH=/bin"],
    )
    return str(engine.images.get(name).id)


def unique(prefix: str = "t") -> str:
    """A project's name that no other test, now or earlier, has had."""
    return f"{prefix}{uuid.uuid4().hex[:8]}"


def free_port() -> int:
    """A port of this machine that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def remains(engine: docker.DockerClient, instance: Instance) -> list[str]:
    """Everything of an instance that is on the engine: containers, networks, volumes."""
    label = {"label": f"{names.LABEL_INSTANCE}={instance.key}"}
    base = names.docker_name(instance.project, instance.name)
    found = [str(one.name) for one in engine.containers.list(all=True, filters=label)]
    found += [str(one.name) for one in engine.containers.list(all=True, filters={"name": base})]
    found += [str(one.name) for one in engine.networks.list(filters=label)]
    found += [str(one.name) for one in engine.volumes.list(filters=label)]
    return sorted(set(found))


@contextmanager
def swept(engine: docker.DockerClient, instance: Instance) -> Iterator[Instance]:
    """Removes all that an instance left on the engine, volumes included, at the end."""
    try:
        yield instance
    finally:
        label = {"label": f"{names.LABEL_INSTANCE}={instance.key}"}
        base = names.docker_name(instance.project, instance.name)
        for filters in (label, {"name": base}):
            for box in engine.containers.list(all=True, filters=filters, ignore_removed=True):
                with suppress(Missing, APIError):
                    box.remove(force=True, v=True)
        for network in engine.networks.list(filters=label):
            with suppress(Missing, APIError):
                network.remove()
        for volume in engine.volumes.list(filters=label):
            with suppress(Missing, APIError):
                volume.remove(force=True)
        for each in instance.volumes:
            if each.path and os.path.isdir(each.path):
                shutil.rmtree(each.path, ignore_errors=True)
            elif each.name:  # one that a test made without our labels
                with suppress(Missing, APIError):
                    engine.volumes.get(each.name).remove(force=True)
