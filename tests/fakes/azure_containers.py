"""What runs the containers of the stand-in for Azure.

`Pretended` answers with a name and behaves as its environment says. `tests.fakes.azure_engine` runs
the image itself.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from tests.fakes.aws_container import Container


class Line(NamedTuple):
    """What a container printed."""

    at: datetime
    text: str


class Running(ABC):
    """One container of a revision."""

    @property
    @abstractmethod
    def address(self) -> str:
        """Host and port where it would listen."""

    @abstractmethod
    def exit_code(self) -> int | None:
        """None while it runs."""

    @abstractmethod
    def lines(self) -> list[Line]:
        """What it has printed so far."""

    @abstractmethod
    def stop(self) -> None:
        """End it."""

    def listens(self) -> bool:
        """Azure's own startup probe: whether the port is open."""
        host, _, port = self.address.rpartition(":")
        with socket.socket() as probe:
            probe.settimeout(0.5)
            return probe.connect_ex((host, int(port))) == 0


Run = Callable[[str, dict[str, str], int], Running]
"""Starts a container: the image, its environment, the port it listens on."""


class Pretended(Running):
    """Serves NAME, or does what BEHAVIOUR says: `exit`, `hang`, `sick`."""

    def __init__(self, image: str, env: dict[str, str], port: int) -> None:
        name, behaviour = env.get("NAME", image), env.get("BEHAVIOUR", "serve")
        self._exits = behaviour == "exit"
        self._server = Container(name, "hang" if self._exits else behaviour, port)
        self._port = port
        self._lines = [Line(datetime.now(UTC), f"starting {name}")]
        if self._exits:
            self._lines.append(Line(datetime.now(UTC), "it is broken"))

    @property
    def address(self) -> str:
        return f"{self._server.address}:{self._port}"

    def exit_code(self) -> int | None:
        return 3 if self._exits else None

    def lines(self) -> list[Line]:
        return [*self._lines]

    def say(self, text: str) -> None:
        """Print a line."""
        self._lines.append(Line(datetime.now(UTC), text))

    def stop(self) -> None:
        self._server.stop()
