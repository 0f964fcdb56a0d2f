"""Opens a registry by its kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from model.instance import RegistryTarget
from registries.base import Registry, RegistryContext
from registries.catalog import REGISTRIES


@contextmanager
def open_registry(target: RegistryTarget, context: RegistryContext) -> Iterator[Registry]:
    """The registry of a target, closed at the end.

    Raises:
        ConfigurationError: no such kind, its SDK is not installed, or a setting is wrong.
    """
    registry: Registry = REGISTRIES.load(target.kind)(target, context)
    try:
        yield registry
    finally:
        registry.close()
