"""Finds the class of a kind: a built-in one by name, or a third party's by its entry point.

    PROVIDERS = Catalog(PROVIDER_GROUP, {"docker": "providers.docker:DockerProvider"})
    PROVIDERS.load("docker")

Nothing is imported before its kind is used, so that a cloud SDK costs nothing to those without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from model.errors import ConfigurationError

PROVIDER_GROUP = "helix.providers"
"""The entry points of packages that bring kinds to run releases on."""
REGISTRY_GROUP = "helix.registries"
"""The entry points of packages that bring kinds of registries."""


@cache
def plugins(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """Kind -> the entry points that bring it: one, unless two packages do not know of each other.
    Read once a process."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        found[point.name] = (*found.get(point.name, ()), point)
    return found


def package_of(point: EntryPoint) -> str:
    """The package of an entry point, and its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


@dataclass(frozen=True)
class Catalog:
    """The kinds of one contract."""

    group: str
    """The entry-point group in which third parties name theirs."""
    builtin: Mapping[str, str] = field(default_factory=dict)
    """Kind -> «module:Class». These cannot be replaced by a package."""
    extras: Mapping[str, str] = field(default_factory=dict)
    """Kind -> the extra of helix-deploy that brings its SDK."""

    def kinds(self) -> list[str]:
        """Every kind that can be used here, sorted."""
        return sorted({*self.builtin, *plugins(self.group)})

    def load(self, kind: str) -> Any:
        """The class of a kind.

        Raises:
            ConfigurationError: no such kind, its SDK is not installed, or its package is broken.
        """
        target = self.builtin.get(kind)
        if target is None:
            if points := plugins(self.group).get(kind):
                return _load(kind, points)
            near = get_close_matches(kind, self.kinds(), n=1)
            raise ConfigurationError(
                f"there is no kind «{kind}» here",
                hint=f"did you mean «{near[0]}»?"
                if near
                else f"install the package that brings it; known: {', '.join(self.kinds())}",
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


def _load(kind: str, points: tuple[EntryPoint, ...]) -> Any:
    """The class of a package's kind, if it can be made at all."""
    packages = " and ".join(package_of(point) for point in points)
    if len(points) > 1:
        raise ConfigurationError(
            f"the kind «{kind}» is brought by {packages}", hint="uninstall all but one of them"
        )
    hint = f"ask whoever makes {packages}, or install another version of it"
    try:
        found = points[0].load()
    except Exception as error:  # whatever a stranger's module does when it is imported
        raise ConfigurationError(
            f"the kind «{kind}» of {packages} cannot be loaded: {type(error).__name__}: {error}",
            hint=hint,
        ) from error
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    missing += [name for name in ("Settings",) if not hasattr(found, name)]
    if missing:
        raise ConfigurationError(
            f"the kind «{kind}» of {packages} is not complete: it lacks {', '.join(missing)}",
            hint=hint,
        )
    return found
