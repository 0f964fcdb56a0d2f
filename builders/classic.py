"""Builds with the engine's first builder, which knows nothing newer than multi-stage files."""

from __future__ import annotations

from typing import ClassVar

from builders.client import describe
from builders.engine import EngineBuilder


class ClassicBuilder(EngineBuilder):
    """The engine's `POST /build` without BuildKit: for old engines, and for Podman."""

    name: ClassVar[str] = "classic"
    version: ClassVar[str] = "1"

    @classmethod
    def probe(cls) -> ClassicBuilder | None:
        """See `Builder.probe`."""
        describe()
        return cls()
