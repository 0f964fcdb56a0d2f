"""The suite of every provider, against the engine of this machine."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from helix_container.program import Program
from helix_container.provider import ContainerProvider

from helix_deploy import Artifact, Context, HealthCheck, Image, Instance, Revision, Target, Volume
from helix_deploy.testing import Killed, ProviderSuite, World

PROGRAM = "docker"
WRITES = {"create", "start", "stop", "rm", "rename", "volume"}
START = r"""#!/bin/sh
trap 'exit 0' TERM
echo "starting $NAME"
case "$MODE" in
    exit) echo "it is broken"; exit 3 ;;
    hang) sleep 3600 & wait ;;
    sick) rm -f /www/index.html ;;
    *) echo "$NAME" > /www/index.html ;;
esac
httpd -f -p 8080 -h /www & wait
"""


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Two tiny images, by tag: busybox and a script."""
    busybox = shutil.which("busybox")
    assert busybox, "apt-get install busybox-static"
    ids = {}
    for tag in ("1", "2"):
        root = tmp_path_factory.mktemp("image")
        (root / "bin").mkdir()
        (root / "www").mkdir()
        shutil.copy(busybox, root / "bin" / "busybox")
        for tool in ("sh", "httpd", "rm", "sleep", "echo"):
            (root / "bin" / tool).symlink_to("busybox")
        (root / "start").write_text(START)
        (root / "start").chmod(0o755)
        (root / "tag").write_text(tag)
        archive = root.with_suffix(".tar")
        with tarfile.open(archive, "w") as tar:
            tar.add(root, ".")
        done = Program(PROGRAM).run("import", "--change", 'CMD ["/start"]', str(archive))
        ids[tag] = done
    yield ids
    for one in ids.values():
        subprocess.run([PROGRAM, "rmi", "--force", one], capture_output=True)


class ContainerWorld(World):
    """One instance on this machine's engine."""

    def __init__(self, image: dict[str, str], port: int, **more: Any) -> None:
        self.image, self.port, self.more = image, port, more
        self.project = f"t{uuid.uuid4().hex[:8]}"
        self.program = Program(PROGRAM)

    def instance(self, name: str, behaviour: str = "serve") -> Instance:
        return Instance(
            project=self.project,
            name="dev",
            target=Target(kind="container", settings={"program": PROGRAM}),
            env={"NAME": name, "MODE": behaviour, "PATH": "/bin"},
            publish=self.port,
            stop_grace=0,
            health_check=HealthCheck(status=(200,), deadline=5),
            **self.more,
        )

    def artifact(self, tag: str = "1") -> Artifact:
        return Artifact(image=Image(repository="", id=self.image[tag]))

    def provider(self, instance: Instance) -> ContainerProvider:
        return ContainerProvider(instance, Context())

    def answer(self) -> str:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}").text.strip()
        except httpx.HTTPError:
            return ""

    def _found(self) -> list[dict[str, Any]]:
        return self.program.containers(f"helix.instance={self.project}/dev")

    def running(self) -> list[str]:
        return [
            one["Config"]["Labels"]["helix.deployment"]
            for one in self._found()
            if one["State"]["Running"]
        ]

    def remains(self) -> list[str]:
        label = f"label=helix.instance={self.project}/dev"
        volumes = self.program.run("volume", "ls", "--quiet", "--filter", label).split()
        return [str(one["Name"]) for one in self._found()] + volumes

    def remove(self, revision: Revision) -> None:
        self.program.run("rm", "--force", revision.id)

    @contextmanager
    def kill_after(self, writes: int) -> Iterator[None]:
        run, left = Program.run, writes

        def dying(program: Program, *words: str, **more: Any) -> str:
            nonlocal left
            printed = run(program, *words, **more)
            if words[0] in WRITES:
                left -= 1
                if left == 0:
                    raise Killed(words[0])
            return printed

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Program, "run", dying)
            yield

    def sweep(self) -> None:
        with self.opened() as provider:
            provider.destroy(data=True)


class TestPlain(ProviderSuite):
    """A service without a volume."""

    @pytest.fixture
    def world(self, image: dict[str, str], free_port: int) -> Iterator[ContainerWorld]:
        found = ContainerWorld(image, free_port)
        yield found
        found.sweep()


def test_a_volumes_data_outlives_everything_but_destroy_data(
    image: dict[str, str], free_port: int, tmp_path: Path
) -> None:
    volume = Volume(name=f"v{uuid.uuid4().hex[:8]}-data", mount="/data")
    world = ContainerWorld(image, free_port, volumes=(volume,))
    world.deployed(1)
    world.deployed(2, tag="2")
    with world.opened() as provider:
        provider.destroy(data=False)
        assert world.remains() == [volume.name]
        provider.destroy(data=True)
    assert world.remains() == []
