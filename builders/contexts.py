"""What must be made before a source can be: some builds begin with another tool's work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from builders.bundle import prepare_bundle
from builders.helix import prepare_context
from model.instance import Instance

PREPARE: dict[str, Callable[[Instance, Path, Callable[[str], None]], Path]] = {
    "helix": prepare_context,
    "bundle": prepare_bundle,
}
"""The kind of a build -> what makes the folder that it begins with."""


def context_of(instance: Instance, project_dir: Path, log: Callable[[str], None]) -> Path:
    """The folder that an instance is built from.

    Raises:
        ConfigurationError, BuildFailed: see what makes it.
    """
    prepare = PREPARE.get(instance.build.kind)
    if prepare is None:
        return project_dir / instance.build.context
    return prepare(instance, project_dir, log)
