"""Finds the class of a kind: a built-in one by name, or a third party's by its entry point.

    PROVIDERS = Catalog("helix.providers", {"docker": "providers.docker:DockerProvider"})
    PROVIDERS.load("docker")

Nothing is imported before its kind is used, so that a cloud SDK costs nothing to those without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from model.errors import ConfigurationError


@dataclass(frozen=True)
class Catalog:
    """The kinds of one contract."""

    group: str
    """The entry-point group in which third parties name theirs."""
    builtin: Mapping[str, str]
    """Kind -> «module:Class»."""
    extras: Mapping[str, str] = field(default_factory=dict)
    """Kind -> the extra of helix-deploy that brings its SDK."""

    def kinds(self) -> list[str]:
        """Every kind that can be used here, sorted."""
        return sorted({*self.builtin, *(point.name for point in entry_points(group=self.group))})

    def load(self, kind: str) -> Any:
        """The class of a kind.

        Raises:
            ConfigurationError: no such kind, or its SDK is not installed.
        """
        target = self.builtin.get(kind)
        if target is None:
            for point in entry_points(group=self.group, name=kind):
                return point.load()
            near = get_close_matches(kind, self.kinds(), n=1)
            raise ConfigurationError(
                f"there is no kind «{kind}»",
                hint=f"did you mean «{near[0]}»?" if near else f"known: {', '.join(self.kinds())}",
            )
        module, _, name = target.partition(":")
        try:
            return getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            extra = self.extras.get(kind)
            if extra is None or (error.name or "").split(".")[0] in {"providers", "registries"}:
                raise
            raise ConfigurationError(
                f"the kind «{kind}» needs {error.name}, which is not installed",
                hint=f"pip install 'helix-deploy[{extra}]'",
            ) from None
