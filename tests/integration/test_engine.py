"""Engines that are elsewhere: behind SSH, behind TLS, and not there at all."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker
import pytest
from docker.errors import APIError

from model.errors import (
    ConfigurationError,
    Conflict,
    HelixError,
    NotFound,
    PermissionDenied,
    PlatformUnhealthy,
    QuotaExceeded,
    Transient,
)
from model.instance import RegistryTarget, Volume
from providers.base import Context
from providers.docker import DockerProvider
from providers.engine import Engine, EngineAddress, from_api, translated
from providers.tunnel import Tunnel, TunnelOptions, parse
from tests.contract.test_docker_provider import DockerWorld, a_world
from tests.services import engine as engines
from tests.services.bridges import SshHost, ssh_host, tcp_engine
from tests.services.certificates import make_certificates


@pytest.fixture(scope="module")
def local() -> Iterator[docker.DockerClient]:
    found = engines.client()
    engines.ensure_edge_image()
    yield found
    found.close()


@pytest.fixture
def behind_ssh(tmp_path: Path) -> Iterator[SshHost]:
    if shutil.which("ssh") is None:
        pytest.skip("there is no ssh")
    with ssh_host(tmp_path) as host:
        yield host


def options(host: SshHost) -> TunnelOptions:
    return TunnelOptions(identity=str(host.key), known_hosts=str(host.known_hosts))


# --- SSH ------------------------------------------------------------------------------------------


@pytest.mark.engine
def test_an_engine_behind_ssh_takes_many_calls_at_once(
    local: docker.DockerClient, behind_ssh: SshHost
) -> None:
    address = EngineAddress(host=behind_ssh.url, tunnel=options(behind_ssh))
    with Engine(address) as engine:
        assert engine.client.info()["ID"] == local.info()["ID"]
        problems: list[Exception] = []

        def call() -> None:
            try:
                engine.client.api.containers()
            except Exception as error:
                problems.append(error)

        threads = [threading.Thread(target=call) for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert problems == []
    assert len(behind_ssh.connections) == 1


@pytest.mark.engine
@pytest.mark.parametrize("volume", [False, True])
def test_a_whole_deployment_through_ssh(
    local: docker.DockerClient, behind_ssh: SshHost, volume: bool
) -> None:

    values: dict[str, Any] = {"registry": RegistryTarget(repository="127.0.0.1:1/test")}
    if volume:
        values["volumes"] = (Volume(mount="/data", name=f"{engines.unique('v')}-data"),)
    with a_world(local, **values) as world:
        world.settings = {
            "host": behind_ssh.url,
            "ssh_key": str(behind_ssh.key),
            "known_hosts": str(behind_ssh.known_hosts),
        }
        world.deployed(1)
        second = world.deployed(2)
        assert world.answer() == "r2"
        assert world.driver.deploy(world.release(3, "exit")).restored == second
        assert world.answer() == "r2"
        with world.opened() as provider:
            assert provider.public_url() == f"http://127.0.0.1:{world.port}"
            code, output = provider.run_check(second.detail["container"], ["echo", "hi"], 5)
            assert (code, output) == (0, "hi\n")
            assert "starting r2" in list(provider.logs())
            provider.destroy(data=True)
    assert behind_ssh.connections


def test_a_key_that_is_not_let_in_is_a_missing_permission(
    behind_ssh: SshHost, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    with pytest.raises(PermissionDenied, match="127.0.0.1"):
        Tunnel(behind_ssh.url, TunnelOptions(str(other), str(behind_ssh.known_hosts)))


def test_a_host_that_is_not_known_is_never_trusted(behind_ssh: SshHost, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(ConfigurationError) as caught:
        Tunnel(behind_ssh.url, TunnelOptions(str(behind_ssh.key), str(empty)))
    assert "ssh-keyscan" in caught.value.hint


def test_a_machine_that_is_down_is_tried_again(behind_ssh: SshHost) -> None:
    dead = f"ssh://tester@127.0.0.1:{engines.free_port()}"
    with pytest.raises(Transient) as caught:
        Tunnel(dead, options(behind_ssh))
    assert caught.value.retryable


def test_a_tunnel_leaves_neither_process_nor_file(behind_ssh: SshHost) -> None:
    tunnel = Tunnel(behind_ssh.url, options(behind_ssh))
    folder = tunnel.socket.parent
    assert folder.stat().st_mode & 0o777 == 0o700
    assert processes_of(folder)
    tunnel.close()
    tunnel.close()
    assert not folder.exists()
    assert gone(folder)


def test_a_killed_process_takes_its_tunnel_along(behind_ssh: SshHost) -> None:
    code = (
        "import time; from providers.tunnel import Tunnel, TunnelOptions; "
        f"t = Tunnel({behind_ssh.url!r}, "
        f"TunnelOptions({str(behind_ssh.key)!r}, {str(behind_ssh.known_hosts)!r})); "
        "print(t.socket.parent, flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    folder = Path(child.stdout.readline().strip())
    try:
        assert processes_of(folder)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert gone(folder)
    finally:
        child.kill()
        child.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)


def processes_of(folder: Path) -> list[int]:
    """The processes whose command line names the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if str(folder).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def gone(folder: Path) -> bool:
    end = time.monotonic() + 5
    while processes_of(folder):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("ssh://host", ("host", None, "/var/run/docker.sock")),
        ("ssh://me@host:2222", ("me@host", 2222, "/var/run/docker.sock")),
        (
            "ssh://me@host/run/user/1000/docker.sock",
            ("me@host", None, "/run/user/1000/docker.sock"),
        ),
    ],
)
def test_addresses_of_machines(url: str, parsed: tuple[str, int | None, str]) -> None:
    assert parse(url) == parsed


# --- TCP and TLS ----------------------------------------------------------------------------------


@pytest.mark.engine
def test_a_deployment_to_an_engine_behind_tls(local: docker.DockerClient, tmp_path: Path) -> None:

    made = make_certificates(tmp_path / "made")
    folder = tmp_path / "tls"
    folder.mkdir()
    for name, source in (("ca", made.ca), ("cert", made.certificate), ("key", made.key)):
        (folder / f"{name}.pem").write_bytes(source.read_bytes())
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(made.ca))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(made.certificate, made.key)
    registry = RegistryTarget(repository="127.0.0.1:1/test")
    with tcp_engine(context) as port, a_world(local, registry=registry) as world:
        world.settings = {"host": f"tcp://127.0.0.1:{port}", "tls": str(folder)}
        world.deployed(1)
        assert world.answer() == "r1"
        world.settings = {"host": f"tcp://127.0.0.1:{port}", "tls": str(tmp_path)}
        with world.opened() as provider, pytest.raises(ConfigurationError, match=r"ca\.pem"):
            provider.preflight()


def test_an_engine_that_another_machine_does_not_run_is_tried_again() -> None:
    with (
        Engine(EngineAddress(host=f"tcp://127.0.0.1:{engines.free_port()}")) as engine,
        pytest.raises(Transient),
    ):
        engine.check()


def test_this_machines_engine_that_does_not_run_is_not(tmp_path: Path) -> None:
    with (
        Engine(EngineAddress(host=f"unix://{tmp_path}/none.sock")) as engine,
        pytest.raises(PlatformUnhealthy) as caught,
    ):
        engine.check()
    assert "start it" in caught.value.hint


# --- what the engine says -------------------------------------------------------------------------

SAID: list[tuple[int, str, type[HelixError]]] = [
    (500, "driver failed: Bind for 0.0.0.0:80 failed: port is already allocated", Conflict),
    (409, 'Conflict. The container name "/x" is already in use by container "y"', Conflict),
    (404, "No such image: nowhere:latest", NotFound),
    (404, "No such container: x", NotFound),
    (
        400,
        "OCI runtime create failed: exec: no such file or directory: unknown",
        ConfigurationError,
    ),
    (400, "invalid mount config for type bind", ConfigurationError),
    (500, "write /var/lib/docker/tmp: no space left on device", PlatformUnhealthy),
    (500, "could not find an available, non-overlapping IPv4 address pool", QuotaExceeded),
    (500, "Get https://r/v2/: unauthorized: authentication required", PermissionDenied),
    (500, "Get https://r/v2/: dial tcp: connection refused", Transient),
    (500, "something nobody has seen before", Transient),
    (403, "no", PermissionDenied),
]


@pytest.mark.parametrize(("status", "said", "meant"), SAID)
def test_every_sentence_of_the_engine_means_something(
    status: int, said: str, meant: type[HelixError]
) -> None:
    response = SimpleNamespace(status_code=status)
    assert type(from_api(APIError("x", response=response, explanation=said))) is meant  # type: ignore[arg-type]


@pytest.mark.engine
def test_no_sdk_error_escapes(local: docker.DockerClient) -> None:
    for call in (
        lambda: local.containers.get("no-such-container"),
        lambda: local.images.get("no-such-image"),
        lambda: local.containers.create("no-such-image"),
        lambda: local.networks.get("no-such-network"),
    ):
        with pytest.raises(NotFound), translated():
            call()


@pytest.mark.engine
def test_an_engine_that_goes_away_is_waited_for(tmp_path: Path) -> None:
    link = tmp_path / "docker.sock"
    link.symlink_to("/var/run/docker.sock")
    world = DockerWorld(engines.client())
    world.settings = {"host": f"unix://{link}"}
    provider = DockerProvider(world.instance("r1"), Context())
    assert provider.current() is None
    link.unlink()
    link.touch()
    with pytest.raises(Transient):
        DockerProvider(world.instance("r1"), Context()).current()
    with pytest.raises(PlatformUnhealthy):
        DockerProvider(world.instance("r1"), Context()).preflight()
    provider.close()
