"""The kinds that other packages bring.

The model of such a kind's table is made of its own settings and what every kind can be told, so
that its mistakes are found, and told with file, line and key, as those of our kinds are.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, cast

from pydantic import BaseModel, ConfigDict

from model.catalog import PROVIDER_GROUP, REGISTRY_GROUP, Catalog, package_of, plugins
from model.errors import ConfigurationError
from project.kinds import KINDS, Kind, Runtime, StoredImage
from project.reading import fields

_PROVIDERS = Catalog(PROVIDER_GROUP)
_REGISTRIES = Catalog(REGISTRY_GROUP)


def kinds() -> list[str]:
    """The kinds of packages, sorted. One named as a kind of ours is not seen."""
    return [kind for kind in plugins(PROVIDER_GROUP) if kind not in KINDS]


def package(kind: str) -> str:
    """The package that brings a kind, and its version."""
    return " and ".join(package_of(point) for point in plugins(PROVIDER_GROUP)[kind])


@cache
def table_of(kind: str) -> type[Kind]:
    """The model of `[cloud.<instance>.<kind>]`.

    A kind that runs nothing is a registry too, and has that one's settings.

    Raises:
        ConfigurationError: its package is broken.
    """
    provider = _PROVIDERS.load(kind)
    runtime: bool = provider.capabilities.runtime
    own: type[BaseModel] = (provider if runtime else _REGISTRIES.load(kind)).Settings
    base: type[Kind] = Runtime if runtime else StoredImage
    values: dict[str, Any] = {
        "__module__": own.__module__,
        "__doc__": own.__doc__,
        "model_config": ConfigDict(
            **cast(ConfigDict, {**base.model_config, **own.model_config, "extra": "allow"})
        ),
        "KIND": kind,
        "KEEPS": frozenset(own.model_fields),
    }
    return cast(type[Kind], type(own.__name__, (own, base), values))


def tables() -> Iterator[tuple[str, type[Kind]]]:
    """Every kind whose package is in order, and its table."""
    for kind in kinds():
        try:
            yield kind, table_of(kind)
        except ConfigurationError:
            continue


def first_table(kind: str, region: str) -> dict[str, Any]:
    """What `helix init` writes for a kind: every key that must be there, with the first of its
    `examples`, or YOUR_<KEY> for a person to fill in; and the region, if it has one."""
    values: dict[str, Any] = {}
    for name, field in fields(table_of(kind)).items():
        if name == "region" and region:
            values[name] = region
        elif field.is_required() and field.examples:
            values[name] = field.examples[0]
        elif field.is_required() and field.annotation is str:
            values[name] = f"YOUR_{name.upper()}"
    return values
