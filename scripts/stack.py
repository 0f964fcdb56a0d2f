"""Makes what the self-hosted stack needs and what is in no repository: its secrets and settings.

    make stack-secrets

Nothing that is there already is changed: a second run makes what is missing. The secrets are files
of mode 0600 in a folder that git ignores, and whoever runs this is whom the workers run as, so that
a command and a worker can read what the other has stored.
"""

from __future__ import annotations

import base64
import os
import secrets
import shlex
import socket
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import bcrypt

from scripts.setup.shell import ROOT, SetupFailed, fail, say
from tests.services.certificates import make_certificates

CERTIFICATE_DAYS = 3650
REGISTRY_USER = "helix"
SOCKET = "/var/run/docker.sock"
FOLDERS = ("secrets", "registry", "data/store", "data/worker-1", "data/worker-2", "data/traces")


def prepare(folder: Path, env_file: Path, chosen: Mapping[str, str] | None = None) -> None:
    """Make the secrets, docker compose's settings and the file for a person's shell.

    Args:
        folder: for the secrets, and for what workers and commands share.
        env_file: the settings. What it says already stays.
        chosen: settings other than the default ones.

    Raises:
        SetupFailed: there is no socket of an engine.
    """
    before = os.umask(0o077)
    try:
        for name in FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        _make_secrets(folder / "secrets")
        _make_registry(folder / "registry", folder / "secrets")
        settings = _write_settings(env_file, {**_settings(folder), **(chosen or {})})
        _write(folder / "client.env", _client(settings))
        _write(folder / "passwd", _accounts(settings["STACK_USER"]))
    finally:
        os.umask(before)


def _settings(folder: Path) -> dict[str, str]:
    """The default ones, each once in docker-compose.yml."""
    engine = os.environ.get("DOCKER_HOST", "").removeprefix("unix://") or SOCKET
    if not Path(engine).is_socket():
        raise SetupFailed(
            f"no Docker engine has its socket at {engine}", "start it, then try again"
        )
    return {
        "STACK_NAME": "helix",
        "STACK_DIR": str(folder),
        "STACK_USER": f"{os.getuid()}:{os.getgid()}",
        "STACK_HOST": socket.gethostname(),
        "STACK_DOCKER_SOCKET": engine,
        "STACK_DOCKER_GROUP": str(Path(engine).stat().st_gid),
        "STACK_SUBNET": "10.213.93.0/24",
        "STACK_GATEWAY": "10.213.93.1",
        "STACK_ADDRESS": "127.0.0.1",
        "STACK_TEMPORAL_PORT": "7233",
        "STACK_UI_PORT": "8233",
        "STACK_CODEC_PORT": "8234",
        "STACK_POSTGRES_PORT": "5432",
        "STACK_REGISTRY_PORT": "5000",
        "STACK_PROMETHEUS_PORT": "9090",
        "STACK_GRAFANA_PORT": "3000",
        "STACK_OTLP_PORT": "4318",
    }


def _make_secrets(folder: Path) -> None:
    for name in ("postgres-password", "temporal-password", "helix-password", "codec-secret",
                 "grafana-password"):  # fmt: skip
        _once(folder / name, _password)
    # As HELIX_LEDGER_URL names this file, no password is in an environment.
    _write(folder / "pgpass", f"*:*:*:helix:{(folder / 'helix-password').read_text()}\n")
    (folder / "pgpass").chmod(0o600)
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    _once(folder / "encryption-keys", lambda: f"{time.strftime('%Y-%m')}:{key}\n")


def _make_registry(folder: Path, private: Path) -> None:
    _once(folder / "password", _password)
    if not (private / "registry-key").exists():
        made = make_certificates(
            folder, "Helix Deploy's registry", CERTIFICATE_DAYS, hosts=("localhost", "registry")
        )
        made.key.replace(private / "registry-key")
    password = (folder / "password").read_bytes()
    hashed = bcrypt.hashpw(password, bcrypt.gensalt(10)).decode()
    _once(private / "registry-htpasswd", lambda: f"{REGISTRY_USER}:{hashed}\n")


def _password() -> str:
    return secrets.token_urlsafe(24)


def _once(file: Path, text: Callable[[], str]) -> None:
    if not file.exists():
        _write(file, text())


def _write(file: Path, text: str) -> None:
    """A reader sees all of it or nothing, and only its owner sees it."""
    new = file.with_name(f".{file.name}.new")
    new.touch(mode=0o600)
    new.write_text(text)
    new.replace(file)


def _write_settings(file: Path, wanted: Mapping[str, str]) -> dict[str, str]:
    """Add the settings that the file lacks. Returns all."""
    text = (
        file.read_text()
        if file.exists()
        else "# docker compose reads this; see docs/self-hosted.md\n"
    )
    there = dict(line.split("=", 1) for line in text.splitlines() if line.startswith("STACK_"))
    lacking = {key: value for key, value in wanted.items() if key not in there}
    if lacking:
        _write(file, text + "".join(f"{key}={value}\n" for key, value in lacking.items()))
    return {**wanted, **there}


def _client(settings: Mapping[str, str]) -> str:
    folder = settings["STACK_DIR"]
    passwords = f"{folder}/secrets/pgpass"
    variables = {
        "TEMPORAL_ADDRESS": f"127.0.0.1:{settings['STACK_TEMPORAL_PORT']}",
        "TEMPORAL_NAMESPACE": "default",
        "HELIX_LEDGER_URL": f"postgresql://helix@127.0.0.1:{settings['STACK_POSTGRES_PORT']}/helix"
        f"?passfile={passwords}",
        "HELIX_STORE_URL": f"file://{folder}/data/store",
        "HELIX_ENCRYPTION_KEYS": f"file:{folder}/secrets/encryption-keys",
        "HELIX_UI_URL": f"http://127.0.0.1:{settings['STACK_UI_PORT']}",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{settings['STACK_OTLP_PORT']}",
    }
    lines = [f"export {key}={shlex.quote(value)}\n" for key, value in variables.items()]
    return "".join(["# To work with the stack from this machine: source this file.\n", *lines])


def _accounts(user: str) -> str:
    """For Temporal's server, which does not start under a number that has no name."""
    number, group = user.split(":")
    names = {"0": "root"} | {number: "root" if number == "0" else "helix"}
    lines = [f"{name}:x:{one}:{group}::/tmp:/bin/sh\n" for one, name in names.items()]
    return "".join(lines)


def main() -> int:
    """For `make stack-secrets`."""
    folder = ROOT / ".stack"
    try:
        prepare(folder, ROOT / ".env")
    except SetupFailed as error:
        fail(error, "stack")
        return 1
    say("stack", f"secrets and data in {folder}, docker compose's settings in {ROOT / '.env'}")
    if os.getuid() == 0:
        say("stack", "made by root, so the workers will run as root: better do it as who will push")
    say("stack", f"next: docker compose up -d --wait; then: . {folder / 'client.env'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
