"""Runs the containers of the stand-in for Azure for real: pulled by digest, on an engine here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

import docker
from docker.errors import NotFound

from tests.fakes.azure_containers import Line, Run, Running

LABEL = "helix-test-azure"


def engine_runner(login: Callable[[], dict[str, str]]) -> Run:
    """Starts images on the environment's engine.

    Args:
        login: what they are pulled with, as a managed identity has it.
    """
    engine = docker.from_env()

    def run(image: str, env: dict[str, str], port: int) -> Running:
        engine.images.pull(image, auth_config=login())
        return EngineContainer(engine, image, env, port)

    return run


class EngineContainer(Running):
    """One container on an engine, its port published on loopback."""

    def __init__(
        self, engine: docker.DockerClient, image: str, env: dict[str, str], port: int
    ) -> None:
        self._port = port
        self._container: Any = engine.containers.run(
            image, environment=env, labels={LABEL: ""}, detach=True
        )

    @property
    def address(self) -> str:
        """In the engine's own network: at a published port something always listens."""
        self._container.reload()
        place = self._container.attrs["NetworkSettings"]["IPAddress"]
        return f"{place}:{self._port}" if place else "127.0.0.1:1"

    def exit_code(self) -> int | None:
        self._container.reload()
        state = self._container.attrs["State"]
        return int(state["ExitCode"]) if state["Status"] == "exited" else None

    def lines(self) -> list[Line]:
        found = []
        for raw in self._container.logs(timestamps=True).decode().splitlines():
            stamp, _, text = raw.partition(" ")
            found.append(Line(datetime.fromisoformat(stamp[:26].rstrip("Z") + "+00:00"), text))
        return found

    def stop(self) -> None:
        with suppress(NotFound):
            self._container.remove(force=True, v=True)
