"""The engine that builds: a connection to it, what it can do, and its errors in our own words.

Which engine it is follows from DOCKER_HOST, or the docker CLI's context where that is unset, as for
every Docker tool.
"""

from __future__ import annotations

import functools
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException

from model.docker_errors import classify
from model.errors import HelixError, NotFound, PlatformUnhealthy, Transient

_START = "start it (`systemctl start docker`), or set DOCKER_HOST; `helix doctor` says more"
_TRUSTED_FOR = 60
"""Seconds for which what was found out about the engine holds."""


@dataclass(frozen=True)
class Engine:
    """What an engine is."""

    version: str
    root: str
    """The folder it keeps images in, on its own host."""
    local: bool
    """Whether that host is this machine."""
    podman: bool = False
    architecture: str = ""
    """What it builds for unless told otherwise, in its own words: x86_64, aarch64."""

    @property
    def features(self) -> frozenset[str] | None:
        """The Dockerfile features of its BuildKit without a frontend image; None without BuildKit.

        An engine's own frontend is as old as the engine: 20.10 came with Dockerfile 1.2, and 23.0
        with 1.5, the first that knows here-documents (1.4) and `COPY --link` (1.4).
        """
        match = re.match(r"(\d+)\.(\d+)", self.version)
        version = (int(match[1]), int(match[2])) if match else (0, 0)
        if self.podman or version < (18, 9):
            return None
        found = {"syntax"}
        found |= {"mount", "chmod"} if version >= (20, 10) else set()
        found |= {"heredoc", "link"} if version >= (23, 0) else set()
        return frozenset(found)


@contextmanager
def engine(timeout: float = 60) -> Iterator[docker.DockerClient]:
    """A client of the engine, closed at the end; what goes wrong in the block is translated.

    Args:
        timeout: seconds to wait for one answer.

    Raises:
        PlatformUnhealthy: there is no engine.
        Transient: it stopped answering.
    """
    with translated():
        client = docker.from_env(timeout=int(timeout))
        try:
            yield client
        finally:
            client.close()


def describe() -> Engine:
    """What the engine is; asked at most once a minute.

    Raises:
        PlatformUnhealthy: there is none.
    """
    names = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG")
    return _describe(tuple(os.environ.get(name) for name in names), int(time.time() / _TRUSTED_FOR))


@functools.lru_cache(maxsize=8)
def _describe(which: tuple[str | None, ...], period: int) -> Engine:
    with engine(timeout=20) as client:
        version, info = client.version(), client.info()
        podman = any("Podman" in part.get("Name", "") for part in version.get("Components") or ())
        return Engine(
            version=str(version.get("Version", "")),
            root=str(info.get("DockerRootDir", "")),
            local=client.api.base_url.startswith("http+docker://localhost"),
            podman=podman,
            architecture=str(info.get("Architecture", "")),
        )


@contextmanager
def translated() -> Iterator[None]:
    """docker-py's errors as those of `model.errors`."""
    try:
        yield
    except APIError as error:
        said = said_by(error)
        if error.status_code == 404:
            raise NotFound(said) from None
        cls = classify(said, default=Transient if error.is_server_error() else PlatformUnhealthy)
        raise cls(said, hint=_START if cls is PlatformUnhealthy else "") from None
    except requests.exceptions.Timeout:
        raise Transient("the engine does not answer in time") from None
    except (DockerException, requests.exceptions.RequestException) as error:
        raise _unreachable(error) from None


def said_by(error: Any) -> str:
    """The engine's own words, on one line."""
    return " ".join(str(getattr(error, "explanation", "") or error).split())


def _unreachable(error: BaseException) -> HelixError:
    said = said_by(error)[:200]
    if re.search(r"aborted|broken|ended prematurely|incomplete", said, re.IGNORECASE) and not (
        re.search(r"no such file|refused|permission", said, re.IGNORECASE)
    ):
        return Transient("the connection to the engine broke off")
    return PlatformUnhealthy(f"no engine answers: {said}", hint=_START)
