"""Debian's packages: everything that the demo and the tests take from there, in one place."""

from __future__ import annotations

import shutil
from pathlib import Path

from scripts.setup.shell import SetupFailed, is_root, run, say

POSTGRES = (
    "pg_ctl", "postgres", "initdb", "psql", "pg_isready", "pg_dump", "pg_dumpall", "pg_restore",
)  # fmt: skip
"""PostgreSQL's own programs; they are not on the PATH, or only behind a wrapper."""

PACKAGES = {
    "docker": "docker.io",
    "dockerd": "docker.io",
    "docker-registry": "docker-registry",
    "caddy": "caddy",
    "chromium": "chromium",
    "redis-server": "redis-server",
    "busybox": "busybox-static",
    "htpasswd": "apache2-utils",
    "openssl": "openssl",
    "ssh": "openssh-client",
    "ip": "iproute2",
    "nsenter": "util-linux",
    **dict.fromkeys(POSTGRES, "postgresql"),
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "etcd": "etcd-server",
    "java": "default-jre-headless",
    "mvn": "maven",
    "python3": "python3-minimal",
    "venv": "python3-venv",
}
"""A program that we need -> the package that brings it."""

NO_SERVICES = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1", "SYSTEMD_OFFLINE": "1"}
"""We want the programs only: neither init system may start what a package brings."""


OFF_THE_PATH = {
    **{name: f"postgresql/*/bin/{name}" for name in POSTGRES},
    "venv": "python3*/ensurepip",
}
"""What no PATH leads to -> where it is in /usr/lib."""


def find(name: str) -> str | None:
    """The path of a program, or of what else is in the table."""
    if pattern := OFF_THE_PATH.get(name):
        return next(map(str, sorted(Path("/usr/lib").glob(pattern))), None)
    return shutil.which(name)


def ensure(*programs: str, services: bool = False) -> None:
    """Install what is missing of these programs.

    Args:
        services: let the packages start their daemons.

    Raises:
        SetupFailed: something is missing and cannot be installed here.
    """
    missing = [name for name in programs if find(name) is None]
    if not missing:
        return
    wanted = list(dict.fromkeys(PACKAGES[name] for name in missing))
    command = f"apt-get install {' '.join(wanted)}"
    if shutil.which("apt-get") is None:
        raise SetupFailed(
            f"not installed: {', '.join(missing)}",
            f"install it by the means of your system; on Debian it is: {command}",
        )
    if not is_root():
        raise SetupFailed(f"not installed: {', '.join(missing)}", f"sudo {command}")
    say("packages", f"{command} …")
    env = {"DEBIAN_FRONTEND": "noninteractive"} if services else NO_SERVICES
    apt = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300"]
    mend = f"see why this fails: {command}"
    run([*apt, "update"], mend=mend, env=env)
    run([*apt, "install", "--no-install-recommends", *wanted], mend=mend, env=env)
