"""The worker's image: what is in it, what is not, and that it works."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import docker
import pytest
from docker.models.containers import Container
from packaging.requirements import Requirement
from temporalio.client import Client

from scripts.setup import worker_image as made
from scripts.setup.environment import WORKER_LOCK
from scripts.setup.shell import ROOT
from tests.services import worker_image

pytestmark = pytest.mark.engine

PROGRAMS = {"pip", "pip3", "wheel", "gcc", "cc", "g++", "ld", "make", "curl", "git"}
"""What nobody needs who only runs it."""
PRIVATE = {".git", ".env", "pip.conf", "pip-conf", "ca-certificates", ".docker"}
"""What belongs to where it was built."""
VERSIONS = (
    "import json; from importlib.metadata import distributions;"
    "print(json.dumps({d.name.lower().replace('_', '-').replace('.', '-'): d.version"
    " for d in distributions()}))"
)
LOCKED_DOWN = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "tmpfs": {"/tmp": ""},
}
"""What a strict platform asks of a container."""


@pytest.fixture(scope="module")
def image() -> str:
    return worker_image.built()


def run(image: str, *words: str, entrypoint: str = "helix") -> str:
    """What a command in the image prints."""
    output = docker.from_env().containers.run(
        image, list(words), entrypoint=entrypoint, remove=True, network_mode="none", **LOCKED_DOWN
    )
    return str(output.decode())


@contextmanager
def container(image: str, **settings: Any) -> Iterator[Container]:
    """A container that is gone afterwards, with its volumes."""
    found = docker.from_env().containers.create(image, **settings)
    try:
        yield found
    finally:
        found.remove(force=True, v=True)


def test_the_command_runs_without_any_privilege(image: str) -> None:
    assert run(image, "--version").strip() == f"helix-deploy {image.partition(':')[2]}"
    assert "HELIX_GRACEFUL_SHUTDOWN_SECONDS" in run(image, "worker", "--help")
    assert run(image, "-c", "id -u; id -g", entrypoint="sh").split() == ["10001", "10001"]
    assert run(image, "-c", "touch $HELIX_STATE_DIR/x && echo done", entrypoint="sh") == "done\n"


def test_it_holds_what_the_lock_says_and_nothing_else(image: str) -> None:
    locked = {}
    for line in WORKER_LOCK.read_text().splitlines():
        if "==" in line and not line.startswith((" ", "#")):
            wanted = Requirement(line.rstrip(" \\"))
            if wanted.marker is None or wanted.marker.evaluate({"python_version": "3.11"}):
                name = wanted.name.lower().replace("_", "-").replace(".", "-")
                locked[name] = str(wanted.specifier).removeprefix("==")
    assert len(locked) > 100
    del locked["setuptools"]  # was needed to make it
    found = json.loads(run(image, "-c", VERSIONS, entrypoint="python3"))
    assert found.pop("helix-deploy") == image.partition(":")[2]
    assert found == locked


def test_nothing_of_this_machine_is_in_it(image: str, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    with container(image) as stopped, archive.open("wb") as file:
        file.writelines(stopped.export())
    with tarfile.open(archive) as tar:
        paths = [Path(name) for name in tar.getnames()]
    assert len(paths) > 10_000
    assert [str(path) for path in paths if path.name in PROGRAMS and "bin" in path.parts] == []
    assert [str(path) for path in paths if path.name in PRIVATE] == []
    packages = {path.name for path in paths if path.parent.name == "site-packages"}
    assert {"cli", "worker", "workflows"} <= packages
    assert packages.isdisjoint({"pip", "setuptools", "tests", "scripts", "benchmarks"})

    labels = docker.from_env().images.get(image).labels
    assert labels["org.opencontainers.image.version"] == image.partition(":")[2]
    assert labels["org.opencontainers.image.revision"] == made.revision() != "unknown"


def test_a_change_of_the_source_makes_only_its_own_layer_anew(image: str, tmp_path: Path) -> None:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    for name in listed.stdout.split():
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    changed = tmp_path / "worker" / "main.py"
    changed.write_text(changed.read_text() + f"# {uuid4()}\n")
    tag = f"helix-deploy/worker:test-{uuid4().hex[:8]}"
    api = docker.from_env()
    try:
        made.build(tmp_path, tag)
        before, after = (api.api.inspect_image(one)["RootFS"]["Layers"] for one in (image, tag))
        differing = [
            place for place, (old, new) in enumerate(zip(before, after, strict=True)) if old != new
        ]
        assert len(differing) == 1  # the packages under it are those that were there
    finally:
        api.images.remove(tag, force=True)


def test_it_works_for_a_server_says_so_and_ends_gracefully(image: str, temporal: Client) -> None:
    queue = f"image-{uuid4().hex[:8]}"
    environment = {
        "TEMPORAL_ADDRESS": temporal.service_client.config.target_host,
        "HELIX_TASK_QUEUE": queue,
        "HELIX_HEALTH_ADDRESS": "127.0.0.1:0",
    }
    often = {"interval": 1_000_000_000, "timeout": 5_000_000_000, "retries": 100}
    with container(
        image, environment=environment, network_mode="host", healthcheck=often, **LOCKED_DOWN
    ) as worker:
        worker.start()
        deadline = time.monotonic() + 120
        while (health := status(worker)) != "healthy" and time.monotonic() < deadline:
            assert worker.status == "running", worker.logs().decode()
            time.sleep(0.5)
        assert health == "healthy", worker.logs().decode()
        assert f"polls {queue}" in worker.logs().decode()

        worker.stop(timeout=60)
        worker.reload()
        assert worker.attrs["State"]["ExitCode"] == 0
        assert "ended" in worker.logs().decode().splitlines()[-1]


def test_its_health_check_says_what_is_wrong(image: str) -> None:
    with pytest.raises(docker.errors.ContainerError, match="no worker runs in /var/lib/helix"):
        run(image, "-m", "worker.ready", entrypoint="python3")


def status(worker: Container) -> str:
    """What the image's own health check found."""
    worker.reload()
    return str(worker.attrs["State"]["Health"]["Status"])
