"""`make demo` and `make demo-down`."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from scripts.demo.load import Load, ask
from scripts.demo.registry import USERNAME, DemoRegistry
from scripts.setup import engine, images, temporal
from scripts.setup.shell import ROOT, VENV, SetupFailed, say

FOLDER = ROOT / ".demo"
"""All that the demo writes. Its Temporal, its ledger and its worker are apart from the user's."""
PROJECT = FOLDER / "hello"
PORTS = FOLDER / "ports.json"
OUR_ENGINE = FOLDER / "engine-started-by-the-demo"
EXAMPLE = ROOT / "examples" / "hello"
INSTANCE = "demo"
ROLLED_BACK = 3
ALREADY_DEPLOYING = 5
COMMAND_SECONDS = 300

SETTINGS = """
# Written by the demo: the same service on the same engine, by way of a registry.
[cloud.{instance}.docker]
publish = {service_port}

[deploy.{instance}.registry]
repository = "{registry.host}/hello"
username = "{username}"
password = "file:{registry.password}"
ca = "{registry.ca}"

[deploy.{instance}.health_check]
path = "/healthz"
deadline = "6s"
"""


class DemoFailed(Exception):
    """A step of the demo that did not go as it should."""


@contextmanager
def step(title: str) -> Iterator[None]:
    """One step: its title, how long it took, and its name if it fails."""
    started = time.monotonic()
    print(f"\n\033[1m{title}\033[0m" if sys.stdout.isatty() else f"\n{title}", flush=True)
    try:
        yield
    except (DemoFailed, SetupFailed) as error:
        what = error.what if isinstance(error, SetupFailed) else str(error)
        mend = (
            error.mend
            if isinstance(error, SetupFailed)
            else f"the lines above say why; logs are in {FOLDER / 'state'}; "
            "then run it again, or start afresh: make demo-down demo"
        )
        sys.exit(f"\nthe step «{title}» failed: {what}\n\n  to mend it: {mend}")
    say("", f"{time.monotonic() - started:.1f} s")


def helix(*words: str, expect: tuple[int, ...] = (0,)) -> int:
    """Run the real command in the demo's project, as a person would. Returns its exit code.

    Raises:
        DemoFailed: it ended with another exit code than expected.
    """
    print(f"  $ helix {' '.join(words)}", flush=True)
    code = _run(*words, capture=False)[0]
    if code not in expect:
        wanted = " or ".join(map(str, expect))
        raise DemoFailed(f"helix {words[0]} ended with exit code {code}, expected was {wanted}")
    return code


def _run(*words: str, capture: bool) -> tuple[int, str]:
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("TEMPORAL_", "HELIX_"))
    }
    env |= {"HELIX_STATE_DIR": str(FOLDER / "state"), "TEMPORAL_CONFIG_FILE": os.devnull}
    try:
        done = subprocess.run(
            [VENV / "bin" / "helix", *words],
            cwd=PROJECT,
            env=env,
            timeout=COMMAND_SECONDS,
            stdout=subprocess.PIPE if capture else None,
            text=True,
        )
    except subprocess.TimeoutExpired:
        raise DemoFailed(f"helix {words[0]} did not end in {COMMAND_SECONDS} s") from None
    return done.returncode, done.stdout or ""


def up() -> None:
    """The whole demo."""
    started = time.monotonic()
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    with step("1. What this machine needs"):
        temporal.ensure()
        if engine.version() is None:
            OUR_ENGINE.touch()
        engine.ensure()
        images.ensure("caddy:2", "registry:2", "python:3-slim")
    with step("2. A registry with TLS and a password, and the local Temporal"):
        registry, service_port = _parts()
        registry.ensure()
        say("registry", f"https://{registry.host}, user «{USERNAME}»")
        _write_project(registry, service_port)
        helix("up")
    url = f"http://127.0.0.1:{service_port}/"
    with step("3. A first release"):
        first = _greet("the first release")
        helix("push", INSTANCE)
        _expect(url, first)
    with step("4. A second release, under load"):
        second = _greet("the second release")
        with Load(url) as load:
            helix("push", INSTANCE)
            time.sleep(0.5)
        _judge(load)
        _expect(url, second)
    with step("5. A third one never becomes healthy: somebody forgot greeting.txt"):
        (PROJECT / "greeting.txt").unlink()
        with Load(url) as load:
            helix("push", INSTANCE, expect=(ROLLED_BACK,))
        _judge(load)
        _expect(url, second)
        say("", "it was rolled back; the second release answered all along")
    with step("6. What is known of it"):
        helix("status")
        helix("history", INSTANCE)
    print(f"\nDone in {time.monotonic() - started:.0f} s.")
    print(f"  the service:      {url}")
    print(f"  its deployments:  {_ui()}")
    print(
        f"  go on in:         cd {PROJECT.relative_to(ROOT)}; export HELIX_STATE_DIR={FOLDER}/state"
    )
    print("  remove all of it: make demo-down")


def _parts() -> tuple[DemoRegistry, int]:
    """The registry and the service's port, the same at every run of the demo."""
    if not PORTS.exists():
        ports = {"registry": _free_port(), "service": _free_port()}
        PORTS.write_text(json.dumps(ports))
    ports = json.loads(PORTS.read_text())
    name = f"helix-demo-registry-{ports['registry']}"
    return DemoRegistry(FOLDER / "registry", name, ports["registry"]), ports["service"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _write_project(registry: DemoRegistry, service_port: int) -> None:
    """A copy of the example that the demo can change."""
    shutil.copytree(EXAMPLE, PROJECT, dirs_exist_ok=True)
    settings = SETTINGS.format(
        instance=INSTANCE, registry=registry, username=USERNAME, service_port=service_port
    )
    with (PROJECT / "helix.toml").open("a") as file:
        file.write(settings)


def _greet(release: str) -> str:
    """Change the service, as a person would change its code."""
    greeting = f"Hello from {release}, made at {datetime.now():%H:%M:%S}"
    (PROJECT / "greeting.txt").write_text(greeting + "\n")
    return greeting


def _expect(url: str, greeting: str) -> None:
    answer, failure = ask(url)
    if answer != greeting:
        raise DemoFailed(f"{url} answers «{answer or failure}», expected was «{greeting}»")
    say("", f"{url} answers «{answer}»")


def _judge(load: Load) -> None:
    failed = load.failures.total()
    say("", f"{load.requests} requests, {failed} failed; the slowest took {load.slowest:.2f} s")
    if failed or not load.requests:
        worst = load.failures.most_common(1)
        raise DemoFailed(f"requests failed during the release: {worst[0][0] if worst else 'none'}")


def _ui() -> str:
    code, text = _run("up", "--json", capture=True)
    if code != 0:
        return "helix doctor says where"
    found = json.loads(text)
    return f"{found['ui_url']}/namespaces/{found['namespace']}/workflows"


def down() -> None:
    """Stop what the demo started and remove what it made. Works after a demo that failed, too."""
    if not FOLDER.exists():
        print("there is no demo here")
        return
    with step("Removing the demo"):
        if engine.version() is not None:
            _remove_from_engine()
        if PROJECT.exists():
            helix("down")
        if OUR_ENGINE.exists() and engine.stop():
            say("engine", "stopped, as the demo had started it")
        shutil.rmtree(FOLDER)
    print("\nKept, for the next time: .venv, the tools and the base images.")


def _remove_from_engine() -> None:
    if not PORTS.exists():
        return
    registry, _ = _parts()
    if (PROJECT / "helix.toml").exists():
        destroy = ("destroy", INSTANCE, "--data", "--yes")
        if helix(*destroy, expect=(0, ALREADY_DEPLOYING)) == ALREADY_DEPLOYING:
            helix("cancel", INSTANCE, expect=(0, 1))  # 1: it has just ended
            helix(*destroy)
    registry.remove()
    repository = f"{registry.host}/hello"
    listing = ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]
    for line in subprocess.run(listing, capture_output=True, text=True).stdout.splitlines():
        if line.startswith(repository):
            image = line.split()[1]
            subprocess.run(["docker", "image", "rm", "--force", image], capture_output=True)


if __name__ == "__main__":
    try:
        {"up": up, "down": down}[sys.argv[1]]()
    except KeyboardInterrupt:
        sys.exit("\nstopped; make demo goes on from here, make demo-down removes what is there")
